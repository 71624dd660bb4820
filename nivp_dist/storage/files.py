"""Files that are written whole or not at all, and errors of file systems: tried again, or turned into one line."""

import contextlib
import errno
import logging
import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from nivp_dist.errors import DiskFailed

Result = TypeVar("Result")

# Errors of network file systems that may pass, and the seconds to wait before each further try.
TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ENOLCK, errno.EINTR}
RETRY_AFTER = (1.0, 5.0, 30.0)
# What to do about the other errors.
ADVICE: dict[int | None, str] = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.ENOENT: "put it back where it was",
    errno.ENOTDIR: "put it back where it was",
}
BLOCK = 1 << 20  # bytes of a file that are in memory at a time
CHECK_FILE_SYSTEM = "check its file system"  # the advice for any other error


class PinnedFolder:
    """A folder that stays open, and so is the same wherever it is moved.

    path: a path of the folder that a move does not change. A library that makes missing parents of what it writes
    would otherwise make the folder again where it was. Where there is no /proc, it is the path that was given.
    """

    def __init__(self, folder: Path):
        self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._handle)
        path = Path(f"/proc/self/fd/{self._handle}")
        self.path = path if path.is_dir() else folder

    def is_at(self, folder: Path) -> bool:
        """Whether the folder is still at this path. Raises OSError if nothing is there."""
        return os.path.samestat(os.stat(folder), os.fstat(self._handle))


def write_whole(path: str | Path, content: bytes | str | Iterable[bytes], mode: int = 0o666) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old content or the new, never a part.

    content: as a whole, or in parts, which may come from the old file. mode: permissions of the file, before the umask.
    Raises OSError (full disk, no permission); the old file is then untouched.
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    parts = [content] if isinstance(content, bytes) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def append_line(path: str | Path, line: str) -> None:
    """Append one line with a single write, so that a crash can tear at most the last line.

    Raises OSError; the next call cuts off the part of a line that a failed write has left.
    """
    if "\n" in line:
        raise ValueError("a line must not contain a line break")
    content = line.encode() + b"\n"
    with open(path, "a+b", buffering=0) as file:
        _cut_torn_line(file)
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _cut_torn_line(file: BinaryIO) -> None:
    length = end = file.seek(0, os.SEEK_END)
    if length == 0 or os.pread(file.fileno(), 1, length - 1) == b"\n":
        return
    last = -1  # the place of the last line break, searched from the end
    while end and last < 0:
        start = max(end - BLOCK, 0)
        last, end = os.pread(file.fileno(), end - start, start).rfind(b"\n"), start
    file.truncate(end + last + 1)


def read_blocks(path: str | Path) -> Iterator[bytes]:
    """The content of a file in blocks. Raises OSError."""
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            yield block


def sync_file(path: str | Path) -> None:
    """Flush a file that is appended to, so that it outlives a power failure. Raises OSError."""
    try:
        _fsync(path)
    except OSError:
        # The system may have dropped what it could not write, and a second fsync would succeed all the same.
        write_whole(path, read_blocks(path))


def sync_directory(directory: str | Path) -> None:
    """Flush a directory, so that a rename in it outlives a power failure."""
    try:
        _fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without it
            raise


def sync_tree(directory: str | Path) -> None:
    """Flush a directory and all that is in it."""
    for path, _, files in os.walk(directory):
        for name in files:
            _fsync(os.path.join(path, name))
        sync_directory(path)


def retry(what: str | Path, action: Callable[[], Result]) -> Result:
    """The action's result, with further tries after errors that may pass. Raises OSError if they do not help.

    what: the file or folder that the action reads or writes, for the warning.
    """
    for seconds in RETRY_AFTER:
        try:
            return action()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            logging.getLogger(__name__).warning("%s: %s; trying again in %g s", what, error.strerror, seconds)
            time.sleep(seconds)
    return action()


def persist(what: str | Path, action: Callable[[], Result]) -> Result:
    """The result of an action that writes, with further tries as in ``retry``.

    Raises DiskFailed, one line that names what could not be written, why, and what to do.
    """
    try:
        return retry(what, action)
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        advice = ADVICE.get(error.errno, CHECK_FILE_SYSTEM)
        raise DiskFailed(f"{what} cannot be written: {reason}; {advice}, then resume") from error


def read_back(what: str | Path, action: Callable[[], Result]) -> Result:
    """The result of an action that reads what a run has written, with further tries as in ``retry``.

    Raises DiskFailed, one line that names what could not be read, and why.
    """
    try:
        return retry(what, action)
    except OSError as error:
        raise DiskFailed(f"{what} cannot be read: {error.strerror}; {CHECK_FILE_SYSTEM}, then resume") from error


def _fsync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
