"""The solver of the velocities of a step: conjugate gradients with an approximation of some rank, or a direct solve."""

from functools import partial
from typing import NamedTuple

import jax

from nivp_dist.galerkin.methods import ITERATIVE, direct_work, iterations_after_doubling, step_work
from nivp_dist.galerkin.regularisation import Regularisation
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.points.points import Points

# pcg: CG iterations a velocity, over the rank, above which a larger sketch is cheaper: making it costs as much as
# rank / 2 products with M, and the stages of a step (three to seven) share it.
WORTH_DOUBLING = 1 / 6
FEW_ITERATIONS = 20  # pcg: fewer iterations than this are no reason for a larger sketch
SPECTRUM_REACHED = 10  # pcg: a sketch whose least eigenvalue is below this many times mu is large enough
REUSE_TRIED_EVERY = 10  # steps after which a sketch is reused for all stages again, where that did not pay before


class Discretisation(NamedTuple):
    """What the matrix M of a step depends on: theta (p,), the points, the key of its sketch, and the factor on mu."""

    theta: jax.Array
    points: Points
    key: jax.Array
    mu_factor: float


class LastStep(NamedTuple):
    """What is known of the solver from the step before.

    Attributes:
        step: accepted steps so far. rank: of its approximation, 0 for a direct solve.
        reuse_sketch: whether it paid to use the sketch of the first stage at all stages.
        cg_iterations: a velocity; None where they say nothing of this network: at the start, and after a refit.
    """

    step: int
    rank: int
    reuse_sketch: bool
    cg_iterations: float | None

    def reuses_at(self, rank: int) -> bool:
        """Whether a step with that rank begins by using its first sketch at all stages."""
        return self.reuse_sketch or self.step % REUSE_TRIED_EVERY == 0 or rank != self.rank


class System(NamedTuple):
    """The linear system (M + mu I) v = F of a step, and what solves it.

    Attributes:
        galerkin: its programs. points: on which M and F are taken. regularisation: at the start of the step.
        rank: of the approximation that CG is preconditioned with; 0 for direct solves. key: of its sketch.
    """

    galerkin: Galerkin
    points: Points
    regularisation: Regularisation
    rank: int
    key: jax.Array


class SolverChoice:
    """Chooses the solver and its rank before every step, by counted work and never by a clock.

    Args:
        iterative: the solver as solver.method says.
        direct: a direct solver that may take over from CG, or None.
        stages: velocities of a step.
    """

    def __init__(self, iterative: Galerkin, direct: Galerkin | None, stages: int):
        self.iterative, self.direct, self.stages = iterative, direct, stages

    def system(self, at: Discretisation, last: LastStep) -> System:
        """The system of the next step.

        Where CG solves with a rank of its own choice, that is doubled while the iterations of the last step cost more
        than a larger approximation would. The spectrum of M fills up as a run goes on, and with it grow rank and
        iterations (Vlasov: the effective dimension comes to p / 3): where direct solves have become cheaper they take
        over, until the next refit.
        """
        galerkin, rank = self.iterative, last.rank or self.iterative.initial_rank
        if galerkin.method not in ITERATIVE:  # also after a resume of a run by CG, on fewer devices
            return self._system(galerkin, at, 0)
        if self.direct is not None and last.rank == 0:
            return self.direct_system(at)
        if last.cg_iterations is None:
            return self._system(galerkin, at, rank)
        rank, cost = self._rank_by_work(at, last, last.cg_iterations, rank)
        if self.direct is not None and self._direct_work(self.direct, at, last) < cost:
            return self.direct_system(at)
        if galerkin.method == "pcg":
            return self._by_spectrum(at, last.cg_iterations, rank)
        return self._system(galerkin, at, rank)

    def direct_system(self, at: Discretisation) -> System:
        """The system of the step, to be solved directly."""
        assert self.direct is not None
        return self._system(self.direct, at, 0)

    def method(self, rank: int, points: int) -> str:
        """The name of the method (``galerkin.methods``) that solves on that many points after a step of that rank."""
        galerkin = self.direct if self.direct is not None and rank == 0 else self.iterative
        return galerkin.linear_solver.method_for(points)

    def _rank_by_work(self, at: Discretisation, last: LastStep, iterations: float, rank: int) -> tuple[int, float]:
        """The rank and the work of a step with it. Only ranks of "dual_pcg" are chosen by counted work."""
        galerkin, n = self.iterative, len(at.points.x)
        velocities, hardware = self._velocities(last), galerkin.hardware
        work = partial(step_work, galerkin.method, galerkin.network, n, velocities=velocities, hardware=hardware)
        cost, larger = work(rank, iterations), min(2 * rank, galerkin.largest_rank)
        if galerkin.method == "dual_pcg" and rank < larger:
            doubled = work(larger, iterations_after_doubling(iterations))
            rank, cost = (larger, doubled) if doubled < cost else (rank, cost)
        return rank, cost

    def _by_spectrum(self, at: Discretisation, iterations: float, rank: int) -> System:
        """The rank of "pcg" doubles where iterations are many, until the least eigenvalue of the sketch comes near mu.

        A sketch is made of matrix products at the full rate of the processor, an iteration runs at that of memory.
        """
        system, larger = self._system(self.iterative, at, rank), min(2 * rank, self.iterative.largest_rank)
        if rank < larger and iterations > max(FEW_ITERATIONS, WORTH_DOUBLING * rank):
            regularisation = system.regularisation
            if float(regularisation.sketch.eigenvalues[-1]) > SPECTRUM_REACHED * float(regularisation.mu):
                return self._system(self.iterative, at, larger)
        return system

    def _direct_work(self, direct: Galerkin, at: Discretisation, last: LastStep) -> float:
        n = len(at.points.x)
        work = direct_work(direct.network, n, hardware=direct.hardware)
        return self._velocities(last) * work[direct.linear_solver.method_for(n)]

    def _velocities(self, last: LastStep) -> int:
        """Velocities that share an approximation."""
        return self.stages if last.reuse_sketch else 1

    def _system(self, galerkin: Galerkin, at: Discretisation, rank: int) -> System:
        regularisation = galerkin.prepare(at.theta, at.points, at.key, rank)
        # In most steps the factor is one, and they spare a program.
        mu = regularisation.mu if at.mu_factor == 1.0 else at.mu_factor * regularisation.mu
        return System(galerkin, at.points, galerkin.with_mu(regularisation, mu), rank, at.key)
