"""The log of one process: what its libraries warn of goes there, and not on the screen."""

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from nivp_dist.storage.files import persist
from nivp_dist.storage.run_directory import LOGS

DATE = "%Y-%m-%d %H:%M:%S"


class Log(logging.Handler):
    """logs/process-0003.log of a run directory, appended to. A line that cannot be written ends no run.

    Raises DiskFailed if it cannot be opened.
    """

    def __init__(self, directory: Path, index: int):
        super().__init__()
        self.index, path = index, directory / LOGS / f"process-{index:04d}.log"

        def open_() -> int:
            path.parent.mkdir(exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

        self._file = persist(path, open_)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def say(self, message: str) -> None:
        """A line, or several."""
        self.write(f"{time.strftime(DATE)} process {self.index}: {message}\n")

    def say_last(self, message: str) -> None:
        """The verdict on this process's group. What it may still fall over while it ends is not written."""
        self.say(message)
        silence(self._file)

    def write(self, text: str) -> None:
        """As it is."""
        with contextlib.suppress(OSError):
            os.write(self._file, text.encode())

    def fileno(self) -> int:
        """For stacks."""
        return self._file

    def emit(self, record: logging.LogRecord) -> None:
        """A message of a library."""
        try:
            self.say(self.format(record).rstrip())
        except Exception:  # noqa: BLE001  as every handler of logging: a message must end nothing
            self.handleError(record)

    @contextlib.contextmanager
    def warnings(self):
        """What libraries log, warn of, or raise where nobody can catch it, from here on goes into this log."""
        hooks = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = lambda what: self._trace(what.exc_type, what.exc_value, what.exc_traceback)
        threading.excepthook = lambda what: self._trace(what.exc_type, what.exc_value, what.exc_traceback)
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(self)
            sys.unraisablehook, threading.excepthook = hooks

    def _trace(self, *exception) -> None:
        self.say("".join(traceback.format_exception(*exception)).rstrip())


def silence(descriptor: int) -> None:
    """What is written to it from here on, by whomever, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextlib.contextmanager
def screen(first: bool):
    """On standard error: our own warnings in one line, those of the first process only, and none of libraries."""
    root, ours = logging.getLogger(), logging.getLogger("nivp_dist")
    others = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    handler = logging.StreamHandler(sys.stderr) if first else logging.NullHandler()
    handler.setFormatter(logging.Formatter("nivp: warning: %(message)s"))
    for other in others:
        root.removeHandler(other)
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        for other in others:
            root.addHandler(other)
