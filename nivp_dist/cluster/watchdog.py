"""A deadline for every command: who misses it dumps the stacks of all its threads, and the group ends."""

import faulthandler
import threading
import time
from typing import IO

from nivp_dist.cluster.group import Group


class Watchdog:
    """Watches the main thread from another one.

    group: of this process; told of every command, so that the process that is behind can be named.
    seconds: within which a command must be followed by the next.
    """

    def __init__(self, group: Group, seconds: float):
        self.group, self.seconds, self.log = group, seconds, None
        self._since = time.monotonic()
        group.on_dump = self.dump
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def command(self, label: str) -> None:
        """The main thread begins something new: "step", "fit", "save", ..."""
        self.group.position = (self.group.position[0] + 1, label)
        self._since = time.monotonic()

    def dump(self) -> None:
        """The stacks of all threads, into the log of this process (standard error before there is one)."""
        count, label = self.group.position
        if self.log is None:
            faulthandler.dump_traceback()
            return
        self.log.write(f"--- in '{label}' (command {count}); the stacks of all threads:\n")
        self.log.flush()
        faulthandler.dump_traceback(self.log)
        self.log.flush()

    def write_to(self, log: IO[str]) -> None:
        """The file for stacks; also of a crash in native code."""
        self.log = log
        faulthandler.enable(log)

    def _watch(self) -> None:
        while time.monotonic() - self._since < self.seconds:
            time.sleep(min(1.0, self.seconds / 10))
        self.group.late(self.seconds)
