"""Three equations in two dimensions, periodic, from one initial condition: heat, Allen-Cahn, Burgers."""

from functools import lru_cache
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import PeriodicBox, Positive, Problem, derivatives, laplacian
from nivp_dist.problems._spectral import PeriodicSolution


class PeriodicHeat(Problem):
    """Heat equation in two dimensions.

    Equation:    u_t = D lap u
    Domain:      [0, 2 pi)^2, periodic
    Initial:     u0 = 0.04 cosh(3 sin x1) sinh(sin x2)
    Parameters:  D = diffusion
    Source:      TENG (Chen et al. 2024, arXiv 2404.10771): D = 0.1, to t = 4
    Reference:   Fourier series, exact to rounding
    """

    summary: ClassVar[str] = "heat equation in two dimensions, periodic"
    reference_kind: ClassVar[str] = "Fourier series, to rounding"

    diffusion: Positive = 0.1

    @property
    def domain(self):
        return PeriodicBox(2, 0.0, 2 * np.pi)

    def initial(self, x):
        return start(x, jnp)

    def rhs(self, u, x, t):
        return self.diffusion * laplacian(u, x)

    def reference(self, x, t):
        return heat_solution(self.diffusion)(x, t)


class PeriodicAllenCahn(PeriodicHeat):
    """Allen-Cahn equation in two dimensions.

    Equation:    u_t = D lap u + u - u^3
    Domain:      [0, 2 pi)^2, periodic
    Initial:     u0 = 0.04 cosh(3 sin x1) sinh(sin x2)
    Parameters:  D = diffusion
    Source:      TENG (Chen et al. 2024, arXiv 2404.10771): D = 0.005, to t = 4
    Reference:   Fourier series and ETDRK4 (``_spectral``), to 1e-10
    """

    summary: ClassVar[str] = "Allen-Cahn equation in two dimensions, periodic"
    reference_kind: ClassVar[str] = "Fourier series in space, ETDRK4 in time, to 1e-10"

    diffusion: Positive = 0.005

    def rhs(self, u, x, t):
        value, _, curvature = derivatives(u, x)
        return self.diffusion * curvature + value - value**3

    def reference(self, x, t):
        return allen_cahn_solution(self.diffusion)(x, t)


class PeriodicBurgers(PeriodicHeat):
    """Burgers' equation in two dimensions.

    Equation:    u_t = D lap u - u (u_x1 + u_x2)
    Domain:      [0, 2 pi)^2, periodic
    Initial:     u0 = 0.04 cosh(3 sin x1) sinh(sin x2)
    Parameters:  D = diffusion
    Source:      TENG (Chen et al. 2024, arXiv 2404.10771): D = 0.01, to t = 4, when shocks have formed
    Reference:   Fourier series and ETDRK4 (``_spectral``), to 1e-10; to t = 4 it takes half a minute, once a process
    """

    summary: ClassVar[str] = "Burgers' equation in two dimensions, periodic"
    reference_kind: ClassVar[str] = "Fourier series in space, ETDRK4 in time, to 1e-10"

    diffusion: Positive = 0.01

    def rhs(self, u, x, t):
        value, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - value * jnp.sum(slope)

    def reference(self, x, t):
        return burgers_solution(self.diffusion)(x, t)


def start(x, xp):
    """u0 at x (..., 2)."""
    return 0.04 * xp.cosh(3 * xp.sin(x[..., 0])) * xp.sinh(xp.sin(x[..., 1]))


# u0 has period pi in x1, and these equations keep it: half the modes are enough.
_PERIOD = ([0.0, 0.0], [np.pi, 2 * np.pi])


@lru_cache(maxsize=2)
def heat_solution(diffusion: float) -> PeriodicSolution:
    return PeriodicSolution(lambda x: start(x, np), *_PERIOD, diffusion)


@lru_cache(maxsize=2)
def allen_cahn_solution(diffusion: float) -> PeriodicSolution:
    return PeriodicSolution(lambda x: start(x, np), *_PERIOD, diffusion, reaction=lambda u: u - u**3, step=1 / 100)


@lru_cache(maxsize=2)
def burgers_solution(diffusion: float) -> PeriodicSolution:
    return PeriodicSolution(lambda x: start(x, np), *_PERIOD, diffusion, flux=lambda u: u**2 / 2, step=1 / 400)
