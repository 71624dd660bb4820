"""JSON-lines files, metrics.jsonl and events.jsonl: appended to by a run, cut back to the checkpoint by a resume."""

import json
import math
import os
from pathlib import Path
from typing import Any

from nivp_dist.storage.files import append_line, sync_file, write_whole

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"


class Lines:
    """A file of one JSON object a line. When ``append`` returns, the operating system has the line."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, record: dict) -> None:
        """Add one object. NaN and infinities become null, because JSON has no such numbers. Raises OSError."""
        append_line(self.path, _dump(record))

    def sync(self) -> None:
        """Flush the lines to the disk: no checkpoint may outlive the lines before it. Raises OSError."""
        if self.path.exists():
            sync_file(self.path)

    def read(self) -> list[dict]:
        """All objects so far."""
        return read_lines(self.path)

    def truncate_to(self, count: int, key: str = "step") -> int:
        """Keep the lines up to the last one with record[key] <= count. Returns how many were dropped.

        What follows the last of them may be damaged, because a power failure leaves anything there. Raises ValueError
        if a line before it is damaged, and OSError.
        """
        content = _content(self.path)
        lines = content.split(b"\n")
        records = [_parse(line) for line in lines]
        wanted = (n for n, record in enumerate(records) if record and record.get(key, 0) <= count)
        kept = 1 + max(wanted, default=-1)
        if None in records[:kept]:
            raise ValueError(f"{self.path}, line {records.index(None) + 1}: not JSON")
        whole = b"".join(line + b"\n" for line in lines[:kept])
        if whole != content:
            write_whole(self.path, whole)
        return sum(1 for line in lines[kept:] if line)


def read_lines(path: str | Path) -> list[dict]:
    """The objects of a JSON-lines file; [] if there is no file. A torn last line, as a crash leaves it, is left out.

    Raises ValueError, which names the line, if any other is not JSON.
    """
    records = [_parse(line) for line in _content(path).removesuffix(b"\n").split(b"\n")]
    if records[-1] is None:
        records.pop()
    if None in records:
        raise ValueError(f"{path}, line {records.index(None) + 1}: not JSON")
    return [record for record in records if record is not None]


def read_tail(path: str | Path, size: int = 1 << 18) -> list[dict]:
    """The objects in the last `size` bytes of a JSON-lines file, without lines that are not JSON. Raises OSError."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    return [record for record in map(_parse, lines) if record is not None]


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""


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
