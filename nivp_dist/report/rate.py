"""The rate at which a run advances, and the time that it still needs. Imports no jax."""

from collections import deque
from collections.abc import Sequence

# A rate is taken over the last WINDOW_SECONDS or the last WINDOW_SAMPLES steps, whichever is longer: short steps are
# averaged, and a run whose steps take minutes has a rate too.
WINDOW_SECONDS, WINDOW_SAMPLES = 60.0, 5
SETTLED_RATIO = 2.0  # the largest ratio of the rates in the two halves of the window for which the time left is shown


def settled_rate(samples: Sequence[tuple[float, float]]) -> float | None:
    """The mean advance per second over samples (seconds, position) in order of time, or None if it is not settled.

    It is not settled with fewer than WINDOW_SAMPLES samples, or while the rates of the two halves differ by more than
    SETTLED_RATIO. The first steps of a run are tiny, and a time extrapolated from them would be years.
    """
    if len(samples) < WINDOW_SAMPLES:
        return None
    middle = len(samples) // 2
    early, late, whole = (_mean_rate(samples[i], samples[j]) for i, j in ((0, middle), (middle, -1), (0, -1)))
    return whole if min(early, late) > 0 and max(early, late) <= SETTLED_RATIO * min(early, late) else None


def _mean_rate(first: tuple[float, float], last: tuple[float, float]) -> float:
    seconds, advance = last[0] - first[0], last[1] - first[1]
    return advance / seconds if seconds > 0 else 0.0


class RemainingTime:
    """Estimates the time left from the advance over the recent wall time."""

    def __init__(self):
        self._samples: deque[tuple[float, float]] = deque()

    def update(self, now: float, position: float, end: float) -> float | None:
        """Add a sample; the seconds until `end` at the recent rate, or None while that rate is not settled.

        now: seconds, monotonic. position: t, or the number of iterations; a smaller one than before starts anew.
        """
        samples = self._samples
        if samples and position < samples[-1][1]:
            samples.clear()
        samples.append((now, position))
        while len(samples) > WINDOW_SAMPLES and now - samples[1][0] >= WINDOW_SECONDS:
            samples.popleft()
        rate = settled_rate(samples)
        return None if rate is None else max(end - position, 0.0) / rate
