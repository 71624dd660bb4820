"""The equation of one implicit step solved for theta by the Levenberg-Marquardt method, in function space."""

from collections.abc import Callable

import numpy as np

from nivp_dist.backend.host_numbers import read
from nivp_dist.galerkin.implicit import Equation, ImplicitSteps, Misfit
from nivp_dist.integration.implicit_systems import DirectSystems
from nivp_dist.integration.stages import LARGER_MU, StageFailed
from nivp_dist.points.points import Points

# Corrections end in one of three cases. The misfit is below CONVERGED times the tolerance. Or the linearised equation
# has predicted the misfit, up to that or up to UNPREDICTED times the misfit, so that another correction would change
# little. Or the misfit is still above GAINED times the one before. In the last two cases the network cannot represent
# the rest, and the error of the step shows whether the result is good enough.
CONVERGED, UNPREDICTED, GAINED = 0.1, 0.3, 0.9
MOST_CORRECTIONS = 8
DAMPING_GROWS, LARGEST_DAMPING = 100.0, 1e-3  # after a correction that enlarges the misfit; relative to the trace
# The damping pulls towards what a part of the last step's velocity would make of theta. Directions that the equation
# hardly sees so come to rest; with all of the velocity they grow from step to step, until corrections are no longer
# small; without any, the damping holds the solution back. Measured with heat_stiff_2d, three seeds, for 0.8, 0.9 and
# 0.95 of the velocity: 165, 165 and 196 corrections and errors of 4.3e-5, 2.1e-5 and 2.4e-5 in the median. One seed,
# with a pull to theta at the start of the step: 183 and 4.9e-5; with one to the iterate before, 411 and 9.2e-5.
INERTIA = 0.9
ROUNDING = 1.001  # a misfit that stays may seem to grow by rounding
# CG may leave SOLVE_SHARE of a misfit that is good enough, and no more than COARSEST_SOLVE of the change of the field.
SOLVE_SHARE, COARSEST_SOLVE = 0.1, 0.1


class ImplicitSolve:
    """Solves the equations of the attempts of one step.

    Args:
        programs: of the discretisation. points: on which the equations hold. systems: solve for the corrections.
        damping: the least one, relative to the trace of A^T W A.
        poll: called before each correction; may raise to interrupt.

    Attributes:
        evaluations: corrections so far, over all attempts. failure: why the present attempt failed, or None.
        cut_short: whether MOST_CORRECTIONS ended those of an equation of the present attempt, which gained still.
    """

    def __init__(
        self,
        programs: ImplicitSteps,
        points: Points,
        systems: DirectSystems,
        damping: float,
        poll: Callable[[], None],
    ):
        self.programs, self.points, self.systems, self.damping, self.poll = programs, points, systems, damping, poll
        self.evaluations = 0
        self.failure: StageFailed | None = None
        self.cut_short = False

    def solve(self, guesses, equation: Equation, tolerance: float):
        """theta (p,) and the norm of its misfit, from the best of the guesses (p,). Raises StageFailed.

        tolerance: of the misfit, in its norm. A misfit that no further correction lowers may exceed it.
        """
        theta, size = self._best(guesses, equation)
        damping = self.damping
        for _ in range(MOST_CORRECTIONS):
            self.poll()
            # A larger damping is to keep the correction small: it pulls to where theta is.
            damped = equation if damping == self.damping else equation._replace(anchor=theta)
            correction = self.systems(theta, damped, damping, self._accuracy(size, tolerance))
            self.evaluations += 1
            new = theta + correction.delta
            new_size, unpredicted = read(Misfit, self.programs.misfit(new, equation, correction.predicted))
            if not new_size <= max(ROUNDING * size, CONVERGED * tolerance):  # true of NaN too
                damping *= DAMPING_GROWS
                if damping > LARGEST_DAMPING:
                    place = f"the equation of the implicit step at t = {float(equation.t):.6g}"
                    raise StageFailed(f"no correction lowers the misfit of {place}; {LARGER_MU}")
                continue
            gained = new_size < GAINED * size
            theta, size, damping = new, new_size, self.damping
            small = max(CONVERGED * tolerance, UNPREDICTED * size)
            if size <= CONVERGED * tolerance or unpredicted <= small or not gained:
                break
        else:
            self.cut_short = True
        return theta, size

    def _accuracy(self, size: float, tolerance: float) -> float:
        """Of A delta, relative to it, where the misfit has that size."""
        return min(COARSEST_SOLVE, SOLVE_SHARE * CONVERGED * tolerance / size) if size > 0 else COARSEST_SOLVE

    def _best(self, guesses, equation: Equation):
        sizes = [read(Misfit, self.programs.misfit(guess, equation, equation.target)).size for guess in guesses]
        sizes = [size if np.isfinite(size) else np.inf for size in sizes]
        best = int(np.argmin(sizes))
        return guesses[best], sizes[best]
