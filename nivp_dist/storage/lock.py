"""Who may write into a run directory: one process (group) at a time, by a file lock and a heartbeat.

The kernel drops the lock when the process ends, however it ends; only the server of a network file system may keep the
lock of a host that was lost. Where locks do not reach, the heartbeat shows that somebody holds the directory.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nivp_dist.errors import DiskFailed, InputError
from nivp_dist.settings.files import RECORD
from nivp_dist.storage import heartbeat
from nivp_dist.storage.files import ADVICE, CHECK_FILE_SYSTEM
from nivp_dist.storage.heartbeat import Heart

LOCK = ".lock"  # the locked file; it names its holder
LOOKING_TAKES = 1.0  # seconds: `nivp status` holds the lock for an instant, when it looks whether a run holds it
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # errors of file systems that have no locks
WAIT = "wait for its end (`nivp resume --patience SECONDS` does), or stop it"
_held: dict[Path, int] = {}  # the directories that this process holds, and how deep the holds are nested


@contextlib.contextmanager
def hold(directory: str | Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the run directory against every other process; within one process holds nest.

    Raises InputError if another process holds it, and still does after `patience` seconds, or if it cannot be written.
    """
    directory = Path(directory).resolve()
    if directory in _held:
        _held[directory] += 1
        try:
            yield
        finally:
            _held[directory] -= 1
        return
    with _open(directory) as file:
        _take(file, directory, patience)
        _held[directory] = 1
        try:
            with Heart(directory, lambda: _loss(directory) is None):
                yield
        finally:
            del _held[directory]


def in_use(directory: str | Path) -> bool:
    """Whether a process holds the directory, as far as locks and heartbeats show. Writes nothing."""
    directory = Path(directory).resolve()
    if directory in _held:
        return True
    locked = None
    with contextlib.suppress(OSError), os.fdopen(os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        free = _try_lock(file, fcntl.LOCK_SH)
        locked = None if free is None else not free
    beat = heartbeat.read(directory)
    if locked or beat is None:
        return bool(locked)
    return beat.recent and (beat.elsewhere or locked is None)


def require_ours(directory: str | Path) -> None:
    """Raises DiskFailed if the directory was moved or removed, or taken over by another process.

    A directory that has gone must not be made again: it would hold half a run.
    """
    if (loss := _loss(Path(directory))) is not None:
        raise DiskFailed(loss)


def locks_work(file) -> bool:
    """Whether the file system of an open file has locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def _loss(directory: Path) -> str | None:
    """How the directory was lost, in one line; None if it is still there, and ours if we hold it."""
    if not (directory / RECORD).is_file():
        return f"{directory} has vanished: nothing can be saved; resume where it has gone"
    if directory in _held:
        with contextlib.suppress(FileNotFoundError):
            holder = (directory / LOCK).read_text()
            if holder not in ("", _this_process()):
                return f"{directory} has been taken over by {holder}: this run ends here, and that one goes on"
    return None


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _open(directory: Path) -> BinaryIO:
    """The lock file. A link is not followed: taking the lock empties the file, and it could be anybody's."""
    with _one_line(directory):
        try:
            handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise InputError(f"{directory / LOCK}: a symbolic link, not a lock file: remove it") from None
            raise
        return os.fdopen(handle, "a+b", buffering=0)


def _take(file: BinaryIO, directory: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while (holder := _other_holder(file, directory)) is not None:
        if time.monotonic() >= deadline:
            raise InputError(f"{directory}: in use by {holder}")
    with _one_line(directory):
        file.truncate(0)
        file.write(_this_process().encode())


def _other_holder(file: BinaryIO, directory: Path) -> str | None:
    """Who else holds the directory, and what to do about it.

    None if this process has its lock now, or there are no locks and no heartbeat.
    """
    deadline = time.monotonic() + LOOKING_TAKES
    while (free := _try_lock(file)) is False and time.monotonic() < deadline:
        time.sleep(0.1)
    if free is False:
        return _name_of_holder(file, directory)
    if (beat := heartbeat.still_beating(directory, locks=free is not None)) is not None:
        return f"{beat}: {WAIT}"
    if free is None:  # some parallel file systems are mounted without locks, and runs must be possible there
        logging.getLogger(__name__).warning("%s: no file locks here: start one run at a time", directory)
    return None


def _name_of_holder(file: BinaryIO, directory: Path) -> str:
    """The process that the locked file names, and what to do; of a host that is silent, how to free its lock."""
    file.seek(0)
    name, beat = file.read().decode() or "another process", heartbeat.read(directory)
    if beat is None or not beat.elsewhere or beat.age <= heartbeat.SKEW:
        return f"{name}: {WAIT}"
    return f"{name}, last heard from {beat.age / 60:.0f} min ago; if it is gone, remove {directory / LOCK}"


@contextlib.contextmanager
def _one_line(directory: Path):
    """Turn an OSError into an InputError of one line."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno, CHECK_FILE_SYSTEM)
        raise InputError(f"{directory}: cannot be written: {error.strerror}; {advice}") from None


def _try_lock(file, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Whether the lock was free, and is ours now; None where there are no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return None
    return True
