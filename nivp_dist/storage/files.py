"""Files that are whole or not there: written beside the target, flushed to the disk, then renamed."""

import os
import tempfile
from pathlib import Path


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old content or the new, never a part.

    Raises OSError (full disk, no permission); the old file is then untouched.
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def append_line(path: str | Path, line: str) -> None:
    """Append one line with a single write, so that a crash can tear at most the last line."""
    if "\n" in line:
        raise ValueError("a line holds no line break")
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def sync_directory(directory: str | Path) -> None:
    """Flush a directory, so that a rename in it outlives a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
