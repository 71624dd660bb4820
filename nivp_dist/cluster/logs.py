"""The log of one process. Warnings of libraries go there and not to the screen."""

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TextIO

from nivp_dist.storage.files import persist
from nivp_dist.storage.run_directory import LOGS

DATE = "%Y-%m-%d %H:%M:%S"


class Log(logging.Handler):
    """The file logs/process-0003.log of a run directory, for the process with that index. New lines are appended.

    Raises DiskFailed if the file cannot be opened. A line that cannot be written later is lost without an error: a log
    must not end a run.
    """

    def __init__(self, directory: Path, index: int):
        super().__init__()
        self.index, path = index, directory / LOGS / f"process-{index:04d}.log"

        def open_() -> int:
            path.parent.mkdir(exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

        self._file = persist(path, open_)
        self._taken: list[int] = []  # descriptors that lead here, see ``take_native_output``
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def take_native_output(self) -> None:
        """From now on this log gets what native code prints to standard output, as gloo and NCCL do.

        In all processes but 0 it also gets what native code prints to standard error: when process 0 has ended, the
        client of JAX's coordination service prints pages there, which would hide the cause. Python keeps the streams of
        before, in a new ``sys.stdout`` and ``sys.stderr``. So only a program may call this in which nothing holds a
        reference to the old ones.
        """
        sys.stdout = self._take(1, sys.stdout)
        if self.index:
            sys.stderr = self._take(2, sys.stderr)

    def _take(self, descriptor: int, stream: TextIO) -> TextIO:
        """Redirect a descriptor to the log; returns a stream to where it led before."""
        stream.flush()
        before = os.dup(descriptor)
        os.dup2(self._file, descriptor)
        self._taken.append(descriptor)
        buffering = 1 if descriptor == 2 or os.isatty(before) else -1  # by lines
        return os.fdopen(before, "w", buffering, encoding=stream.encoding, errors=stream.errors)

    def write_line(self, message: str) -> None:
        """Append the message, of one line or several, with the time and the index of the process."""
        self.write(self._line(message))

    def write_last_line(self, message: str) -> None:
        """Append the cause for which the group ends, and discard everything after it: errors of threads that are being
        torn down would hide the cause.

        The file's descriptor is redirected first and the line written to a copy, so that nothing can come between.
        """
        mine = os.dup(self._file)
        discard_output(self._file)
        for descriptor in self._taken:
            discard_output(descriptor)
        with contextlib.suppress(OSError):
            os.write(mine, self._line(message).encode())
        os.close(mine)

    def _line(self, message: str) -> str:
        return f"{time.strftime(DATE)} process {self.index}: {message}\n"

    def write(self, text: str) -> None:
        """Append the text as it is."""
        with contextlib.suppress(OSError):
            os.write(self._file, text.encode())

    def fileno(self) -> int:
        """The descriptor, for faulthandler."""
        return self._file

    def emit(self, record: logging.LogRecord) -> None:
        """Append a message of a library (the method that ``logging`` calls)."""
        try:
            self.write_line(self.format(record).rstrip())
        except Exception:  # noqa: BLE001  as in every handler of logging: a message must not end the program
            self.handleError(record)

    @contextlib.contextmanager
    def warnings(self):
        """A context in which this log gets what libraries log, warn of, or raise where nobody can catch it (in
        threads and destructors)."""
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
        self.write_line("".join(traceback.format_exception(*exception)).rstrip())


def screen_of_errors() -> int:
    """The descriptor of what Python calls standard error: 2, unless a log has taken that (``take_native_output``)."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by an object of another kind, or closed
        return 2


def discard_output(descriptor: int) -> None:
    """Discard everything that is written to the file descriptor from now on, also by native code."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


@contextlib.contextmanager
def screen(first: bool):
    """A context in which standard error shows the warnings of nivp_dist, one line each, and none of libraries.

    first: whether this is process 0; the others show nothing.
    """
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
