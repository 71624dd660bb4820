"""One accepted implicit step: attempts by a backward differentiation formula until the error is tolerated."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.errors import RunFailed
from nivp_dist.galerkin.implicit import Equation, ImplicitSteps
from nivp_dist.integration import bdf
from nivp_dist.integration.attempts import Start
from nivp_dist.integration.bdf import Choice, Formula, Multistep
from nivp_dist.integration.implicit_solve import ImplicitSolve
from nivp_dist.integration.stages import LARGER_MU, StageFailed
from nivp_dist.integration.step_size import fit_to_end
from nivp_dist.points.points import Points
from nivp_dist.settings.model import IntegratorSettings

FIELDS = bdf.LARGEST_ORDER + 2  # the new one, that at the start, and the earlier ones
NORMS = 5  # the field, its change by the formula, and its distances from the predictions of three orders


class Before(NamedTuple):
    """The solution up to the start of a step.

    Attributes:
        start: of the step. thetas: (LARGEST_ORDER + 1, p), the newest first, start.theta among them.
        multistep: what else is known of them.
    """

    start: Start
    thetas: jax.Array
    multistep: Multistep


class Fitted(NamedTuple):
    """theta (p,) that solves the equation of a formula, and the norm of its misfit."""

    theta: jax.Array
    formula: Formula
    misfit: float


class Solved(NamedTuple):
    """An attempt whose equation was solved.

    Attributes:
        theta: (p,). formula: of the step.
        misfit: of the equation, relative to the solution. residual: the same relative to f, as that of a velocity.
        error: of the step, relative to the solution.
        errors: order -> error of the step with that order, relative to what is tolerated.
    """

    theta: jax.Array
    formula: Formula
    misfit: float
    residual: float
    error: float
    errors: dict[int, float]


class TakenImplicit(NamedTuple):
    """An accepted step.

    Attributes:
        solved: its result. before: where it began. t: where it ended. h, order: its length and order.
        rejected: attempts before it. evaluations: corrections in all of them. next: order and step size for the next.
    """

    solved: Solved
    before: Before
    t: float
    h: float
    order: int
    rejected: int
    evaluations: int
    next: Choice


class ImplicitIntegrator:
    """Takes accepted steps with the tolerance and the largest order of [integrator]."""

    def __init__(self, settings: IntegratorSettings, programs: ImplicitSteps):
        self.settings, self.programs = settings, programs
        self._extrapolated = jax.jit(lambda thetas, ratio: thetas[0] + ratio * (thetas[0] - thetas[1]))

    def take(self, before: Before, end: float, solve: ImplicitSolve) -> TakenImplicit:
        """One accepted step towards the time `end` of an output or a refit, which is met exactly.

        Raises RunFailed when the step size falls below integrator.min_step.
        """
        start, multistep = before.start, before.multistep
        size = max(self._norms(start.theta, before.thetas, [], solve.points)[0], start.size_floor)
        choice, rejected = Choice(min(multistep.order, multistep.known + 1), start.h), 0
        while True:
            h, lands = fit_to_end(start.t, choice.h, end)
            order = choice.order
            solved = self._attempt(before, Choice(order, h), solve, self.settings.rtol * size)
            if solved is not None and solved.errors[order] <= 1.0:
                break
            rejected += 1
            choice = bdf.after_rejection(h, order, {} if solved is None else solved.errors)
            self._require_step_size(choice.h, start.t, solve)
        raised = rejected == 0 and order < self.settings.max_order and multistep.since >= order
        following = bdf.after_acceptance(h, order, solved.errors, raised)
        # A step that was cut only to end at that time says nothing against the size before it.
        next_h = max(following.h, choice.h) if h < choice.h else following.h
        next_h = float(np.clip(next_h, self.settings.min_step, self.settings.max_step))
        t, following = end if lands else start.t + h, Choice(following.order, next_h)
        return TakenImplicit(solved, before, t, h, order, rejected, solve.evaluations, following)

    def _attempt(self, before: Before, choice: Choice, solve: ImplicitSolve, tolerance: float) -> Solved | None:
        """One attempt with its errors; None where its equation has no solution, or an error is not finite.

        tolerance: of the misfit of the equation.
        """
        (start, thetas, multistep), (order, h) = before, choice
        formula = bdf.formula(multistep.times(h), order)
        target = self.programs.combination(thetas, formula.earlier, solve.points)
        equation = Equation(formula.gamma, start.t + h, target, solve.points)
        guesses = [start.theta]
        if multistep.known:
            guesses.append(self._extrapolated(thetas, h / multistep.steps[0]))
        solve.failure = None
        try:
            theta, misfit = solve.solve(guesses, equation, tolerance)
            return self._with_errors(Fitted(theta, formula, misfit), before, choice, solve.points)
        except StageFailed as failure:
            solve.failure = failure
            return None

    def _with_errors(self, fitted: Fitted, before: Before, choice: Choice, points: Points) -> Solved:
        """The errors of the step by the distances of the new field from extrapolations of several orders.

        Raises StageFailed where one is not finite.
        """
        (theta, formula, misfit), (start, thetas, multistep), (order, h) = fitted, before, choice
        times = multistep.times(h)
        orders = [each for each in (order - 1, order, order + 1) if 0 < each < len(times)]
        predictors = {each: bdf.predictor(times, each) for each in orders}
        size, change, *distances = self._norms(theta, thetas, [formula, *predictors.values()], points)
        if not orders:  # in the first step of a run an explicit Euler step predicts
            predictors = {1: bdf.EULER}
            distances = [float(self.programs.first_difference(theta, start.theta, start.t, h, points))]
        size = max(size, start.size_floor) or 1.0
        errors = {each: one.weight * distance / size for (each, one), distance in zip(predictors.items(), distances)}
        if not np.all(np.isfinite(list(errors.values()))):
            raise StageFailed(f"the error of the step is not finite; {LARGER_MU}")
        relative = {each: errors[each] / self._tolerated(one, multistep) for each, one in predictors.items()}
        return Solved(theta, formula, misfit / size, misfit / (change or 1.0), errors[order], relative)

    def _norms(self, theta, thetas, formulas, points: Points) -> list[float]:
        """The norms of the new field, and of its distances from the combinations of earlier ones by the formulas."""
        rows = np.zeros((NORMS, FIELDS))
        rows[: len(formulas) + 1, 0] = 1.0
        for row, each in zip(rows[1:], formulas):
            row[1:] = -each.earlier
        norms = self.programs.differences(jnp.concatenate([theta[None], thetas]), rows, points)
        return np.asarray(norms)[: len(formulas) + 1].tolist()

    def _tolerated(self, predictor: bdf.Predictor, multistep: Multistep) -> float:
        """The tolerance, or the part of the error that the misfits of earlier fields can cause, whichever is larger.

        A shorter step would not make that part smaller, so that it is no reason to reject a step.
        """
        return max(self.settings.rtol, predictor.weight * float(np.abs(predictor.earlier) @ multistep.misfits))

    def _require_step_size(self, h: float, t: float, solve: ImplicitSolve) -> None:
        if h < self.settings.min_step:
            smallest, reason = self.settings.min_step, solve.failure or f"{LARGER_MU}, or integrator.min_step"
            raise RunFailed(f"step size below integrator.min_step = {smallest:g} at t = {t:.6g}: {reason}")
