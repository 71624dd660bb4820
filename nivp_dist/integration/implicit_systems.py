"""The linear systems of one implicit step: by the matrix A^T W A, or by conjugate gradients with an approximation of it
that serves several corrections."""

import jax
import numpy as np

from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.implicit import Correction, Equation, ImplicitSteps
from nivp_dist.galerkin.implicit_cg import Approximation, IterativeCorrections
from nivp_dist.galerkin.implicit_methods import correction_work, iterative_work, products_per_approximation
from nivp_dist.integration.solver_choice import FEW_ITERATIONS, SPECTRUM_REACHED, LastStep
from nivp_dist.integration.stages import BETTER_SOLVE, UNUSABLE, StageFailed

# Iterations of a correction, over those that take the time of an approximation, above which a larger one is cheaper.
WORTH_DOUBLING = 1 / 3


class DirectSystems:
    """Solves for the corrections of one step by the matrix, called as (theta, equation, damping, accuracy).

    Attributes:
        rank: of the approximation that CG is preconditioned with; 0: the matrix solves.
        iterations, wasted: CG iterations of all corrections; of those that were given up.
        worst: the largest relative residual of a system. reuse: whether an approximation may serve several corrections.
        warnings: to the user.
    """

    rank = iterations = wasted = 0
    worst, reuse = 0.0, True

    def __init__(self, steps: ImplicitSteps):
        self.steps = steps
        self.warnings: list[str] = []

    def __call__(self, theta, equation: Equation, damping: float, accuracy: float) -> Correction:
        """The correction at theta (p,). Raises StageFailed where no method solves the system.

        damping: relative to the trace of A^T W A. accuracy: with CG and solver.rtol = "auto" the error of A delta,
        relative to it.
        """
        return self.steps.correction(theta, equation, damping)

    def next_rank(self, corrections: int, points: int) -> int:
        """The rank for the next step, after one of so many corrections on that many points."""
        return self.rank


class IterativeSystems(DirectSystems):
    """The same by CG.

    An approximation is used again for the next correction as long as CG with it takes no more time than to make a new
    one and to solve with that. After a rejected attempt there is a new one in any case, because the damping is
    relative to its trace, which depends on gamma.

    Args:
        iterative: the programs. key: of the sketches. last: of the step before.
        direct: whether the matrix takes over where CG does not solve, or costs more.
    """

    def __init__(self, iterative: IterativeCorrections, key: jax.Array, last: LastStep, direct: bool):
        super().__init__(iterative.steps)
        self.iterative, self.key, self.direct = iterative, key, direct
        self.largest_rank = iterative.galerkin.largest_rank
        self.rank, self.last_iterations, self.reuse = last.rank, last.cg_iterations or 0, last.reuses_at(last.rank)
        self.approximation: Approximation | None = None
        self.approximations = 0
        self.gamma = np.nan  # of the equation that the approximation was made for

    def __call__(self, theta, equation: Equation, damping: float, accuracy: float) -> Correction:
        if self.rank == 0:
            return super().__call__(theta, equation, damping, accuracy)
        correction = self._with_an_approximation(theta, equation, damping, accuracy)
        code, residual = int(correction.code), float(correction.residual)
        if code != pcg.CONVERGED and (code == pcg.BROKEN or not residual <= UNUSABLE):
            reason = f"{pcg.CODE_NAMES[code]} at a relative residual {residual:.1e}"
            return self._unsolved(theta, equation, damping, reason)
        self.worst = max(self.worst, residual)
        if code != pcg.CONVERGED:
            self.warnings.append(f"CG {pcg.CODE_NAMES[code]}: {BETTER_SOLVE}")
        return correction

    def next_rank(self, corrections: int, points: int) -> int:
        """As above; 0 where the corrections would have cost less by the matrix, and that may take over."""
        network = self.iterative.galerkin.network
        iterative = iterative_work(network, points, self.approximations, self.iterations, self.rank)
        return 0 if self.direct and corrections * correction_work(network, points) < iterative else self.rank

    def _unsolved(self, theta, equation: Equation, damping: float, reason: str) -> Correction:
        if not self.direct:
            raise StageFailed(f"CG at t = {float(equation.t):.6g}: {reason}; {BETTER_SOLVE}")
        self.rank, self.wasted = 0, self.iterations
        return self.steps.correction(theta, equation, damping)

    def _with_an_approximation(self, theta, equation: Equation, damping: float, accuracy: float) -> Correction:
        """The correction with the approximation at hand, or with a new one where that does not serve."""
        if self.reuse and self.gamma == equation.gamma:
            limit = int(self.last_iterations + products_per_approximation(self.rank))
            correction = self._solve(theta, equation, damping, accuracy, limit)
            if int(correction.code) == pcg.CONVERGED:
                return correction
            self.reuse, self.wasted = False, self.wasted + int(correction.iterations)
        while True:
            self._approximate(theta, equation, damping)
            limit = self.iterative.galerkin.solver.max_iterations
            correction = self._solve(theta, equation, damping, accuracy, limit)
            self.last_iterations = int(correction.iterations)
            if int(correction.code) != pcg.ITERATION_LIMIT or self.rank >= self.largest_rank:
                return correction
            self.wasted += self.last_iterations
            self.rank = min(2 * self.rank, self.largest_rank)

    def _approximate(self, theta, equation: Equation, damping: float):
        """A new approximation, at once with twice the rank if iterations are many and the spectrum goes on."""
        self.approximation = self.iterative.approximation(theta, equation, self.key, self.rank)
        self.gamma, self.approximations = equation.gamma, self.approximations + 1
        many = self.last_iterations > max(FEW_ITERATIONS, WORTH_DOUBLING * products_per_approximation(self.rank))
        if many and self.rank < self.largest_rank:
            sketch, trace = self.approximation
            if float(sketch.eigenvalues[-1]) > SPECTRUM_REACHED * damping * float(trace):
                self.rank, self.last_iterations = min(2 * self.rank, self.largest_rank), 0
                self._approximate(theta, equation, damping)

    def _solve(self, theta, equation: Equation, damping: float, accuracy: float, limit: int) -> Correction:
        correction = self.iterative.correction(theta, equation, damping, self.approximation, limit, accuracy)
        self.iterations += int(correction.iterations)
        return correction
