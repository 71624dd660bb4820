"""One accepted implicit step: attempts until the error is tolerated, whichever formulas make them."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import jax
import numpy as np

from nivp_dist.errors import StepTooShort
from nivp_dist.galerkin.implicit import ImplicitSteps
from nivp_dist.integration.attempts import Start
from nivp_dist.integration.bdf import Choice, Formula, Multistep
from nivp_dist.integration.implicit_solve import INERTIA, ImplicitSolve
from nivp_dist.integration.stages import LARGER_MU, SMOOTHER_DATA, StageFailed
from nivp_dist.integration.step_size import fit_to_end
from nivp_dist.points.points import Points
from nivp_dist.settings.model import IntegratorSettings

MOST_SHORTENED = 3  # attempts at a first step that are refused because their corrections were cut short


class Before(NamedTuple):
    """The solution up to the start of a step.

    Attributes:
        start: of the step. velocity: (p,), the change of theta in the last step over its length.
        thetas: (k + 1, p), the newest first, start.theta among them. multistep: what else is known of them.
    """

    start: Start
    velocity: jax.Array
    thetas: jax.Array
    multistep: Multistep


class Fitted(NamedTuple):
    """theta (p,) that solves the equation of a formula.

    Attributes:
        thetas: (k, p), whose fields the formula combines. t: of the equation. misfit: its norm.
        weight: what the step adds to the solution is at most h times the sum of weight * misfit / gamma.
    """

    theta: jax.Array
    thetas: jax.Array
    formula: Formula
    t: float
    misfit: float
    weight: float


class Solved(NamedTuple):
    """An attempt whose equations were solved.

    Attributes:
        equations: of the step, in the order in which they were solved; the last one gives the new solution.
        residual: the misfit of the last equation relative to gamma f, as the residual of a velocity is relative to f.
        error: of the step, relative to the solution.
        errors: order -> error of the step with that order, relative to what is tolerated.
    """

    equations: tuple[Fitted, ...]
    residual: float
    error: float
    errors: dict[int, float]

    @property
    def theta(self) -> jax.Array:
        """The new parameters (p,)."""
        return self.equations[-1].theta


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


class ImplicitIntegrator(ABC):
    """Takes accepted steps with the tolerance of [integrator].

    Attributes:
        earlier: how many solutions before the present one a step starts from.
        inert: (theta (p,), velocity (p,), time) -> theta after that time at a part of that velocity
            (``implicit_solve.INERTIA``).
    """

    earlier: int

    def __init__(self, settings: IntegratorSettings, programs: ImplicitSteps):
        self.settings, self.programs = settings, programs
        self.inert = jax.jit(lambda theta, velocity, time: theta + INERTIA * time * velocity)

    def take(self, before: Before, end: float, solve: ImplicitSolve) -> TakenImplicit:
        """One accepted step towards the time `end` of an output or a refit, which is met exactly.

        Raises StepTooShort when the step size falls below integrator.min_step.
        """
        start = before.start
        size = self._scale(self._size(before, solve), start.theta, start.t, solve.points, start)
        tolerance = self.settings.rtol * size
        choice, rejected = self._first(before), 0
        while True:
            h, lands = fit_to_end(start.t, choice.h, end)
            order = choice.order
            solved = self._solved(before, Choice(order, h), solve, tolerance)
            # The length of a first step is a guess, and what the initial fit misses, of high wavenumber, may make its
            # equation hard. In kdv_1d a first step of 0.01, with a tolerated error, left an error of 1.1e-4 where its
            # corrections were cut short; one of 0.001 left 1.8e-5.
            too_long = start.guessed and solve.cut_short and rejected < MOST_SHORTENED
            if solved is not None and solved.errors[order] <= 1.0 and not too_long:
                break
            rejected += 1
            choice = self._after_rejection(Choice(order, h), {} if solved is None or too_long else solved.errors)
            self._require_step_size(choice.h, start.t, solve)
        following = self._after_acceptance(Choice(order, h), solved.errors, before, rejected)
        # A step that was cut only to end at that time says nothing against the size before it.
        next_h = max(following.h, choice.h) if h < choice.h else following.h
        next_h = float(np.clip(next_h, self.settings.min_step, self.settings.max_step))
        t, following = end if lands else start.t + h, Choice(following.order, next_h)
        return TakenImplicit(solved, before, t, h, order, rejected, solve.evaluations, following)

    def _scale(self, size: float, theta, t: float, points: Points, start: Start) -> float:
        """What errors are relative to.

        size: the norm of the network's field at (theta, t), which is that of the solution unless there is a lifting.
        """
        if self.programs.discretisation.network.lifting is not None:
            size = float(self.programs.size(theta, t, points))
        return max(size, start.size_floor)

    # What a method defines ----------------------------------------------------------------------

    @abstractmethod
    def _size(self, before: Before, solve: ImplicitSolve) -> float:
        """The norm of the field at the start."""

    @abstractmethod
    def _first(self, before: Before) -> Choice:
        """Order and step size of the first attempt."""

    @abstractmethod
    def _attempt(self, before: Before, choice: Choice, solve: ImplicitSolve, tolerance: float) -> Solved:
        """One attempt with its errors; tolerance: of the error, in its norm.

        Raises StageFailed where one of its equations has no solution, or an error is not finite.
        """

    @abstractmethod
    def _after_rejection(self, choice: Choice, errors: dict[int, float]) -> Choice:
        """The next attempt; errors: of the last one, empty where its equations were not solved."""

    @abstractmethod
    def _after_acceptance(self, choice: Choice, errors: dict[int, float], before: Before, rejected: int) -> Choice:
        """Order and step size for the next step."""

    # --------------------------------------------------------------------------------------------

    def _solved(self, before: Before, choice: Choice, solve: ImplicitSolve, tolerance: float) -> Solved | None:
        """One attempt; None where it failed."""
        solve.failure, solve.cut_short = None, False
        try:
            solved = self._attempt(before, choice, solve, tolerance)
            if self.programs.discretisation.network.lifting is not None:
                solved = self._with_data(solved, before.start.t, choice, solve, tolerance)
            if not np.all(np.isfinite(list(solved.errors.values()))):
                raise StageFailed(f"the error of the step is not finite; {LARGER_MU}")
            return solved
        except StageFailed as failure:
            solve.failure = failure
            return None

    def _with_data(self, solved: Solved, t: float, choice: Choice, solve: ImplicitSolve, tolerance: float) -> Solved:
        """The attempt with the error of its wall data, where that is larger (``norms.unresolved_data``)."""
        unresolved = float(self.programs.unresolved_data(t, choice.h, solve.points)) / tolerance
        if unresolved > max(1.0, solved.errors[choice.order]):
            solve.failure = StageFailed(SMOOTHER_DATA)
        errors = {order: float(np.maximum(error, unresolved)) for order, error in solved.errors.items()}
        error = float(np.maximum(solved.error, unresolved * self.settings.rtol))
        return solved._replace(error=error, errors=errors)

    def _require_step_size(self, h: float, t: float, solve: ImplicitSolve) -> None:
        if h < self.settings.min_step:
            smallest, reason = self.settings.min_step, solve.failure or f"{LARGER_MU}, or integrator.min_step"
            raise StepTooShort(f"step size below integrator.min_step = {smallest:g} at t = {t:.6g}: {reason}")
