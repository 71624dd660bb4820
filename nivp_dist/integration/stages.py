"""The velocities at the stages of one step, and when the approximation that CG is preconditioned with is made anew."""

from typing import Callable

import jax.numpy as jnp
import numpy as np

from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.methods import ITERATIVE, anew
from nivp_dist.galerkin.velocity import Galerkin, Regularisation
from nivp_dist.points.points import Points

UNUSABLE = 1e-3  # a linear residual above this is no velocity
WASTED = 2.0  # reusing a sketch does not pay beyond this many times the iterations with a fresh one


class StageFailed(Exception):
    """A velocity that cannot be used; the step is tried again with a smaller h."""


class Stages:
    """Velocities on one step's points, with their telemetry; called as (theta, t).

    Args:
        regularisation: that of the step's start, of `rank`, which may grow to `limit` where CG does not end.
        key: of the sketches. velocity (p,): the one before. start: t of the first stage.
        poll: called before each stage; may raise to interrupt.
    """

    def __init__(
        self,
        galerkin: Galerkin,
        points: Points,
        regularisation: Regularisation,
        rank: int,
        limit: int,
        key,
        velocity,
        start: float,
        poll: Callable[[], None] = lambda: None,
    ):
        self.galerkin, self.points, self.key, self.start, self.poll = galerkin, points, key, start, poll
        self.regularisation = self.at_start = regularisation
        self.rank, self.limit = rank, limit
        self.guess = galerkin.guess(velocity, points)
        self.first = self.first_rate = self.first_residual = self.failure = None
        self.rates: list = []  # J v of the stages of the present attempt
        self.counts: list[int] = []  # CG iterations of every velocity
        self.first_iterations = 0
        self.wasted = 0  # iterations on a sketch that did not serve: they say nothing of the parametrisation
        self.sketched = False  # whether the sketch is of an earlier stage
        self.reuse = True  # the step's sketch at its later stages
        self.worst = 0.0
        self.warnings: list[str] = []

    @property
    def evaluations(self) -> int:
        return len(self.counts)

    @property
    def iterations(self) -> int:
        return sum(self.counts)

    def begin(self, reuse: bool, first_is_known: bool):
        """Another attempt: a sketch that failed a step too long for it may serve a shorter one."""
        self.regularisation, self.reuse, self.failure = self.at_start, reuse, None
        self.rates = [self.first_rate] if first_is_known else []

    def __call__(self, theta, t):
        self.poll()
        # A sketch taken elsewhere may serve here, or may not: its leading eigenvectors turn with theta, and with
        # lambda_1 / mu = 1e7 a turn of a thousandth is felt (measured: 13 iterations become more than 300).
        stale = self.galerkin.method in ITERATIVE and self.sketched
        if stale and not self.reuse:
            self._sketch(theta)
            stale = False
        enough = int(WASTED * max(self.first_iterations, 20))
        result, iterations, code = self._solve(theta, t, enough if stale else None)
        if stale and code != pcg.CONVERGED:
            self.reuse, self.wasted = False, self.wasted + iterations
            self._sketch(theta)
            result, more, code = self._solve(theta, t)
            iterations += more
        elif stale and iterations > self.first_iterations + anew(
            self.galerkin.method, self.galerkin.network, self.rank
        ):
            self.reuse = False
        while code == pcg.ITERATION_LIMIT and self.rank < self.limit:
            self.rank, self.guess = min(2 * self.rank, self.limit), result.guess
            self._sketch(theta)
            if self.first is None:
                self.at_start = self.regularisation
            result, more, code = self._solve(theta, t)
            iterations += more
        self.sketched = True
        self.counts.append(iterations)
        solver_residual = float(result.solver_residual)
        self.worst = max(self.worst, solver_residual)
        if code == pcg.BROKEN or not np.isfinite(float(result.residual)):
            raise StageFailed(f"the velocity at t = {t:.6g} is not finite")
        if solver_residual > UNUSABLE:
            raise StageFailed(f"CG at t = {t:.6g}: {pcg.CODE_NAMES[code]} at a relative residual {solver_residual:.1e}")
        if code != pcg.CONVERGED:
            mend = "raise solver.max_iterations, max_rank or mu, or solver.rtol"
            self.warnings.append(f"CG {pcg.CODE_NAMES[code]}: {mend}")
        if self.first is None and t == self.start:
            self.first, self.first_rate, self.first_residual = result.v, result.rate, float(result.residual)
            self.first_iterations = iterations
        self.guess = result.guess
        self.rates.append(result.rate)
        return result.v

    def _solve(self, theta, t, iterations: int | None = None):
        regularisation = self.regularisation
        if iterations is not None:
            regularisation = regularisation._replace(limit=jnp.minimum(regularisation.limit, iterations))
        result = self.galerkin.velocity(theta, t, self.points, regularisation, self.guess)
        return result, int(result.iterations), int(result.code)

    def _sketch(self, theta):
        """A new sketch at this stage; mu stays that of the step, so that the ODE does not change within it."""
        fresh = self.galerkin.prepare(theta, self.points, self.key, self.rank)
        self.regularisation = fresh._replace(mu=self.regularisation.mu)
