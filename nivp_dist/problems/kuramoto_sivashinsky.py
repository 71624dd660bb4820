"""The Kuramoto-Sivashinsky equation in one dimension, periodic."""

from functools import lru_cache
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import PeriodicBox, Positive, Problem, derivatives, laplacian
from nivp_dist.problems._spectral import PeriodicSolution


class KuramotoSivashinsky(Problem):
    """Kuramoto-Sivashinsky equation: long waves grow, short ones are damped by the fourth derivative, which is stiff.

    Equation:    u_t = -u_xx - u_xxxx - u u_x
    Domain:      [0, L), periodic
    Initial:     u0 = cos(k x) (1 + sin(k x)), k = 2 pi / L
    Parameters:  L = length. On 8 pi few modes grow; on 32 pi the solution becomes chaotic. There a small perturbation
                 of u0 by the modes 0 to 24, the others being damped, grows relative to u at most 13 times by t = 10,
                 165 times by t = 20 and 16,000 times by t = 50 (singular values of the propagator, computed with the
                 reference): an error of 4e-6 at the start allows 7e-4 at t = 20, and nothing of use from t = 50 on
    Source:      Kassam and Trefethen 2005 (SIAM J. Sci. Comput. 26, 1214), sec. 4: L = 32 pi
    Reference:   Fourier series and ETDRK4 (``_spectral``), to 1e-9
    """

    summary: ClassVar[str] = "Kuramoto-Sivashinsky equation, periodic: stiff by its fourth derivative"
    reference_kind: ClassVar[str] = "Fourier series in space, ETDRK4 in time, to 1e-9"

    length: Positive = 32 * np.pi

    @property
    def domain(self):
        return PeriodicBox(1, 0.0, self.length)

    def initial(self, x):
        return start(x, self.length, jnp)

    def rhs(self, u, x, t):
        value, slope, curvature = derivatives(u, x)
        fourth = laplacian(lambda y: laplacian(u, y), x)
        return -curvature - fourth - value * slope[0]

    def reference(self, x, t):
        return solution(self.length)(x, t)


def start(x, length, xp):
    """u0 at x (..., 1)."""
    phase = 2 * np.pi / length * x[..., 0]
    return xp.cos(phase) * (1 + xp.sin(phase))


@lru_cache(maxsize=2)
def solution(length: float) -> PeriodicSolution:
    flux = lambda u: u**2 / 2  # noqa: E731
    initial = lambda x: start(x, length, np)  # noqa: E731
    return PeriodicSolution(initial, [0.0], [length], -1.0, flux=flux, step=1 / 100, hyperdiffusion=1.0)
