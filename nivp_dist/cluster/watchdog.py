"""A deadline for every command: who misses it dumps the stacks of all its threads, and the group ends."""

import contextlib
import faulthandler
import tempfile
import threading
import time
from typing import IO

from nivp_dist.cluster.bounded import within
from nivp_dist.cluster.group import WRITING, Group


class Watchdog:
    """Watches the main thread from another one.

    group: of this process; told of every command, so that the process that is behind can be named.
    seconds: within which a command must be followed by the next.
    """

    def __init__(self, group: Group, seconds: float):
        self.group, self.seconds, self.log = group, seconds, None
        group.on_dump = self.dump
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def command(self, label: str) -> None:
        """The main thread begins something new: "step", "fit", "save", ..."""
        self.group.position = (self.group.position[0] + 1, label)

    def dump(self) -> None:
        """The stacks of all threads, into the log of this process (standard error before there is one)."""
        if self.log is None:
            faulthandler.dump_traceback()
            return
        count, label = self.group.position
        # Not straight into the log: faulthandler holds the interpreter while it writes, and if that hangs, all does.
        with contextlib.suppress(OSError), tempfile.TemporaryFile("w+") as stacks:
            faulthandler.dump_traceback(stacks)
            stacks.seek(0)
            text = f"--- in '{label}' (command {count}); the stacks of all threads:\n{stacks.read()}"
            within(WRITING, lambda: self.log.write(text))

    def write_to(self, log: IO[str]) -> None:
        """The file for stacks; also of a crash in native code."""
        self.log = log
        faulthandler.enable(log)

    def _watch(self) -> None:
        tick, waited, seen = min(1.0, self.seconds / 10), 0.0, None
        while waited < self.seconds:
            time.sleep(tick)
            # Not by a clock: a job that its scheduler has suspended for a while is not late.
            waited, seen = waited + tick if self.group.position[0] == seen else 0.0, self.group.position[0]
        self.group.late(self.seconds)
