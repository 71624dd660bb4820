"""The length of a step: what the errors of the last steps allow, up to the next output or refit."""

import dataclasses
from dataclasses import dataclass

import numpy as np

NOT_FINITE = 0.2  # the factor on a step whose error is not known, as a stage or the error itself is not finite


def fit_to_end(t: float, h: float, end: float) -> tuple[float, bool]:
    """The length of a step of h at most that does not pass the time `end`, and whether it ends there.

    A step that would leave less than another h is halved, so that no tiny step remains before the end.
    """
    left = end - t
    if left <= h * (1 + 1e-9):  # an end that is missed by the rounding of t alone is met
        return left, True
    return (left / 2 if left < 2 * h else h), False


@dataclass(frozen=True)
class StepControl:
    """Proportional-integral control (Gustafsson 1991; Hairer and Wanner II, IV.2).

    h_new = h * safety * error^(-0.7/k) * previous^(0.4/k), where k is the order of the pair and errors are relative to
    the tolerance; the factor stays within [shrink, grow], and does not exceed one directly after a rejection.
    """

    order: int
    min_step: float
    max_step: float
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 4.0

    def without_limits(self) -> "StepControl":
        """That of a first step whose size is a guess: its error decides (Gladwell, Shampine and Brankin 1987)."""
        return dataclasses.replace(self, shrink=1e-4, grow=1e4)

    def accepted(self, h: float, error: float, previous: float, after_rejection: bool) -> float:
        """The step size after an accepted step of h with that error; previous: the error of the step before it."""
        error, previous = max(error, 1e-10), max(previous, 1e-4)
        factor = self.safety * error ** (-0.7 / self.order) * previous ** (0.4 / self.order)
        limit = 1.0 if after_rejection else self.grow
        return float(np.clip(h * np.clip(factor, self.shrink, limit), self.min_step, self.max_step))

    def rejected(self, h: float, error: float) -> float:
        """The step size of the next attempt; it is cut by NOT_FINITE where the error is not finite."""
        if not np.isfinite(error):
            return h * NOT_FINITE
        return h * float(np.clip(self.safety * error ** (-1.0 / self.order), self.shrink, 0.9))
