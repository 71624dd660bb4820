"""How fast a run advances, and how long it will take: said only when it means something. Imports no jax."""

from collections import deque
from collections.abc import Sequence

WINDOW_SECONDS, WINDOW_SAMPLES = 60.0, 5  # over which a rate is taken: whichever reaches further back
SETTLED = 2.0  # factor by which the rates of the window's two halves may differ


def settled_rate(samples: Sequence[tuple[float, float]]) -> float | None:
    """Advance a second over (seconds, position), in order of time.

    None before it means anything: too few samples, or a rate that still changes by more than a factor of two within
    them. The first steps of a run are tiny, and would promise years.
    """
    if len(samples) < WINDOW_SAMPLES:
        return None
    middle = len(samples) // 2
    early, late, whole = (_rate(samples[i], samples[j]) for i, j in ((0, middle), (middle, -1), (0, -1)))
    return whole if min(early, late) > 0 and max(early, late) <= SETTLED * min(early, late) else None


def _rate(first: tuple[float, float], last: tuple[float, float]) -> float:
    seconds, advance = last[0] - first[0], last[1] - first[1]
    return advance / seconds if seconds > 0 else 0.0


class Rate:
    """The rate over recent wall time."""

    def __init__(self):
        self._samples: deque[tuple[float, float]] = deque()

    def left(self, now: float, position: float, end: float) -> float | None:
        """Seconds until ``end`` at the recent rate; None before there is one that means something."""
        samples = self._samples
        if samples and position < samples[-1][1]:
            samples.clear()
        samples.append((now, position))
        while len(samples) > WINDOW_SAMPLES and now - samples[1][0] >= WINDOW_SECONDS:
            samples.popleft()
        rate = settled_rate(samples)
        return None if rate is None else max(end - position, 0.0) / rate
