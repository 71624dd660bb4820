"""What a run adapts by itself, from its state alone: a factor on solver.mu, and a factor on sampling.points.

A larger mu takes the least determined directions out of the velocity. That raises the residual and allows larger steps.
mu is therefore raised while steps are rejected or shrink, and lowered again after a number of steps without trouble.

The number of points is doubled where a velocity solves the equation only on the points that it was fitted to.
"""

from typing import NamedTuple

import numpy as np

from nivp_dist.monitoring.signatures import EXACT, OVERFITTED, thirds
from nivp_dist.monitoring.step_series import StepSeries

# A factor of mu changes little below ten; beyond 1e4 times the mu that the user chose it would be another problem.
MU_FACTOR, LARGEST_MU_FACTOR = 10.0, 1e4
REJECTED_IN_TWO = 3  # rejected attempts in two steps at which mu is raised,
LONG, REJECTED_IN_LONG = 8, 6  # or rejected attempts in LONG steps
COLLAPSE = 10.0  # or where the step size has fallen by this ratio within the window, and the residual has risen
SETTLING_STEPS = 3  # steps after a change, or after the first guess at a step size, that show its effect
UNTROUBLED_STEPS = 12  # steps without a rejection after which mu is lowered again
# Overfitted steps in a row after which the points are doubled. A solid-body rotation was lost in the 17 steps that a
# median over nine of them took.
OVERFITTED_STEPS = 3
LARGEST_POINT_FACTOR = 4  # bounds memory and time at four times those that the user chose


class MuAdaptation(NamedTuple):
    """The factor on solver.mu, and the accepted step at which it changed last."""

    factor: float = 1.0
    since: int = 0

    def after_step(self, recent: StepSeries, step: int) -> "MuAdaptation":
        """The factor for the next step.

        Args:
            recent: series of the steps since the last fit, the newest last. step: accepted steps so far.
        """
        elapsed = step - self.since
        if elapsed >= SETTLING_STEPS and self.factor < LARGEST_MU_FACTOR and _in_trouble(recent, elapsed):
            return MuAdaptation(self.factor * MU_FACTOR, step)
        if self.factor > 1 and elapsed >= UNTROUBLED_STEPS and _is_untroubled(recent):
            return MuAdaptation(self.factor / MU_FACTOR, step)
        return self


class PointRefinement(NamedTuple):
    """The factor on sampling.points, and the accepted step at which it changed last."""

    factor: int = 1
    since: int = 0

    def after_step(self, recent: StepSeries, step: int) -> "PointRefinement":
        """The factor for the next step: doubled if the last velocities since the last change overfit their points.

        Arguments as for ``MuAdaptation.after_step``.
        """
        since_change = slice(-(step - self.since), None)
        own, fresh = recent.residual[since_change], recent.residual_fresh[since_change]
        last = np.flatnonzero(~np.isnan(own))[-OVERFITTED_STEPS:]
        if self.factor == LARGEST_POINT_FACTOR or step == self.since or len(last) < OVERFITTED_STEPS:
            return self
        overfitted = np.all((fresh[last] >= EXACT) & (fresh[last] >= OVERFITTED * own[last]))
        return PointRefinement(2 * self.factor, step) if overfitted else self


def _in_trouble(recent: StepSeries, elapsed: int) -> bool:
    if recent.rejected[-2:].sum() >= REJECTED_IN_TWO:
        return True
    if elapsed >= LONG and recent.rejected[-LONG:].sum() >= REJECTED_IN_LONG:
        return True
    # There may be no rejection where the step size falls at every step while the velocities get worse.
    fell = recent.h[-1] < recent.h.max() / COLLAPSE
    early, _, late = thirds(recent.residual_fresh)
    return bool(fell and late > 2 * early)


def _is_untroubled(recent: StepSeries) -> bool:
    last = slice(-UNTROUBLED_STEPS, None)
    return (
        len(recent.h) >= UNTROUBLED_STEPS
        and recent.rejected[last].sum() == 0
        and recent.h[-1] >= np.max(recent.h[last]) / 2
    )
