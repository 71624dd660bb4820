"""The velocities at the stages of one step, and when the approximation that CG is preconditioned with is made anew."""

from collections.abc import Callable

import numpy as np

from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.methods import ITERATIVE, iterations_per_approximation
from nivp_dist.galerkin.velocity import Quality, Velocity
from nivp_dist.integration.solver_choice import System

UNUSABLE = 1e-3  # a velocity whose linear system is solved to no better than this relative residual is refused
# Iterations with the sketch of an earlier stage, over those with its own, at which CG is stopped for a new sketch; and
# the count below which iterations are taken as this many.
REUSE_LIMIT, REUSE_FLOOR = 2.0, 20

LARGER_MU = "try a larger solver.mu or sampling.points"
BETTER_SOLVE = "raise solver.max_iterations, max_rank or mu, or solver.rtol"
SMOOTHER_DATA = "wall_data change too fast for the step: let them change smoothly"


class StageFailed(Exception):
    """A velocity that cannot be used, with the reason and what to change; a shorter step may have better ones."""


class Stages:
    """Velocities theta' of one step, called as (theta, t), with what the metrics say of them.

    Args:
        system: of the step, at its start. Its rank may grow where CG does not end.
        velocity (p,): the last one of the step before. start: t of the first stage.
        poll: called before each stage; may raise to interrupt.

    Attributes:
        first (p,), first_residual: the velocity at the start and its residual |J v - f| / |f|; None until it is taken.
        rates: J v of the stages of the present attempt, (n, m) each.
        counts: CG iterations of every velocity, over all attempts. wasted: those with a sketch that did not serve.
        reuse: whether the first sketch of the step is used at its later stages.
        worst: the largest relative residual of a linear solve. failure: why the present attempt failed, or None.
        size, jacobian_share: |u| at the start of the step, on its points, and the share of the error of the step that
            is the change of J along it, both as the last attempt has found them. data_unresolved: whether the error of
            the step is that of its wall data (``norms.unresolved_data``).
    """

    def __init__(self, system: System, velocity, start: float, poll: Callable[[], None] = lambda: None):
        self.system, self.start, self.poll = system, start, poll
        self.galerkin, self.points, self.rank = system.galerkin, system.points, system.rank
        self.regularisation = self.at_start = system.regularisation
        self.guess = self.galerkin.initial_guess(velocity, self.points)
        self.first = self.first_rate = self.first_residual = self.kept = None
        self.failure: StageFailed | None = None
        self.rates: list = []
        self.counts: list[int] = []
        self.first_iterations = 0
        self.wasted = 0
        self.sketched = False  # whether the sketch is of an earlier stage
        self.reuse = True
        self.worst = self.size = self.jacobian_share = 0.0
        self.data_unresolved = False
        self.warnings: list[str] = []

    @property
    def evaluations(self) -> int:
        return len(self.counts)

    @property
    def iterations(self) -> int:
        return sum(self.counts)

    @property
    def first_velocity(self):
        """theta' at the start of the step, (p,): taken in it, or kept from the step before; None if neither yet."""
        return self.first if self.first is not None else self.kept

    def keep_first(self, theta, velocity):
        """Take the last velocity of the step before, on the same points, as the first of this one."""
        self.kept, self.first_rate = velocity, self.galerkin.rate(theta, velocity, self.points)

    def take_over(self, failed: "Stages"):
        """Count the velocities of stages that failed, and whose place these take; their iterations are wasted."""
        self.counts, self.wasted = [*failed.counts], failed.iterations

    def begin_after(self, pilot: "Stages"):
        """Begin from the velocity of a pilot at the same (theta, t) on other points, and count what it took."""
        self.counts, self.wasted, self.warnings = [*pilot.counts], pilot.wasted, [*pilot.warnings]
        if pilot.first is not None:
            self.guess = self.galerkin.initial_guess(pilot.first, self.points)

    def begin(self, reuse: bool):
        """Another attempt, with the sketch of the start: it may serve a shorter step where it failed a longer one."""
        self.regularisation, self.reuse, self.failure = self.at_start, reuse, None
        self.rates = [self.first_rate] if self.first_velocity is not None else []

    def __call__(self, theta, t: float):
        """The velocity (p,) at (theta, t). Raises StageFailed if it cannot be used."""
        self.poll()
        result, quality, iterations = self._with_a_sketch(theta, t)
        while quality.code == pcg.ITERATION_LIMIT and self.rank < self.galerkin.largest_rank:
            self.rank, self.guess = min(2 * self.rank, self.galerkin.largest_rank), result.next_guess
            self._sketch(theta)
            if self.first is None:
                self.at_start = self.regularisation
            result, quality = self._solve(theta, t)
            iterations += quality.iterations
        self.sketched = True
        self.counts.append(iterations)
        self._require_usable(quality, theta, t)
        if self.first is None and t == self.start:
            self.first, self.first_rate, self.first_residual = result.v, result.rate, quality.residual
            self.first_iterations = iterations
        self.guess = result.next_guess
        self.rates.append(result.rate)
        return result.v

    def _with_a_sketch(self, theta, t: float):
        """Solve with the sketch at hand, or with a new one where that does not serve: (result, quality, iterations).

        The leading eigenvectors of M turn with theta, and a turn of a thousandth is felt where lambda_1 / mu is 1e7
        (measured: 13 iterations become more than 300).
        """
        stale = self.galerkin.method in ITERATIVE and self.sketched
        if stale and not self.reuse:
            self._sketch(theta)
            stale = False
        limit = int(REUSE_LIMIT * max(self.first_iterations, REUSE_FLOOR))
        result, quality = self._solve(theta, t, limit if stale else None)
        iterations = quality.iterations
        if not stale:
            return result, quality, iterations
        if quality.code != pcg.CONVERGED:
            self.reuse, self.wasted = False, self.wasted + iterations
            self._sketch(theta)
            result, quality = self._solve(theta, t)
            return result, quality, iterations + quality.iterations
        if iterations > self.first_iterations + self._iterations_of_a_sketch():
            self.reuse = False
        return result, quality, iterations

    def _iterations_of_a_sketch(self) -> float:
        """How many take as long as a new one."""
        it, points = self.galerkin, len(self.points.x)
        return iterations_per_approximation(it.method, it.network, points, self.rank, it.hardware)

    def _require_usable(self, quality: Quality, theta, t: float):
        code, solver_residual = quality.code, quality.solver_residual
        self.worst = max(self.worst, solver_residual)
        if code == pcg.BROKEN or not np.isfinite(quality.residual):
            raise self._not_finite(theta, t)
        if solver_residual > UNUSABLE:
            reason = f"CG at t = {t:.6g}: {pcg.CODE_NAMES[code]} at a relative residual {solver_residual:.1e}"
            raise StageFailed(f"{reason}; {BETTER_SOLVE}")
        if code != pcg.CONVERGED:
            self.warnings.append(f"CG {pcg.CODE_NAMES[code]}: {BETTER_SOLVE}")

    def _not_finite(self, theta, t: float) -> StageFailed:
        rhs = self.galerkin.rhs_not_finite(theta, t, self.points)
        return StageFailed(rhs or f"the velocity at t = {t:.6g} is not finite; {LARGER_MU}")

    def _solve(self, theta, t: float, iterations: int | None = None) -> tuple[Velocity, Quality]:
        most = self.galerkin.solver.max_iterations
        limit = np.int64(most if iterations is None else min(most, iterations))
        regularisation = self.regularisation._replace(iteration_limit=limit)
        result = self.galerkin.velocity(theta, t, self.points, regularisation, self.guess)
        return result, result.quality

    def _sketch(self, theta):
        """A new sketch at this stage; mu stays that of the step, so that the ODE does not change within it."""
        fresh = self.galerkin.prepare(theta, self.points, self.system.key, self.rank)
        self.regularisation = self.galerkin.with_mu(fresh, self.regularisation.mu)
