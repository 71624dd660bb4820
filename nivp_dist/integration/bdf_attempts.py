"""Attempts of a step by the backward differentiation formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.galerkin.implicit import Equation, ImplicitSteps
from nivp_dist.integration import bdf
from nivp_dist.integration.bdf import Choice
from nivp_dist.integration.implicit_attempts import Before, Fitted, ImplicitIntegrator, Solved
from nivp_dist.integration.implicit_solve import ImplicitSolve
from nivp_dist.points.points import Points
from nivp_dist.settings.model import IntegratorSettings

FIELDS = bdf.LARGEST_ORDER + 2  # the new one, that at the start, and the earlier ones
HIGHEST_GUESS = 3  # the degree of the polynomials in time through the last theta, from which corrections start
NORMS = 5  # the field, its change by the formula, and its distances from the predictions of three orders


class BdfIntegrator(ImplicitIntegrator):
    """Takes accepted steps with orders up to integrator.max_order."""

    earlier = bdf.LARGEST_ORDER

    def __init__(self, settings: IntegratorSettings, programs: ImplicitSteps):
        super().__init__(settings, programs)
        self._combined = jax.jit(lambda coefficients, thetas: coefficients @ thetas)

    def _size(self, before: Before, solve: ImplicitSolve) -> float:
        return self._norms(before.start.theta, before.thetas, [], solve.points)[0]

    def _first(self, before: Before) -> Choice:
        return Choice(min(before.multistep.order, before.multistep.known + 1), before.start.h)

    def _attempt(self, before: Before, choice: Choice, solve: ImplicitSolve, tolerance: float) -> Solved:
        start, thetas, multistep = before.start, before.thetas, before.multistep
        order, h = choice
        times = multistep.times(h)
        formula = bdf.formula(times, order)
        target = self.programs.combination(thetas, formula.earlier, solve.points)
        anchor = self.inert(start.theta, before.velocity, h)
        equation = Equation(formula.gamma, start.t + h, target, solve.points, anchor)
        polynomials = [bdf.predictor(times, each) for each in range(1, min(multistep.known, HIGHEST_GUESS) + 1)]
        guesses = [start.theta, *(self._combined(each.earlier, thetas) for each in polynomials)]
        theta, misfit = solve.solve(guesses, equation, tolerance)
        fitted = Fitted(theta, thetas, formula, start.t + h, misfit, 1.0)
        return self._with_errors(fitted, before, choice, solve.points)

    def _with_errors(self, fitted: Fitted, before: Before, choice: Choice, points: Points) -> Solved:
        """The errors of the step by the distances of the new field from extrapolations of several orders."""
        theta, thetas, formula = fitted.theta, fitted.thetas, fitted.formula
        start, multistep, (order, h) = before.start, before.multistep, choice
        times = multistep.times(h)
        orders = [each for each in (order - 1, order, order + 1) if 0 < each < len(times)]
        predictors = {each: bdf.predictor(times, each) for each in orders}
        size, change, *distances = self._norms(theta, thetas, [formula, *predictors.values()], points)
        if not orders:  # in the first step of a run an explicit Euler step predicts
            predictors = {1: bdf.EULER}
            distances = [float(self.programs.first_difference(theta, start.theta, start.t, h, points))]
        size = self._scale(size, theta, fitted.t, points, start) or 1.0
        errors = {each: one.weight * distance / size for (each, one), distance in zip(predictors.items(), distances)}
        tolerated = {each: max(self.settings.rtol, multistep.explained(one)) for each, one in predictors.items()}
        relative = {each: errors[each] / tolerated[each] for each in predictors}
        return Solved((fitted,), fitted.misfit / (change or 1.0), errors[order], relative)

    def _after_rejection(self, choice: Choice, errors: dict[int, float]) -> Choice:
        return bdf.after_rejection(choice.h, choice.order, errors)

    def _after_acceptance(self, choice: Choice, errors: dict[int, float], before: Before, rejected: int) -> Choice:
        order, since = choice.order, before.multistep.since
        raised = rejected == 0 and order < self.settings.max_order and since >= order
        return bdf.after_acceptance(choice.h, order, errors, raised)

    def _norms(self, theta, thetas, formulas, points: Points) -> list[float]:
        """The norms of the new field, and of its distances from the combinations of earlier ones by the formulas."""
        rows = np.zeros((NORMS, FIELDS))
        rows[: len(formulas) + 1, 0] = 1.0
        for row, each in zip(rows[1:], formulas):
            row[1:] = -each.earlier
        norms = self.programs.differences(jnp.concatenate([theta[None], thetas]), rows, points)
        return np.asarray(norms)[: len(formulas) + 1].tolist()
