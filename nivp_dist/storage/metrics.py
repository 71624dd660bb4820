"""JSON-lines files, metrics.jsonl and events.jsonl: appended to by a run, cut back to the checkpoint by a resume."""

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nivp_dist.storage.files import append_line, read_blocks, sync_file, write_whole

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"
RECORDED = "callback_"  # the beginning of the names of numbers that callbacks record
DAMAGED = ".damaged"  # ending of the copy of a file with lines that cannot be read


class Mark(NamedTuple):
    """The lines of a file at one moment: their number, and the sha256 of their bytes in hexadecimal digits."""

    count: int
    digest: str


class Lines:
    """A file of one JSON object a line. When ``append`` returns, the operating system has the line."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._count, self._hash = 0, None  # of the lines in the file; None before they have been read

    def append(self, record: dict) -> None:
        """Add one object. NaN and infinities become null, because JSON has no such numbers. Raises OSError."""
        line, digest = _dump(record), self._digest()
        append_line(self.path, line)
        digest.update(line.encode() + b"\n")
        self._count += 1

    def sync(self) -> None:
        """Flush the lines to the disk: no checkpoint may outlive the lines before it. Raises OSError."""
        if self.path.exists():
            sync_file(self.path)

    def mark(self) -> Mark:
        """The lines that this object has found in the file and appended to it, whatever lies there by now."""
        digest = self._digest().hexdigest()
        return Mark(self._count, digest)

    def cut_back(self, mark: Mark, last: int, key: str = "step") -> bool:
        """Remove the lines that were written after a checkpoint. Returns whether all lines before it are intact.

        mark: the lines at the checkpoint. Lines that follow them stay as long as record[key] <= last; whatever comes
        then may be damaged, because a power failure leaves anything there.

        If the lines before the checkpoint are not those of the mark, every line with record[key] <= last that can be
        read stays. A file with lines that cannot be read is copied first, to a file with the ending ``.damaged``.
        Raises OSError.
        """
        end = self._end_of(mark)
        if end is None:
            self._keep_readable(last, key)
        elif self.path.exists():
            _cut(self.path, end, lambda line: _is_at_most(last, _parse(line), key))
        self._count, self._hash = 0, None
        return end is not None

    def _digest(self):
        """The running digest of the lines. A torn last line is left out, because ``append_line`` removes it."""
        if self._hash is None:
            self._count, self._hash = 0, hashlib.sha256()
            with _opened(self.path) as file:
                for line in file:
                    if line.endswith(b"\n"):
                        self._hash.update(line)
                        self._count += 1
        return self._hash

    def _end_of(self, mark: Mark) -> int | None:
        """Where the lines of the mark end in the file, in bytes; None if the file does not begin with them."""
        digest, end = hashlib.sha256(), 0
        with _opened(self.path) as file:
            for line in itertools.islice(file, mark.count):
                digest.update(line)
                end += len(line)
        return end if digest.hexdigest() == mark.digest else None

    def _keep_readable(self, last: int, key: str) -> None:
        with _opened(self.path) as file:
            damaged = any(line.strip(b"\n") and _parse(line) is None for line in file)
        if damaged:
            write_whole(self.path.with_name(self.path.name + DAMAGED), read_blocks(self.path))
        with _opened(self.path) as file:
            write_whole(self.path, (_ended(line) for line in file if _is_at_most(last, _parse(line), key)))


def iterate(path: str | Path) -> Iterator[dict]:
    """The objects of a JSON-lines file, one at a time in memory; none if there is no file.

    A torn last line, as a crash leaves it, is left out. Raises ValueError, which names the line, if any other is not
    JSON.
    """
    damaged = None
    with _opened(Path(path)) as file:
        for number, line in enumerate(file, start=1):
            if damaged is not None:
                raise ValueError(f"{path}, line {damaged}: not JSON")
            record = _parse(line)
            if record is not None:
                yield record
            elif line.endswith(b"\n"):
                damaged = number
            else:
                return  # the run may be writing the rest of this line now


def read_lines(path: str | Path) -> list[dict]:
    """All objects of ``iterate``: for files that stay short."""
    return list(iterate(path))


def search(path: str | Path, words: Collection[str]) -> Iterator[dict]:
    """The objects of a JSON-lines file with one of the words somewhere in their line, without lines that are not JSON.

    Lines without the words are not parsed. Raises OSError.
    """
    sought = [word.encode() for word in words]
    with _opened(Path(path)) as file:
        for line in file:
            if any(word in line for word in sought) and (record := _parse(line)) is not None:
                yield record


def read_tail(path: str | Path, size: int = 1 << 18) -> list[dict]:
    """The objects in the last `size` bytes of a JSON-lines file, without lines that are not JSON. Raises OSError."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    return [record for record in map(_parse, lines) if record is not None]


def _cut(path: Path, end: int, belongs: Callable[[bytes], bool]) -> None:
    """Cut a file behind its first `end` bytes and the lines after them that belong to it."""
    with open(path, "r+b") as file:
        file.seek(end)
        for line in file:
            if not (line.endswith(b"\n") and belongs(line)):
                break
            end += len(line)
        file.truncate(end)
    sync_file(path)


def _is_at_most(last: int, record: dict | None, key: str) -> bool:
    value = None if record is None else record.get(key, 0)
    return isinstance(value, int) and value <= last


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, to be read; an empty one if there is none."""
    with open(path, "rb") if path.exists() else io.BytesIO() as file:
        yield file


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"


def _parse(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _dump(record: dict) -> str:
    return json.dumps(plain(record), allow_nan=False)


def plain(value: Any) -> Any:
    """A value as JSON takes it: numbers and lists in place of arrays, None for NaN and infinities."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
