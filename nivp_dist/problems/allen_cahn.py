"""The Allen-Cahn equation in one dimension, periodic."""

from functools import lru_cache
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import PeriodicBox, Positive, Problem, derivatives
from nivp_dist.problems._spectral import PeriodicSolution


class AllenCahn(Problem):
    """Allen-Cahn equation in one dimension.

    Equation:    u_t = D u_xx + u - u^3
    Domain:      [0, 2 pi), periodic
    Initial:     u0 = tanh(2 sin x) / 3 - exp(-23.5 (x - pi/2)^2) + exp(-27 (x - 4.2)^2) + exp(-38 (x - 5.4)^2);
                 it is periodic up to a jump of 1e-13
    Parameters:  D = diffusion
    Source:      Randomized Sparse Neural Galerkin schemes (Berman, Peherstorfer 2023, arXiv 2310.04867, sec. 4.1):
                 D = 5e-3, to t = 4. Its errors are relative L2 over space and time; the best is 1.66e-5.
    Reference:   Fourier series and ETDRK4 (``_spectral``), to 1e-10
    """

    summary: ClassVar[str] = "Allen-Cahn equation in one dimension, periodic"
    reference_kind: ClassVar[str] = "Fourier series in space, ETDRK4 in time, to 1e-10"

    diffusion: Positive = 5e-3

    @property
    def domain(self):
        return PeriodicBox(1, 0.0, 2 * np.pi)

    def initial(self, x):
        return start(x, jnp)

    def rhs(self, u, x, t):
        value, _, curvature = derivatives(u, x)
        return self.diffusion * curvature + value - value**3

    def reference(self, x, t):
        return solution(self.diffusion)(x, t)


def start(x, xp):
    """u0 at x (..., 1)."""
    x = x[..., 0]
    bumps = ((-1.0, 23.5, np.pi / 2), (1.0, 27.0, 4.2), (1.0, 38.0, 5.4))
    return xp.tanh(2 * xp.sin(x)) / 3 + sum(sign * xp.exp(-rate * (x - centre) ** 2) for sign, rate, centre in bumps)


@lru_cache(maxsize=4)
def solution(diffusion: float) -> PeriodicSolution:
    reaction = lambda u: u - u**3  # noqa: E731
    return PeriodicSolution(lambda x: start(x, np), [0.0], [2 * np.pi], diffusion, reaction, step=1 / 400)
