"""A deadline for every command: if one takes too long, all processes write their stacks and the run ends."""

import contextlib
import faulthandler
import os
import socket
import tempfile
import threading
from collections.abc import Callable

from nivp_dist.cluster import ending
from nivp_dist.cluster.diagnosis import stuck_processes
from nivp_dist.cluster.ending import WRITE_SECONDS
from nivp_dist.cluster.group import Group
from nivp_dist.cluster.logs import Log
from nivp_dist.cluster.time_limit import run_within
from nivp_dist.errors import FAILED


class Alone:
    """The run of one process, as the watchdog sees a group. on_end: called with the cause of the end, for the log."""

    def __init__(self, on_end: Callable[[str], object]):
        self.position: tuple[int, str] = (0, "start")
        self.on_dump: Callable[[], object] = lambda: None
        self.on_end = on_end

    def report_missed_deadline(self, seconds: float) -> None:
        """Write the stacks and the cause, and end this process, as a group of several does."""
        self.on_dump()
        cause = stuck_processes({0: (self.position, socket.gethostname())}, seconds)
        ending.write_cause(cause, self.on_end, on_screen=True, what="the run")
        os._exit(FAILED)


class Watchdog:
    """Watches the main thread from another thread, until ``stop``.

    group: of this process. It knows which command is being carried out, so that the process that is behind the others
    can be named. seconds: the longest that one command may take.
    """

    def __init__(self, group: Group | Alone, seconds: float):
        self.group, self.seconds = group, seconds
        self.log: Log | None = None
        self._stopped = threading.Event()
        group.on_dump = self.write_stacks
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def begin(self, label: str) -> None:
        """The main thread begins a command: "step", "fit", "save", ... Its deadline starts now."""
        count, _ = self.group.position
        self.group.position = (count + 1, label)

    def stop(self) -> None:
        """There is no deadline any more."""
        self._stopped.set()

    def write_stacks(self) -> None:
        """Write the stacks of all threads into the log of this process, or to standard error if it has no log yet."""
        if self.log is None:
            faulthandler.dump_traceback()
            return
        log = self.log
        count, label = self.group.position
        # faulthandler holds the interpreter while it writes. If the log's file system hangs, everything would hang with
        # it; so the stacks go into a temporary file first.
        with contextlib.suppress(OSError), tempfile.TemporaryFile("w+") as stacks:
            faulthandler.dump_traceback(stacks)
            stacks.seek(0)
            text = f"--- in '{label}' (command {count}); the stacks of all threads:\n{stacks.read()}"
            run_within(WRITE_SECONDS, lambda: log.write(text))

    def write_to(self, log: Log) -> None:
        """Stacks go into this log from now on, also those of a crash in native code."""
        self.log = log
        faulthandler.enable(log)

    def watch_alone(self) -> None:
        """The other processes have ended: from now on the deadline holds for this one alone."""
        if self.log is not None:
            alone = Alone(self.log.write_last_line)
            alone.position, alone.on_dump = self.group.position, self.write_stacks
            self.group = alone

    def _watch(self) -> None:
        # The time is counted in intervals that this thread has slept, and not read from a clock: a job that its
        # scheduler has suspended for an hour is not late.
        interval, waited, seen = min(1.0, self.seconds / 10), 0.0, None
        while waited < self.seconds:
            if self._stopped.wait(interval):
                return
            count, _ = self.group.position
            waited, seen = waited + interval if count == seen else 0.0, count
        self.group.report_missed_deadline(self.seconds)
