"""Files that are whole or not there: written beside the target, flushed, then renamed; and disks that refuse."""

import contextlib
import errno
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nivp_dist.errors import DiskFailed

T = TypeVar("T")

TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ENOLCK, errno.EINTR}
PATIENCE = (1.0, 5.0, 30.0)  # seconds before a file system that stumbled is asked again
MENDS: dict[int | None, str] = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.ENOENT: "put it back where it was",
    errno.ENOTDIR: "put it back where it was",
}


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old content or the new, never a part.

    Raises OSError (full disk, no permission); the old file is then untouched.
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
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

    Raises OSError. What a failed write leaves is cut off by the next one.
    """
    if "\n" in line:
        raise ValueError("a line holds no line break")
    content = line.encode() + b"\n"
    with open(path, "a+b", buffering=0) as file:
        _cut_torn_line(file)
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _cut_torn_line(file) -> None:
    length = file.seek(0, os.SEEK_END)
    if length == 0 or os.pread(file.fileno(), 1, length - 1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def sync_file(path: str | Path) -> None:
    """Flush a file that is appended to. Raises OSError."""
    try:
        _fsync(path)
    except OSError:
        # The system may have dropped what it could not write, and would not say so a second time.
        write_whole(path, Path(path).read_bytes())


def sync_directory(directory: str | Path) -> None:
    """Flush a directory, so that a rename in it outlives a power failure."""
    try:
        _fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that have no such thing
            raise


def sync_tree(directory: str | Path) -> None:
    """Flush a directory and all that is in it."""
    for path, _, files in os.walk(directory):
        for name in files:
            _fsync(os.path.join(path, name))
        sync_directory(path)


def patiently(what: str | Path, action: Callable[[], T]) -> T:
    """The action's result, tried again where a file system stumbled. Raises OSError if that does not help.

    what: the file or folder that it is about.
    """
    for seconds in PATIENCE:
        try:
            return action()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            logging.getLogger(__name__).warning("%s: %s; trying again in %g s", what, error.strerror, seconds)
            time.sleep(seconds)
    return action()


def persist(what: str | Path, action: Callable[[], T]) -> T:
    """The action's result, tried again where a file system stumbled; a full disk or a missing permission is final.

    Raises DiskFailed, one line that names what could not be written, why, and the mend.
    """
    try:
        return patiently(what, action)
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        mend = MENDS.get(error.errno, "see to its file system")
        raise DiskFailed(f"{what} cannot be written: {reason}; {mend}, then resume") from error


def _fsync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
