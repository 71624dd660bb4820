"""The heat equation in an insulated box: zero Neumann data."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from scipy.special import ive

from nivp_dist.problems import Axes, Dimension, Neumann, Positive, Problem, laplacian


class HeatNeumann(Problem):
    """Heat equation in an insulated box, from a hot corner.

    Equation:    u_t = k lap u
    Domain:      [0, 1]^d, zero normal derivative on the walls
    Initial:     u0 = exp(a sum_i (cos(pi x_i) - 1))
    Parameters:  d = dimension, k = conductivity, a = sharpness; the corner has a width of 1 / (pi sqrt(a))
    Reference:   the product over the coordinates of one cosine series, whose coefficients are modified Bessel
                 functions: exp(a cos s) = I_0(a) + 2 sum_n I_n(a) cos(n s). Exact to rounding
    """

    summary: ClassVar[str] = "heat equation in an insulated box [0, 1]^d (zero Neumann data)"
    reference_kind: ClassVar[str] = "cosine series, a product of 1-d ones, to rounding"
    linear: ClassVar[bool] = True

    dimension: Dimension = 2
    conductivity: Positive = 0.05
    sharpness: Positive = 4.0

    @property
    def domain(self):
        return Axes(*[Neumann(0, 1)] * self.dimension)

    def initial(self, x):
        return jnp.exp(self.sharpness * jnp.sum(jnp.cos(jnp.pi * x) - 1))

    def rhs(self, u, x, t):
        return self.conductivity * laplacian(u, x)

    def reference(self, x, t):
        n = np.arange(20 + int(4 * self.sharpness))
        coefficients = np.where(n == 0, 1.0, 2.0) * ive(n, self.sharpness)
        decay = np.exp(-self.conductivity * (np.pi * n) ** 2 * t)
        return np.prod(np.cos(np.pi * x[..., None] * n) @ (coefficients * decay), axis=-1)

    def invariants(self, u, x):
        return {"heat": u(x)}
