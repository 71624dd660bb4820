"""What a run does by itself, by its state alone, before it asks for help: a factor on solver.mu, and one on the points.

A larger mu takes the least determined directions out of the velocity. It costs residual, and gives step size: where the
steps are what is lost, that is the obvious first thing to try. It is taken back when steps have been sound for a while.

More points are what a velocity needs that fits its own points only: on others it is then no velocity at all.
"""

from typing import NamedTuple

import numpy as np

from nivp_dist.monitoring.signatures import ENOUGH, StepRecord, points_overfitted, thirds

FACTOR, LARGEST = 10.0, 1e4
STRUGGLES = 3  # rejected attempts in two steps
LASTING, LASTING_STRUGGLES = 8, 6  # or so many in so many steps
COLLAPSE = 10.0  # of the step size, within the window
SETTLE = 3  # steps before the effect of a change, or of a first guess at the step size, is judged
SOUND = 12  # steps without a rejection before it is taken back
MOST_POINTS = 4  # times sampling.points: what memory and time are to be reckoned with


class MuAdaptation(NamedTuple):
    """The factor, and the accepted step at which it changed last."""

    factor: float = 1.0
    since: int = 0

    def after_step(self, recent: StepRecord, step: int) -> "MuAdaptation":
        """recent: series of the steps since the last fit, the newest last. step: accepted steps so far."""
        elapsed = step - self.since
        if elapsed >= SETTLE and self.factor < LARGEST and _struggles(recent, elapsed):
            return MuAdaptation(self.factor * FACTOR, step)
        if self.factor > 1 and elapsed >= SOUND and _is_sound(recent):
            return MuAdaptation(self.factor / FACTOR, step)
        return self


class PointRefinement(NamedTuple):
    """How many times sampling.points are drawn, and the accepted step at which that changed last."""

    factor: int = 1
    since: int = 0

    def after_step(self, recent: StepRecord, step: int) -> "PointRefinement":
        """Twice as many, if the steps since the last change fit their own points only. Arguments as above."""
        elapsed = step - self.since
        if self.factor == MOST_POINTS or elapsed < ENOUGH or len(recent.h) < ENOUGH:
            return self
        overfitted = points_overfitted(StepRecord(*(series[-elapsed:] for series in recent)))
        return PointRefinement(2 * self.factor, step) if overfitted else self


def _struggles(recent: StepRecord, elapsed: int) -> bool:
    if recent.rejected[-2:].sum() >= STRUGGLES:
        return True
    if elapsed >= LASTING and recent.rejected[-LASTING:].sum() >= LASTING_STRUGGLES:
        return True
    # Without rejections: a controller that gives way step by step, while the velocities get worse.
    fell = recent.h[-1] < recent.h.max() / COLLAPSE
    early, _, late = thirds(recent.residual_fresh)
    return bool(fell and late > 2 * early)


def _is_sound(recent: StepRecord) -> bool:
    last = slice(-SOUND, None)
    return len(recent.h) >= SOUND and recent.rejected[last].sum() == 0 and recent.h[-1] >= np.max(recent.h[last]) / 2
