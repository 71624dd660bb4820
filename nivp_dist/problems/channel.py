"""A substance in the flow through a channel: periodic along it, given concentrations on the walls."""

from functools import lru_cache
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev
from scipy.linalg import expm
from scipy.special import ive

from nivp_dist.problems import Axes, Periodic, Positive, Problem, Wall, derivatives

LARGEST_MODE = 24  # of the Fourier series along the channel; its coefficient is 1e-25 of the first
DEGREE = 40  # of the polynomials across it


class Channel(Problem):
    """Advection and diffusion in a channel, carried by Poiseuille flow, between a wall that absorbs and one that emits.

    Equation:    u_t = -U (1 - x2^2) u_x1 + D lap u
    Domain:      [0, 2 pi) x [-1, 1], periodic along the channel, u = 0 at x2 = -1 and u = h at x2 = 1
    Initial:     u0 = exp(2 (cos(x1) - 1)) cos(pi x2 / 2) + h (1 + x2) / 2
    Parameters:  U = speed, in the middle of the channel; D = diffusion; h = wall, 0 where both absorb
    Reference:   h (1 + x2) / 2, which is steady, and the solution for h = 0: Fourier series along the channel; for each
                 mode polynomials of degree 40 across it, by collocation at Chebyshev points, and the exponential of
                 their matrix. Exact to 1e-12 for the default parameters
    """

    summary: ClassVar[str] = "advection and diffusion in a channel, concentrations given on its walls (Poiseuille flow)"
    reference_kind: ClassVar[str] = "Fourier series along, Chebyshev collocation across, to 1e-12"
    linear: ClassVar[bool] = True

    speed: Positive = 1.0
    diffusion: Positive = 0.05
    wall: float = 0.5

    @property
    def domain(self):
        return Axes(Periodic(0, 2 * np.pi), Wall(-1, 1))

    def initial(self, x):
        return jnp.exp(2 * (jnp.cos(x[0]) - 1)) * jnp.cos(jnp.pi / 2 * x[1]) + self.wall * (1 + x[1]) / 2

    def wall_data(self, x, t, axis, end):
        return self.wall if end == "upper" else 0.0

    def rhs(self, u, x, t):
        _, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - self.speed * (1 - x[1] ** 2) * slope[0]

    def reference(self, x, t):
        modes = np.arange(LARGEST_MODE + 1)
        profiles = chebyshev.chebvander(x[:, 1], DEGREE) @ _coefficients(self.speed, self.diffusion, t)
        waves = np.exp(1j * x[:, :1] * modes) * np.where(modes == 0, 1.0, 2.0) * ive(modes, 2.0)
        return np.sum(waves * profiles, axis=1).real + self.wall * (1 + x[:, 1]) / 2


@lru_cache(maxsize=8)
def _coefficients(speed: float, diffusion: float, t: float) -> np.ndarray:
    """Chebyshev coefficients (DEGREE + 1, LARGEST_MODE + 1) of the profile of every mode across the channel."""
    y = np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)
    to_coefficients = np.linalg.inv(chebyshev.chebvander(y, DEGREE))
    second = np.stack([chebyshev.chebval(y, chebyshev.chebder(column, 2)) for column in to_coefficients.T], axis=1)
    inner, start = slice(1, -1), np.cos(np.pi / 2 * y)
    profiles = np.zeros((DEGREE + 1, LARGEST_MODE + 1), complex)
    for k in range(LARGEST_MODE + 1):
        generator = diffusion * (second - k**2 * np.eye(DEGREE + 1)) - 1j * k * speed * np.diag(1 - y**2)
        profiles[inner, k] = expm(t * generator[inner, inner]) @ start[inner]
    return to_coefficients @ profiles
