"""The processes of a run, each connected with process 0 for as long as it lives.

Over these connections the processes report failures and signals, and they end together: if one raises, is killed, or
its host dies, all are gone within seconds, and the cause of the first failure is the last line that process 0 writes.
The collective operations of the devices notice nothing of this: without the group they would wait for ever.

One long call of a library can keep a process from running Python for minutes. So the signs of life are those of the
operating system: it closes the connections of a process that has died, and notices a host that does not answer
(``Connection.watch_host``). A process that is alive and does not go on is found by the deadline of the ``Watchdog``.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

from nivp_dist.cluster import ending, joining, reception
from nivp_dist.cluster.diagnosis import Failure, first_failure, silent_processes, stuck_processes
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.errors import FAILED, PROCESS_LOST
from nivp_dist.settings.model import ClusterSettings

GATHER_SECONDS = 0.4  # after a first report: it may be the consequence of another failure, whose report comes later
END_SECONDS = 5.0  # for everyone to end
STACKS_SECONDS = 1.0  # for everyone to write the stacks of its threads
ANSWER_SECONDS = 10.0  # for a process to say where it is, before it counts as silent
PROCESS_0_SECONDS = 25.0  # for process 0 to act on a missed deadline: it waits for answers, and logs may hang
MAX_CAUSE = 10_000  # characters of a cause; errors of XLA can be longer than a message may be


class Group:
    """This process's connections with the others.

    topology: of this process. meeting: where process 0 listens. secret: of the group (``secret.shared_secret``).
    Raises RunFailed if processes do not come, InputError if they disagree about the group.
    """

    def __init__(self, topology: Topology, meeting: Meeting, secret: bytes, settings: ClusterSettings | None = None):
        settings = settings or ClusterSettings()
        self.processes, self.index = topology.processes, topology.index
        self.host = socket.gethostname()
        self.signal: str | None = None  # one that arrived here; the thread passes it on to process 0
        self.on_signal: Callable[[str], object] = lambda name: None
        self.on_dump: Callable[[], object] = lambda: None
        self.on_end: Callable[[str], object] = lambda cause: None
        self.position: tuple[int, str] = (0, "start")  # commands begun so far, and the label of the last
        self._positions: dict[int, tuple[tuple[int, str], str]] = {}  # process 0 only; see ``stuck_processes``
        self._failures: list[Failure] = []  # process 0 only
        self._first_failure_at: float | None = None
        self._lock, self._ending = threading.RLock(), threading.Event()
        if self.index == 0:
            self.met = reception.wait_for_all(self.processes, meeting, secret, settings.startup_seconds)
        else:
            self.met = joining.join(topology, meeting, secret, settings.startup_seconds)
        self._peers = self.met.peers
        self._silence_seconds = settings.silence_seconds
        for peer in self._peers.values():
            peer.connection.watch_host(self._silence_seconds)
        threading.Thread(target=self._serve, name="group", daemon=True).start()

    # Called by the main thread and by the watchdog ---------------------------------------------------

    def fail(self, cause: str, code: int = FAILED, consequence: bool = False) -> None:
        """End the whole group because of this process. Does not return.

        consequence: the cause may be the consequence of another process's failure.
        """
        failure = Failure(cause[:MAX_CAUSE], code, consequence, self.index, self.host)
        self._report(failure)
        if not self._ending.wait(GATHER_SECONDS + END_SECONDS):
            # Process 0 cannot act, because one call holds its interpreter. If this is the cause, it must not be lost.
            self._end(*first_failure([failure]), on_screen=not consequence)
        time.sleep(END_SECONDS)  # the thread that has decided on the cause ends this process
        os._exit(code)

    def leave(self, seconds: float = 10.0) -> None:
        """The orderly end. Process 0 returns when the others are gone: the last exit code is the one that counts."""
        if self.index:
            self._tell_process_0({"goodbye": True})
            self._ending.set()
            return
        deadline = time.monotonic() + seconds
        while self._peers and time.monotonic() < deadline:
            time.sleep(0.01)
        self._ending.set()

    def report_missed_deadline(self, seconds: float) -> None:
        """The main thread of this process has been in one command for more than so many seconds: end the group."""
        self.on_dump()
        if self.index == 0:
            self._find_stuck_process(seconds)
        elif (peer := self._peers.get(0)) is not None:
            peer.connection.send({"missed_deadline": seconds})
            if not self._ending.wait(PROCESS_0_SECONDS):
                cause = silent_processes({0: peer.host}, self.position[1], seconds)
                self._end(cause, PROCESS_LOST, on_screen=self.index == 1)

    # The thread --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, peer in self._peers.items():
                selector.register(peer.connection.socket, selectors.EVENT_READ, index)
            signal_sent = False
            while self._peers or self._failures:
                for key, _ in selector.select(0.1 if self._failures else 0.5):
                    if key.data in self._peers and not self._receive(key.data):
                        selector.unregister(key.fileobj)
                        self._connection_closed(key.data)
                if self.signal and self.index and not signal_sent:
                    signal_sent = self._tell_process_0({"signal": self.signal})
                if self._first_failure_at and time.monotonic() - self._first_failure_at > GATHER_SECONDS:
                    self._end_for_first_failure()

    def _receive(self, index: int) -> bool:
        """Act on what a peer has sent; False if its connection is closed."""
        messages, is_open = self._peers[index].connection.read()
        for message in messages:
            self._handle(index, message)
        return is_open

    def _handle(self, index: int, message: dict) -> None:
        peer = self._peers[index]
        if "position" in message:
            count, label = message["position"]
            self._positions[index] = (count, label), peer.host
        elif "signal" in message:
            self.on_signal(message["signal"])
        elif "failure" in message:
            peer.may_close = True
            self._report(Failure(**message["failure"]))
        elif "missed_deadline" in message:
            seconds = message["missed_deadline"]
            threading.Thread(target=self._find_stuck_process, args=(seconds,), daemon=True).start()
        elif "write_stacks" in message:
            peer.connection.send({"position": self.position})
            self.on_dump()
        elif "goodbye" in message:
            peer.may_close = True
        elif "end" in message:
            self._end(message["end"], message["code"], on_screen=False)

    def _connection_closed(self, index: int) -> None:
        peer = self._peers.pop(index)
        peer.connection.close()
        if peer.may_close or self._ending.is_set():
            return
        silence = f": its host has not answered for {self._silence_seconds:g} s"
        cause = f"process {index} on {peer.host}{silence if peer.connection.host_is_lost else ' was killed'}"
        # If process 0 is lost, nobody is left to decide: each of the others ends by itself, and the first says why.
        self._end(cause, PROCESS_LOST, on_screen=self.index in (0, 1))

    def _tell_process_0(self, message: dict) -> bool:
        peer = self._peers.get(0)
        return peer is not None and peer.connection.send(message)

    # Causes of an end --------------------------------------------------------------------------------

    def _report(self, failure: Failure) -> None:
        """Process 0 collects the failures of all processes for a moment before it decides which came first."""
        if self.index:
            self._tell_process_0({"failure": failure._asdict()})
            return
        with self._lock:
            self._failures.append(failure)
            self._first_failure_at = self._first_failure_at or time.monotonic()
        if not self._peers:
            self._end_for_first_failure()

    def _end_for_first_failure(self) -> None:
        with self._lock:
            cause, code = first_failure(self._failures)
        self._end(cause, code)

    def _find_stuck_process(self, seconds: float) -> None:
        """Process 0 asks all where they are, and for their stacks. Then it blames those that do not answer, or else
        the one that is behind the others.
        """
        with self._lock:
            if self._positions or self._ending.is_set():
                return
            # Now, because the others may go on to their next command while they write.
            self._positions[0] = self.position, self.host
        asked = {index: peer for index, peer in list(self._peers.items()) if not peer.may_close}
        for peer in asked.values():
            peer.connection.send({"write_stacks": True})
        # The time is counted in intervals of sleep, as in the watchdog.
        waited = 0.0
        while waited < STACKS_SECONDS or (waited < ANSWER_SECONDS and not asked.keys() <= self._positions.keys()):
            time.sleep(0.05)
            waited += 0.05
        silent = {index: peer.host for index, peer in asked.items() if index not in self._positions}
        if silent:
            _, label = self._positions[0][0]
            self._end(silent_processes(silent, label, seconds), PROCESS_LOST)
        else:
            self._end(stuck_processes(self._positions, seconds), FAILED)

    def _end(self, cause: str, code: int, on_screen: bool = True) -> None:
        """Write the cause, end the other processes if this is process 0, and end this one."""
        with self._lock:
            if self._ending.is_set():
                return
            self._ending.set()
            ending.write_cause(cause, self.on_end, on_screen)
            if self.index == 0:
                ending.end_others([peer.connection for peer in self._peers.values()], cause, code)
            else:  # process 0 may wake up later: it then writes this cause, and no other
                self._tell_process_0({"end": cause, "code": code})
            os._exit(code)
