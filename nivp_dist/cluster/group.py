"""The processes of a run, each connected with process 0 for as long as it lives.

Over these connections the processes report failures and signals, and they end together: if one raises, is killed, or
its host dies, all are gone within seconds, and the cause of the first failure is the last line that process 0 writes.
The collective operations of the devices notice nothing of this: without the group they would wait for ever.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

from nivp_dist.cluster import ending, joining, reception
from nivp_dist.cluster.diagnosis import Failure, first_failure, stuck_processes
from nivp_dist.cluster.liveness import Liveness
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.errors import FAILED, PROCESS_LOST
from nivp_dist.settings.model import ClusterSettings

GATHER_SECONDS = 0.4  # after a first report: it may be the consequence of another failure, whose report comes later
END_SECONDS = 5.0  # for everyone to end
STACKS_SECONDS = 1.0  # for everyone to write the stacks of its threads
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
        self.position: tuple[int, str] = (
            0,
            "start",
        )  # commands begun so far, and the label of the last: for the watchdog
        self._failures: list[Failure] = []  # process 0 only
        self._first_failure_at: float | None = None
        self._lock, self._ending = threading.RLock(), threading.Event()
        if self.index == 0:
            self.met = reception.wait_for_all(self.processes, meeting, secret, settings.startup_seconds)
        else:
            self.met = joining.join(topology, meeting, secret, settings.startup_seconds)
        self._peers = self.met.peers
        self._liveness = Liveness(settings.silence_seconds)
        threading.Thread(target=self._serve, name="group", daemon=True).start()

    # Called by the main thread and by the watchdog ---------------------------------------------------

    def fail(self, cause: str, code: int = FAILED, consequence: bool = False) -> None:
        """End the whole group because of this process. Does not return.

        consequence: the cause may be the consequence of another process's failure.
        """
        self._report(Failure(cause[:MAX_CAUSE], code, consequence, self.index, self.host))
        self._ending.wait(GATHER_SECONDS + END_SECONDS)
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
        if self.index:
            self._tell_process_0({"missed_deadline": seconds})
        else:
            self._find_stuck_process(seconds)

    # The thread --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, peer in self._peers.items():
                selector.register(peer.connection.socket, selectors.EVENT_READ, index)
                peer.last_message = time.monotonic()
            signal_sent = False
            while self._peers:
                for key, _ in selector.select(0.1 if self._failures else min(0.5, self._liveness.interval)):
                    if key.data in self._peers and not self._receive(key.data):
                        selector.unregister(key.fileobj)
                        self._connection_closed(key.data)
                if self.signal and self.index and not signal_sent:
                    signal_sent = self._tell_process_0({"signal": self.signal})
                self._check_peers()
                if self._first_failure_at and time.monotonic() - self._first_failure_at > GATHER_SECONDS:
                    self._end_for_first_failure()

    def _check_peers(self) -> None:
        """Send a sign of life if one is due, and give up the peers that have sent none for too long."""
        if self._liveness.beat_is_due():
            for peer in list(self._peers.values()):
                peer.connection.send({"position": self.position})
        for index in self._liveness.silent(dict(self._peers)):
            self._end_for_lost_peer(index, f": no sign of life for {self._liveness.silence_seconds:g} s")

    def _receive(self, index: int) -> bool:
        """Act on what a peer has sent; False if its connection is closed."""
        peer = self._peers[index]
        messages, is_open = peer.connection.read()
        for message in messages:
            peer.last_message = time.monotonic()
            self._handle(index, message)
        return is_open

    def _handle(self, index: int, message: dict) -> None:
        peer = self._peers[index]
        if "position" in message:
            count, label = message["position"]
            peer.position = (count, label)
        elif "signal" in message:
            self.on_signal(message["signal"])
        elif "failure" in message:
            self._report(Failure(**message["failure"]))
        elif "missed_deadline" in message:
            self._find_stuck_process(message["missed_deadline"])
        elif "write_stacks" in message:
            self.on_dump()
            peer.connection.send({"position": self.position})
        elif "goodbye" in message:
            peer.has_left = True
        elif "end" in message:
            self._end(message["end"], message["code"], on_screen=False)

    def _connection_closed(self, index: int) -> None:
        if self._peers[index].has_left or self._ending.is_set():
            self._peers.pop(index).connection.close()
        else:
            self._end_for_lost_peer(index, " was killed")

    def _tell_process_0(self, message: dict) -> bool:
        peer = self._peers.get(0)
        return peer is not None and peer.connection.send(message)

    # Causes of an end --------------------------------------------------------------------------------

    def _end_for_lost_peer(self, index: int, what: str) -> None:
        peer = self._peers.pop(index)
        peer.connection.close()
        # If process 0 is lost, nobody is left to decide: each of the others ends by itself, and the first says why.
        self._end(f"process {index} on {peer.host}{what}", PROCESS_LOST, on_screen=self.index in (0, 1))

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
        """Process 0 asks all for their stacks, and a moment later blames the process that is behind the others."""
        if self._ending.is_set():
            return
        mine = {0: (self.position, self.host)}  # now: the others may go on to their next command while they write
        for peer in list(self._peers.values()):
            peer.connection.send({"write_stacks": True})

        def end() -> None:
            positions = mine | {index: (peer.position, peer.host) for index, peer in self._peers.items()}
            self._end(stuck_processes(positions, seconds), FAILED)

        threading.Timer(STACKS_SECONDS, end).start()

    def _end(self, cause: str, code: int, on_screen: bool = True) -> None:
        """Write the cause, end the other processes if this is process 0, and end this one."""
        with self._lock:
            if self._ending.is_set():
                return
            self._ending.set()
            ending.write_cause(cause, self.on_end, on_screen)
            if self.index == 0:
                ending.end_others([peer.connection for peer in self._peers.values()], cause, code)
            os._exit(code)
