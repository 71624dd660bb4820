"""Attempts of a step by a singly diagonally implicit Runge-Kutta pair."""

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.galerkin.implicit import Equation, ImplicitSteps
from nivp_dist.integration.bdf import Choice, extrapolation
from nivp_dist.integration.implicit_attempts import Before, Fitted, ImplicitIntegrator, Solved
from nivp_dist.integration.implicit_solve import ImplicitSolve
from nivp_dist.integration.sdirk import ALEXANDER
from nivp_dist.integration.step_size import StepControl
from nivp_dist.settings.model import IntegratorSettings

# Misfit of a stage that is good enough, over that of a step of a multistep method: the error of the step is mostly far
# smaller than the difference of the pair, and a misfit of a stage is multiplied by up to 3.7 in the later ones.
SHARE = 0.1
# Part of the difference that misfits explain, over what is tolerated at least. Misfits in random directions cause about
# half of the part, and the step size falls slowly where the difference is more than a third of what is tolerated.
EXPLAINED = 2.0


class SdirkIntegrator(ImplicitIntegrator):
    """Takes accepted steps with a pair of constant order, from the present solution alone."""

    earlier = 0

    def __init__(self, settings: IntegratorSettings, programs: ImplicitSteps):
        super().__init__(settings, programs)
        self.pair = ALEXANDER
        self.control = StepControl(self.pair.order, settings.min_step, settings.max_step)
        self._combined = jax.jit(lambda coefficients, thetas: jnp.tensordot(coefficients, thetas, axes=1))

    def _size(self, before: Before, solve: ImplicitSolve) -> float:
        return self._norms(self._stack([before.start.theta]), solve)[0]

    def _first(self, before: Before) -> Choice:
        return Choice(self.pair.order, before.start.h)

    def _attempt(self, before: Before, choice: Choice, solve: ImplicitSolve, tolerance: float) -> Solved:
        stages = self._stages(before, choice.h, solve, tolerance)
        thetas = self._stack([before.start.theta, *(stage.theta for stage in stages)])
        size, change, difference = self._norms(thetas, solve, stages[-1])
        size = self._scale(size, stages[-1].theta, stages[-1].t, solve.points, before.start) or 1.0
        multistep = before.multistep
        # Fields with the misfit of the present one can cause a part of the difference that a shorter step would not
        # make smaller. A stage with a larger misfit was not solved well enough, which a shorter step may mend.
        explained = float(np.abs(self.pair.error).sum() * np.hypot(multistep.misfit, multistep.fits[0]))
        tolerated = max(self.settings.rtol, EXPLAINED * explained)
        error = difference / size
        return Solved(stages, stages[-1].misfit / (change or 1.0), error, {self.pair.order: error / tolerated})

    def _stages(self, before: Before, h: float, solve: ImplicitSolve, tolerance: float) -> tuple[Fitted, ...]:
        thetas, stages = [before.start.theta], []
        for i, weight in enumerate(self.pair.b):
            formula, known = self.pair.stage(i, h), self._stack(thetas)
            t = before.start.t + self.pair.times[i + 1] * h
            anchor = self.inert(before.start.theta, before.velocity, self.pair.times[i + 1] * h)
            equation = Equation(formula.gamma, t, self._target(known, formula, solve), solve.points, anchor)
            guesses = self._guesses(thetas, before.velocity, h)
            theta, misfit = solve.solve(guesses, equation, SHARE * tolerance)
            stages.append(Fitted(theta, known, formula, t, misfit, abs(weight)))
            thetas.append(theta)
        return tuple(stages)

    def _guesses(self, thetas: list, velocity, h: float) -> list:
        """Of the next stage: the last one, and the polynomial through all of them and the start.

        Before the first stage, the velocity of the last step is that of this one.
        """
        times, count = self.pair.times, len(thetas)
        if count == 1:
            return [thetas[0], self._combined(np.array([1.0, times[1] * h]), jnp.stack([thetas[0], velocity]))]
        return [thetas[-1], self._combined(extrapolation(times[count] - times[:count]), jnp.stack(thetas))]

    def _target(self, known, formula, solve: ImplicitSolve):
        return self.programs.combination(known, formula.earlier, solve.points)

    def _stack(self, thetas: list):
        """(s + 1, p): programs for one shape; coefficients of what is not there yet are zero."""
        return jnp.stack([*thetas, *[thetas[0]] * (len(self.pair.times) - len(thetas))])

    def _norms(self, thetas, solve: ImplicitSolve, last: Fitted | None = None) -> list[float]:
        """The norm of the start; or of the new field, its change by the equation of the last stage, and the difference
        of the pair."""
        rows = np.zeros((3, len(thetas)))
        rows[0, 0] = 1.0
        if last is not None:
            rows[0] = np.eye(len(thetas))[-1]
            rows[1], rows[2] = rows[0] - last.formula.earlier, self.pair.error
        return np.asarray(self.programs.differences(thetas, rows, solve.points)).tolist()

    def _after_rejection(self, choice: Choice, errors: dict[int, float]) -> Choice:
        return Choice(choice.order, self.control.rejected(choice.h, errors.get(choice.order, np.inf)))

    def _after_acceptance(self, choice: Choice, errors: dict[int, float], before: Before, rejected: int) -> Choice:
        error, previous = errors[choice.order], before.start.previous_error
        return Choice(choice.order, self.control.accepted(choice.h, error, previous, rejected > 0))
