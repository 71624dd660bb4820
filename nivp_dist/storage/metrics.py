"""JSON lines: metrics.jsonl and events.jsonl. Appended to while running, cut back to the checkpoint on resume."""

import json
import math
import os
from pathlib import Path

from nivp_dist.storage.files import append_line, sync_file, write_whole

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"


class Lines:
    """An append-only file of one JSON object a line, each with the system when ``append`` returns."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, record: dict) -> None:
        """Add one object. NaN and infinities, which JSON has not, become null."""
        append_line(self.path, _dump(record))

    def sync(self) -> None:
        """On the disk, not only with the system: no checkpoint may outlive the lines before it."""
        if self.path.exists():
            sync_file(self.path)

    def read(self) -> list[dict]:
        """All objects so far."""
        return read_lines(self.path)

    def truncate_to(self, count: int, key: str = "step") -> int:
        """Keep the lines with record[key] <= count, as one whole-file write. Returns how many were dropped.

        A power failure may have left anything after the last of them. Raises ValueError if damage lies before.
        """
        content = _content(self.path)
        lines = content.split(b"\n")
        records = [_parse(line) for line in lines]
        kept = 1 + max((n for n, record in enumerate(records) if record and record.get(key, 0) <= count), default=-1)
        if None in records[:kept]:
            raise ValueError(f"{self.path}, line {records.index(None) + 1}: not JSON")
        whole = b"".join(line + b"\n" for line in lines[:kept])
        if whole != content:
            write_whole(self.path, whole)
        return sum(1 for line in lines[kept:] if line)


def read_lines(path: str | Path) -> list[dict]:
    """The objects of a JSON-lines file; [] if there is none. A torn last line is left out.

    Raises ValueError if any other line is not JSON: that is damage, not a crash.
    """
    records = [_parse(line) for line in _content(path).removesuffix(b"\n").split(b"\n")]
    if records[-1] is None:
        records.pop()
    if None in records:
        raise ValueError(f"{path}, line {records.index(None) + 1}: not JSON")
    return [record for record in records if record is not None]


def read_tail(path: str | Path, size: int = 1 << 18) -> list[dict]:
    """The objects in the last bytes of a JSON-lines file; what cannot be read is left out. Raises OSError."""
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


def plain(value):
    """JSON-ready: Python numbers for numpy's and jax's, None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
