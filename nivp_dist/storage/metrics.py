"""JSON lines: metrics.jsonl and events.jsonl. Appended to while running, cut back to the checkpoint on resume."""

import json
import math
from pathlib import Path

from nivp_dist.storage.files import append_line, write_whole

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"


class Lines:
    """An append-only file of one JSON object a line, each on the disk (of the system) when ``append`` returns."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if self.path.is_file() and not self.path.read_bytes().endswith(b"\n"):
            write_lines(self.path, read_lines(self.path))  # a torn last line would swallow the next one

    def append(self, record: dict) -> None:
        """Add one object. NaN and infinities, which JSON has not, become null."""
        append_line(self.path, _dump(record))

    def read(self) -> list[dict]:
        """All objects so far."""
        return read_lines(self.path)

    def truncate_to(self, count: int, key: str = "step") -> int:
        """Keep the lines with record[key] <= count, as one whole-file write. Returns how many were dropped."""
        records = read_lines(self.path)
        kept = [record for record in records if record.get(key, 0) <= count]
        if len(kept) < len(records):
            write_lines(self.path, kept)
        return len(records) - len(kept)


def read_lines(path: str | Path) -> list[dict]:
    """The objects of a JSON-lines file; [] if there is none. A torn last line is left out.

    Raises ValueError if any other line is not JSON: that is damage, not a crash.
    """
    path = Path(path)
    if not path.is_file():
        return []
    *whole, rest = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(whole, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
    try:
        return records + ([json.loads(rest)] if rest else [])
    except ValueError:
        return records


def write_lines(path: str | Path, records: list[dict]) -> None:
    """Replace a JSON-lines file as a whole."""
    write_whole(path, "".join(_dump(record) + "\n" for record in records))


def last_line(path: str | Path) -> dict | None:
    """The last whole object of a JSON-lines file, or None."""
    records = read_lines(path)
    return records[-1] if records else None


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
