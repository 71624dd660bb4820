"""The processes of a run, each tied to process 0 by a TCP connection that lives exactly as long as it does.

Over it they meet (process 0 hands out the port of JAX's coordinator), report failures and signals, and end together:
a process that raises, is killed, or whose host dies takes the group with it within seconds, and the cause of the one
that failed first is the last line that process 0 writes. Collectives of a device know none of this: they hang.
"""

import os
import resource
import selectors
import socket
import sys
import threading
import time
from typing import Callable

from nivp_dist.cluster.bounded import within
from nivp_dist.cluster.logs import silence
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.cluster.wire import Line, free_port, listen
from nivp_dist.errors import FAILED, InputError, RunFailed

BEAT, SILENCE = 2.0, 30.0  # seconds between signs of life; without any for so long a host is given up
GRACE = 0.4  # seconds in which a failure may turn out to be the echo of another one
ANSWER = 2.0  # seconds, of whoever listens on a port
WRITING = 2.0  # seconds for a line to reach its log: what has hung may be the file system
LAST_WORDS = 5.0  # seconds for everyone to end


class Group:
    """This process's end of its connections.

    topology: of this process. meeting: where process 0 listens. startup: seconds within which all must have come.
    """

    def __init__(self, topology: Topology, meeting: Meeting, startup: float = 120.0):
        self.processes, self.index = topology.processes, topology.index
        self.host, self.port = socket.gethostname(), None
        self.reach = 0.0  # seconds until process 0 answered
        self.signal: str | None = None  # one that arrived here: handed on to process 0 by the thread
        self.on_signal: Callable[[str], None] = lambda name: None
        self.on_dump: Callable[[], None] = lambda: None
        self.on_end: Callable[[str], None] = lambda cause: None
        self.position = (0, "start")  # commands obeyed so far, and what is being done: for the watchdog
        self._reports: list[dict] = []  # failures, process 0 only
        self._peers: dict[int, Line] = {}
        self._lock, self._ending = threading.RLock(), threading.Event()
        if self.index == 0:
            self._found(meeting, startup)
        else:
            self._join(meeting, startup)
        threading.Thread(target=self._serve, name="group", daemon=True).start()

    # Said by the program -----------------------------------------------------------------------------

    def fail(self, cause: str, code: int = FAILED, echo: bool = False) -> None:
        """End the whole group because of this process. Does not return.

        echo: the cause may be the consequence of another process's failure.
        """
        self._report({"cause": cause, "code": code, "echo": echo, "process": self.index, "host": self.host})
        self._ending.wait(GRACE + LAST_WORDS)
        time.sleep(LAST_WORDS)  # the verdict ends this process
        os._exit(code)

    def leave(self, seconds: float = 10.0) -> None:
        """The orderly end: process 0 returns when the others are gone, so that its exit code is the last and counts."""
        if self.index:
            self._send(self._peers[0], {"bye": True})
            self._ending.set()
            return
        deadline = time.monotonic() + seconds
        while self._peers and time.monotonic() < deadline:
            time.sleep(0.01)
        self._ending.set()

    # Meeting -----------------------------------------------------------------------------------------

    def _found(self, meeting: Meeting, startup: float) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * self.processes + 256)), hard))
        listener, place = listen(meeting.ports)
        self.port = free_port()
        deadline, told = time.monotonic() + startup, time.monotonic() + 10
        while len(self._peers) < self.processes - 1:
            absent = [str(i) for i in range(1, self.processes) if i not in self._peers]
            names = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"processes {names} of {self.processes} did not come to {self.host}:{place} within {startup:g} s: "
                    "see their logs, and `nivp doctor` under the same launcher"
                )
            if time.monotonic() > told:
                sys.stderr.write(f"nivp: waiting for processes {names} at {self.host}:{place}\n")
                told = time.monotonic() + 30
            listener.settimeout(0.5)
            try:
                connection, _ = listener.accept()
            except OSError:
                continue
            line = Line(connection)
            hello = line.wait(ANSWER) or {}
            index = hello.get("process")
            if hello.get("token") != meeting.token or index in self._peers or hello.get("processes") != self.processes:
                self._send(line, {"welcome": False, "why": self._refusal(hello, meeting, index)})
                line.close()
                continue
            self._send(line, {"known": True})
            line.host = hello["host"]
            self._peers[index] = line
        for line in self._peers.values():
            self._send(line, {"welcome": True, "port": self.port})
        listener.close()

    def _refusal(self, hello, meeting, index) -> str:
        if hello.get("token") != meeting.token:
            return ""  # another group's: it looks further
        if index in self._peers:
            return f"two processes call themselves {index}"
        return f"it counts {hello.get('processes')} processes, process 0 counts {self.processes}"

    def _join(self, meeting: Meeting, startup: float) -> None:
        deadline, error = time.monotonic() + startup, "no answer"
        try:
            socket.getaddrinfo(meeting.host, None)
        except OSError as problem:
            raise InputError(
                f"{self.host}: the host of process 0, {meeting.host}, has no address here ({problem.strerror}): mend "
                "the name service, or name a host that resolves in NIVP_MEETING"
            ) from None
        hello = {"token": meeting.token, "process": self.index, "processes": self.processes, "host": self.host}
        while time.monotonic() < deadline:
            for port in meeting.ports:
                asked = time.monotonic()
                try:
                    line = Line(socket.create_connection((meeting.host, port), timeout=ANSWER))
                except OSError as problem:
                    error = problem.strerror or str(problem)
                    continue
                self._send(line, hello)
                answer = line.wait(ANSWER)
                if answer is not None and answer.get("known"):
                    self.reach = time.monotonic() - asked
                    answer = line.wait(startup)  # until all have come
                if answer is not None and answer.get("welcome"):
                    self.port, line.host = answer["port"], meeting.host
                    self._peers[0] = line
                    return
                line.close()
                error = "no answer"
                if answer is not None and answer.get("why"):
                    raise InputError(f"process {self.index} on {self.host}: {answer['why']}")
            time.sleep(0.1)
        raise RunFailed(
            f"process {self.index} on {self.host}: no process 0 at {meeting.host}, ports {meeting.ports[0]}.. within "
            f"{startup:g} s ({error}): see its log, and whether a firewall lies between"
        )

    # The thread --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        selector = selectors.DefaultSelector()
        for index, line in self._peers.items():
            selector.register(line.socket, selectors.EVENT_READ, index)
            line.heard = time.monotonic()
        beat = looked = time.monotonic()
        told = False
        while self._peers:
            for key, _ in selector.select(0.1 if self._reports else min(0.5, BEAT)):
                line = self._peers.get(key.data)
                if line is None:
                    continue
                messages, open_ = line.read()
                for message in messages:
                    self._heard(key.data, message)
                if not open_:
                    selector.unregister(line.socket)
                    self._gone(key.data)
            now = time.monotonic()
            if self.signal and self.index and not told:
                told = True
                self._send(self._peers[0], {"signal": self.signal})
            if now - beat > BEAT:
                beat = now
                for line in list(self._peers.values()):
                    self._send(line, {"at": self.position})
            for index, line in list(self._peers.items()):
                if now - looked > SILENCE / 3:  # who was suspended himself cannot blame others for their silence
                    line.heard = now
                if now - line.heard > SILENCE:
                    self._lost(index, f"no sign of life for {SILENCE:g} s")
            looked = now
            if self._reports and now - self._reports[0]["when"] > GRACE:
                self._check_residual()

    def _heard(self, index: int, message: dict) -> None:
        line = self._peers[index]
        line.heard = time.monotonic()
        if "at" in message:
            line.position = tuple(message["at"])
        elif "signal" in message:
            self.on_signal(message["signal"])
        elif "cause" in message:
            self._report(message)
        elif "late" in message:
            self.judge_late(message["late"])
        elif "dump" in message:
            self.on_dump()
            self._send(line, {"at": self.position})
        elif "bye" in message:
            line.parted = True
        elif "end" in message:
            self._end(message["end"], message["code"], say=False)

    def _gone(self, index: int) -> None:
        line = self._peers[index]
        if line.parted or self._ending.is_set():
            self._peers.pop(index).close()
            return
        self._lost(index, "was killed")

    def _lost(self, index: int, how: str) -> None:
        host = self._peers[index].host
        self._peers.pop(index).close()
        cause = f"process {index} on {host} {how}" if how == "was killed" else f"process {index} on {host}: {how}"
        if self.index:
            # Nobody is left to decide: each ends for itself, and the first of the others says why.
            self._end(cause, FAILED, say=self.index == 1)
        self._end(cause, FAILED)

    # Ending ------------------------------------------------------------------------------------------

    def _report(self, report: dict) -> None:
        if self.index:
            self._send(self._peers[0], report)
            return
        with self._lock:
            self._reports.append(report | {"when": time.monotonic()})
        if not self._peers:
            self._check_residual()

    def _check_residual(self) -> None:
        """The first report that is no echo; plain if process 0 says the same."""
        with self._lock:
            first = next((report for report in self._reports if not report["echo"]), self._reports[0])
            mine = any(r["process"] == 0 and r["cause"] == first["cause"] for r in self._reports)
        who = "" if mine else f"process {first['process']} on {first['host']}: "
        self._end(f"{who}{first['cause']}", first["code"])

    def late(self, seconds: float) -> None:
        """This process has missed a deadline. The one that is behind all others is the cause."""
        self.on_dump()
        if self.index:
            self._send(self._peers[0], {"late": seconds})
        else:
            self.judge_late(seconds)

    def judge_late(self, seconds: float) -> None:
        if self._ending.is_set():
            return
        positions = {0: (self.position, self.host)}
        for line in list(self._peers.values()):
            self._send(line, {"dump": True})
        threading.Timer(1.0, self._blame, (seconds, positions)).start()

    def _blame(self, seconds, positions) -> None:
        positions |= {index: (line.position, line.host) for index, line in self._peers.items()}
        # Commands are counted: the first to complain may well be the one that is stuck.
        (least, label), (_, furthest) = (pick(position for position, _ in positions.values()) for pick in (min, max))
        behind = {i: host for i, (position, host) in positions.items() if position[0] == least}
        if len(behind) == len(positions):
            who = f"all processes are stuck in '{label}'"
        else:
            names = ", ".join(f"process {i} on {host}" for i, host in behind.items())
            who = f"{names} stuck in '{label}' while the others wait in '{furthest}'"
        self._end(f"{who} for more than {seconds:g} s: the stacks are in the logs of the run directory", FAILED)

    def _end(self, cause: str, code: int, say: bool = True) -> None:
        with self._lock:
            if self._ending.is_set():
                return
            self._ending.set()
            said = " ".join(cause.split())
            words = [sys.stdout.flush, lambda: _last_line(f"nivp: {said}\n")] if say else []
            for write in (*words, lambda: self.on_end(f"the group ends: {said}")):
                within(WRITING, write)
            if self.index == 0:
                # Launchers kill what is left at the first bad exit code: the line above must be out by then.
                time.sleep(0.1)
                for line in list(self._peers.values()):
                    self._send(line, {"end": cause, "code": code})
                deadline = time.monotonic() + 1.0
                while time.monotonic() < deadline and any(line.read()[1] for line in list(self._peers.values())):
                    time.sleep(0.01)
            os._exit(code)

    def _send(self, line: Line, message: dict) -> None:
        try:
            line.send(message)
        except OSError:
            pass  # its end is noticed by the thread that reads


def _last_line(text: str) -> None:
    """Onto standard error, past its buffer; what libraries, or another thread's traceback, still say there while all is
    torn down is not shown: silence comes first, so that nothing can follow the line."""
    screen = os.dup(2)
    silence(2)
    os.write(screen, text.encode())
    os.close(screen)
