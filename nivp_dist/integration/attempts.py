"""One accepted step: attempts with the embedded pair until the error is within the tolerance."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from nivp_dist.backend.host_numbers import read
from nivp_dist.errors import RunFailed, StepTooShort
from nivp_dist.galerkin.norms import StepNorms
from nivp_dist.integration.solver_choice import LastStep
from nivp_dist.integration.stages import LARGER_MU, SMOOTHER_DATA, StageFailed, Stages
from nivp_dist.integration.step_size import StepControl, fit_to_end
from nivp_dist.integration.tableaus import TABLEAUS, Step, attempt
from nivp_dist.settings.automatic import explicit_pair
from nivp_dist.settings.model import IntegratorSettings


class Start(NamedTuple):
    """Where a step begins: theta (p,) at t, the step size to try, the last step's error over the tolerance.

    size_floor: the least |u| that errors are relative to. guessed: whether h is a guess, and no choice of a user or of
    an earlier step.
    """

    theta: jax.Array
    t: float
    h: float
    previous_error: float
    size_floor: float = 0.0
    guessed: bool = False


class Taken(NamedTuple):
    """An accepted step.

    Attributes:
        step: its result in parameter space. stages: the velocities that it was made of.
        t: where it ended. h: its length. error: relative to the tolerance. rejected: attempts before it.
        next_h: the step size for the next one.
    """

    step: Step
    stages: Stages
    t: float
    h: float
    error: float
    rejected: int
    next_h: float


class Integrator:
    """Takes accepted steps with the pair and the tolerance of [integrator]."""

    def __init__(self, settings: IntegratorSettings):
        self.settings, self.tableau = settings, TABLEAUS[explicit_pair(settings)]
        self.control = StepControl(self.tableau.order, settings.min_step, settings.max_step)
        self._combine, self._increments = jax.jit(combine), jax.jit(increments)

    def take(
        self,
        start: Start,
        end: float,
        stages: Stages,
        last: LastStep,
        direct_stages: Callable[[], Stages] | None = None,
    ) -> Taken:
        """One accepted step towards the time `end` of an output or a refit, which is met exactly.

        direct_stages: makes the stages anew for a direct solve, where CG finds no velocity at the start of the step.

        Raises RunFailed when there is no velocity at the start of the step, which no step size changes, and when the
        step size falls below integrator.min_step.
        """
        h, rejected = start.h, 0
        control = self.control.without_limits() if start.guessed else self.control
        while True:
            length, lands = fit_to_end(start.t, h, end)
            error, step = self._attempt(start, length, stages, last)
            if step is not None and error <= 1.0:
                break
            rejected += 1
            if stages.first_velocity is None:  # at any step size the first stage would fail again
                if direct_stages is None:
                    raise RunFailed(str(stages.failure))
                failed, stages, direct_stages = stages, direct_stages(), None
                stages.take_over(failed)
                continue
            h = control.rejected(length, error)
            mend = SMOOTHER_DATA if stages.data_unresolved else LARGER_MU
            reason = f"error {error:.1e} of the tolerance; {mend}, or integrator.min_step"
            self._require_step_size(h, start.t, str(stages.failure or reason))
        next_h = control.accepted(length, error, start.previous_error, rejected > 0)
        if length < h:  # the step was cut only to end at that time: the size before it still holds
            next_h = max(next_h, h)
        return Taken(step, stages, end if lands else start.t + length, length, error, rejected, next_h)

    def _attempt(self, start: Start, h: float, stages: Stages, last: LastStep) -> tuple[float, Step | None]:
        """(error relative to the tolerance, step); an infinite error where a stage failed."""
        stages.begin(last.reuses_at(stages.rank))
        try:
            step = attempt(self.tableau, stages, self._combine, start.theta, start.t, h, stages.first_velocity)
        except StageFailed as failure:
            stages.failure = failure
            return np.inf, None
        error = self._error(start, h, step, stages)
        if not np.isfinite(error):
            stages.failure, error = StageFailed(f"the error of the step is not finite; {LARGER_MU}"), np.inf
        return error, step

    def _error(self, start: Start, h: float, step: Step, stages: Stages) -> float:
        """Relative to the tolerance (``Galerkin.step_norms``)."""
        increments = self._increments(h, (self.tableau.b, self.tableau.b_error), stages.rates)
        found = stages.galerkin.step_norms(start.theta, start.t, step.theta, step.error, *increments, stages.points)
        norms = read(StepNorms, found)
        size, stages.size = norms.error, norms.scale
        stages.jacobian_share = 1.0 - norms.embedded / size if size > 0 else 0.0
        if stages.galerkin.network.lifting is not None:
            unresolved = float(stages.galerkin.unresolved_data(start.t, h, stages.points))
            stages.data_unresolved, size = unresolved > size, float(np.maximum(size, unresolved))
        return size / (self.settings.rtol * max(stages.size, start.size_floor))

    def _require_step_size(self, h: float, t: float, reason: str) -> None:
        if h < self.settings.min_step:
            smallest = self.settings.min_step
            raise StepTooShort(f"step size below integrator.min_step = {smallest:g} at t = {t:.6g}: {reason}")


def combine(theta, h, coefficients, stages):
    """theta + h sum_i coefficients_i stages_i, or without theta where it is None."""
    total = sum(c * k for c, k in zip(coefficients, stages)) * h
    return total if theta is None else theta + total


def increments(h, coefficients, stages):
    """h sum_i coefficients_i stages_i for several tuples of coefficients, by one program."""
    return [combine(None, h, each, stages) for each in coefficients]
