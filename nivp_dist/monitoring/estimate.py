"""An estimate of the error of a run that needs no reference: the sum of the errors that the run makes itself.

Between two steps the network's field q_N obeys q_t = F[q] + r with the residual r = J v - f that the velocity leaves,
and each step adds its own error d, each fit its misfit. If the equation does not enlarge a small perturbation
relative to the solution, then

    |q_N - q| / |q|  <=  |initial misfit| + int |r| / |q| dt + sum |d| / |q| + sum |misfit of a refit|,

every term relative to the norm of the solution at its own time, or to its floor (``fitting.size_floor``) where that is
larger. This is Gronwall's inequality with a growth factor of
one. It holds for advection, for waves in their energy, and for Fokker-Planck equations in the norm below, where it
expresses the decay of the chi-squared divergence between two solutions. The estimate is too small where perturbations
outgrow the solution (instabilities, shocks that form, a pulse that leaves the domain); it is too large where the errors
of many steps cancel or decay, as under diffusion.

The norm is that of the error of the problem: L2 over the domain in the balanced units of the outputs; for a field log u
it is the root mean square under u, which is the relative error of u weighted by u.
"""

from typing import NamedTuple


class Estimate(NamedTuple):
    """The contributions to the relative error so far, each a sum over the run.

    Attributes:
        initial: misfit of the initial condition. residual: int |J v - f| / |q| dt, on points that the velocities were
            not fitted to. steps: sum of |d| / |q|, d as ``Galerkin.step_norms`` takes it. refits: misfits of the
            accepted refits.
    """

    initial: float = 0.0
    residual: float = 0.0
    steps: float = 0.0
    refits: float = 0.0

    @property
    def total(self) -> float:
        """The estimated relative error."""
        return sum(self)

    def after_step(self, h: float, residual: float, step: float) -> "Estimate":
        """The estimate after a step of length h.

        Args:
            residual: |J v - f| / |q| at the start of the step. step: |d| / |q|.
        """
        return self._replace(residual=self.residual + h * residual, steps=self.steps + step)

    def entries(self) -> dict[str, float]:
        """The total and its parts by name, for metrics and snapshots."""
        return {"estimate": self.total} | {f"estimate_{part}": value for part, value in self._asdict().items()}
