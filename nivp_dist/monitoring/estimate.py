"""Two estimates of the error of a run that need no reference, from the errors that the run makes itself.

Between two steps the network's field q_N obeys q_t = F[q] + r with the residual r = J v - f that the velocity leaves,
and each step adds its own error d, each fit its misfit. If the equation does not enlarge a small perturbation
relative to the solution, then

    |q_N - q| / |q|  <=  |initial misfit| + int |r| / |q| dt + sum |d| / |q| + sum |misfit of a refit|,

every term relative to the norm of the solution at its own time, or to its floor (``fitting.size_floor``) where that is
larger. This is Gronwall's inequality with a growth factor of one, a **bound**. It holds for advection, for waves in
their energy, and for Fokker-Planck equations in the norm below, where it expresses the decay of the chi-squared
divergence between two solutions. It is too small where perturbations outgrow the solution (instabilities, shocks that
form, a pulse that leaves the domain).

The bound is attained where all contributions point the same way. Those of different steps come from other points and
another J; independent ones add up in the root of their squares. Of 51 runs with a reference the bound was 10 times the
error in the median, and that root 1.6 times. **estimate** is INDEPENDENT times the
root, or the bound where that is smaller: in the median 3 times the error, below it in 6 % of these runs and more than
5 times as large in 37 %, mostly under diffusion, which damps what is wrong at high wavenumbers. The factor was chosen
by 28 runs of the score sheet (estimate over error: 1.0 to 11 for four fifths of them), and held against 23 runs of
problems that a newcomer had written (1.3 to 24).

The norm is that of the error of the problem: L2 over the domain in the balanced units of the outputs; for a field log u
it is the root mean square under u, which is the relative error of u weighted by u.
"""

import math
from typing import NamedTuple

PARTS = ("initial", "residual", "steps", "refits")  # of the bound
# Of contributions that are independent of each other, over the root of their squares (above).
INDEPENDENT = 2.0


class Estimate(NamedTuple):
    """The contributions to the relative error so far, each a sum over the run.

    Attributes:
        initial: misfit of the initial condition. residual: int |J v - f| / |q| dt, on points that the velocities were
            not fitted to. steps: sum of |d| / |q|, d as ``Galerkin.step_norms`` takes it. refits: misfits of the
            accepted refits. squares: the sum of the squares of all single contributions but the initial one.
    """

    initial: float = 0.0
    residual: float = 0.0
    steps: float = 0.0
    refits: float = 0.0
    squares: float = 0.0

    @property
    def bound(self) -> float:
        """The relative error if all contributions add up, and the equation enlarges none."""
        return self.initial + self.residual + self.steps + self.refits

    @property
    def error(self) -> float:
        """The estimated relative error, of contributions that are independent of each other."""
        return min(self.bound, INDEPENDENT * math.sqrt(self.initial**2 + self.squares))

    def after_step(self, h: float, residual: float, step: float) -> "Estimate":
        """The estimate after a step of length h.

        Args:
            residual: |J v - f| / |q| at the start of the step. step: |d| / |q|.
        """
        squares = self.squares + (h * residual) ** 2 + step**2
        return self._replace(residual=self.residual + h * residual, steps=self.steps + step, squares=squares)

    def after_refit(self, misfit: float) -> "Estimate":
        """The estimate after a refit of that relative error was accepted."""
        return self._replace(refits=self.refits + misfit, squares=self.squares + misfit**2)

    def entries(self) -> dict[str, float]:
        """The estimate, the bound and the parts of that by name, for metrics and snapshots."""
        parts = {f"estimate_{part}": getattr(self, part) for part in PARTS}
        return {"estimate": self.error, "estimate_bound": self.bound} | parts
