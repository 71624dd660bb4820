"""The equation of Korteweg and de Vries in one dimension, periodic: two solitons."""

from functools import lru_cache
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import PeriodicBox, Positive, Problem, derivatives, gradient, laplacian
from nivp_dist.problems._spectral import PeriodicSolution

LENGTH = 30.0
FAST_AT, SLOW_AT = -6.0, 0.0
IMAGES = 3  # periods on either side whose solitons are added: the next ones are below 1e-16 for c >= 0.2


class KdV(Problem):
    """Korteweg-de Vries equation: a fast soliton behind a slow one. Its third derivative makes it stiff.

    Equation:    u_t = -6 u u_x - u_xxx
    Domain:      [-15, 15), periodic
    Initial:     u0 = s(x + 6; c1) + s(x; c2), s(y; c) = c / 2 / cosh(sqrt(c) y / 2)^2, summed over the periods
    Parameters:  c1 = fast, c2 = slow: the speeds of the solitons. The fast one is as far as the slow one at
                 t = 6 / (c1 - c2)
    Source:      Drazin and Johnson 1989 (Solitons: an introduction), ch. 4
    Reference:   Fourier series and ETDRK4 (``_spectral``), to 1e-9
    """

    summary: ClassVar[str] = "Korteweg-de Vries equation, two solitons, periodic: stiff by its dispersion"
    reference_kind: ClassVar[str] = "Fourier series in space, ETDRK4 in time, to 1e-9"

    fast: Positive = 1.6
    slow: Positive = 0.7

    @property
    def domain(self):
        return PeriodicBox(1, -LENGTH / 2, LENGTH / 2)

    def initial(self, x):
        return start(x, self.fast, self.slow, jnp)

    def rhs(self, u, x, t):
        value, slope, _ = derivatives(u, x)
        third = laplacian(lambda y: gradient(u, y)[0], x)
        return -6 * value * slope[0] - third

    def reference(self, x, t):
        return solution(self.fast, self.slow)(x, t)


def soliton(y, c, xp):
    """The soliton of speed c at distances y from its middle, and its images."""
    images = LENGTH * np.arange(-IMAGES, IMAGES + 1)
    return xp.sum(c / 2 / xp.cosh(np.sqrt(c) / 2 * (y[..., None] - images)) ** 2, axis=-1)


def start(x, fast, slow, xp):
    """u0 at x (..., 1)."""
    return soliton(x[..., 0] - FAST_AT, fast, xp) + soliton(x[..., 0] - SLOW_AT, slow, xp)


def flux(u):
    return 3 * u**2


@lru_cache(maxsize=2)
def solution(fast: float, slow: float) -> PeriodicSolution:
    initial = lambda x: start(x, fast, slow, np)  # noqa: E731
    box = [-LENGTH / 2], [LENGTH / 2]
    return PeriodicSolution(initial, *box, 0.0, flux=flux, step=1 / 500, dispersion=1.0)
