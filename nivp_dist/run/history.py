"""What a run has written beside its checkpoints, as a checkpoint records it. A resume compares it with the files,
so that nothing is lost silently."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from nivp_dist.errors import RunFailed
from nivp_dist.storage.metrics import Mark

MOST_TIMES = 12  # that a message lists


class History(NamedTuple):
    """The lines and snapshots of a run up to a checkpoint.

    metrics, events: marks of the two files. snapshots: output time -> digest of its file. settings: a tree of all
    settings (``settings.files.all_settings``). environment: what the last bits depend on (``run.environment``).
    callbacks: what the callbacks remember (``run.callbacks``).
    """

    metrics: Mark
    events: Mark
    snapshots: dict[float, str]
    settings: dict
    environment: dict[str, str]
    callbacks: dict[str, list]

    def to_text(self) -> str:
        """The history as JSON, which keeps every bit of the times."""
        return json.dumps(self._asdict() | {"snapshots": list(self.snapshots.items())})

    @classmethod
    def from_text(cls, text: str) -> "History":
        """The inverse of ``to_text``. Raises RunFailed if the text does not come from this version of nivp_dist."""
        try:
            fields = json.loads(text)
            marks = {name: Mark(*fields[name]) for name in ("metrics", "events")}
            return cls(**fields | marks | {"snapshots": dict(fields["snapshots"])})
        except (ValueError, TypeError, KeyError):
            raise RunFailed("the checkpoints were written by another version of nivp_dist: resume with that") from None


def missing_steps(records: Iterable[dict], last: int) -> str:
    """The steps from 1 to `last` that have no line among the records, as in 'steps 3 to 7, 9'; '' if all have one."""
    written = bytearray(last + 1)  # one byte a step, because a run may have very many
    for record in records:
        if isinstance(step := record.get("step"), int) and 1 <= step <= last:
            written[step] = 1
    missing = [step for step in range(1, last + 1) if not written[step]]
    ranges: list[list[int]] = []
    for step in missing:
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    words = [str(first) if first == final else f"{first} to {final}" for first, final in ranges]
    return f"step{'s' if len(missing) > 1 else ''} {', '.join(words)}" if missing else ""


def times(values: Iterable[float]) -> str:
    """Output times in a message: 't = 0.1, 0.3'; of very many the first ones and the number of the others."""
    listed = list(values)
    more = f" and {len(listed) - MOST_TIMES} more" if len(listed) > MOST_TIMES else ""
    return "t = " + ", ".join(f"{t:g}" for t in listed[:MOST_TIMES]) + more
