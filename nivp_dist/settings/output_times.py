"""The times t of a run that its settings name: outputs, and the multiples of a period."""

import math

from nivp_dist.settings.model import Config

# Times t that differ by less than this share of a period count as equal: rounding makes them differ.
ROUNDING = 1e-9


def next_multiple(period: float, t: float) -> float:
    """The first multiple of a period after t, where one that equals t but for rounding does not count."""
    return period * (math.floor(t / period + ROUNDING) + 1)


def output_times(config: Config) -> list[float]:
    """The output times in order: integrator.t_start and t_end, output.times, and the multiples of output.every.

    A multiple that equals one of the others but for rounding is left out, so that no two outputs are at one time.
    """
    start, end, every = config.integrator.t_start, config.integrator.t_end, config.output.every
    named = {start, *config.output.times, end}
    if every is None:
        return sorted(named)
    taken = {round(t / every) for t in named if abs(t - every * round(t / every)) <= ROUNDING * every}
    first, last = (math.floor(t / every + ROUNDING) for t in (start, end))
    return sorted(named | {every * k for k in range(first + 1, last + 1) if k not in taken})


def is_at(config: Config, t: float, output: float) -> bool:
    """Whether a time t of the run is that of an output, which rounding may have moved past it (0.3 and 3 * 0.1)."""
    return abs(t - output) <= ROUNDING * (config.output.every or 0.0)
