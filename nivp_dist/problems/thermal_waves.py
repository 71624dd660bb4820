"""The heat equation with walls whose temperature is given and changes, and walls that are cooled."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import Axes, Dimension, NonNegative, Positive, Problem, Robin, laplacian


class ThermalWaves(Problem):
    """A heat wave that crosses a box along its diagonal: mixed Dirichlet and Robin data that depend on time.

    Equation:    u_t = k lap u
    Domain:      [0, 1]^d; u = g on the walls x_i = 0, du/dn + h u = g on the walls x_i = 1
    Solution:    u = exp(-b s) cos(w t - b s), s = (x_1 + ... + x_d) / sqrt(d), b = sqrt(w / 2 k): as the temperature of
                 the ground at depth s under a surface whose temperature oscillates. u0 and all g are those of u
    Parameters:  d = dimension, k = conductivity, w = frequency, h = cooling
    Reference:   exact
    """

    summary: ClassVar[str] = "heat equation in [0, 1]^d, time-dependent Dirichlet data on some walls, Robin on others"
    reference_kind: ClassVar[str] = "exact (plane thermal wave)"
    linear: ClassVar[bool] = True

    dimension: Dimension = 2
    conductivity: Positive = 0.3
    frequency: Positive = 6.283185307179586
    cooling: NonNegative = 2.0

    @property
    def domain(self):
        return Axes(*[Robin(0, 1, at_lower=np.inf, at_upper=self.cooling)] * self.dimension)

    def initial(self, x):
        return self.solution(x, 0.0, jnp)

    def rhs(self, u, x, t):
        return self.conductivity * laplacian(u, x)

    def wall_data(self, x, t, axis, end):
        value, slopes = jax.value_and_grad(self.solution)(x, t, jnp)
        return value if end == "lower" else slopes[axis] + self.cooling * value

    def reference(self, x, t):
        return self.solution(x, t, np)

    def solution(self, x, t, xp):
        """u at x (..., d)."""
        depth = math.sqrt(self.frequency / (2 * self.conductivity) / self.dimension) * xp.sum(x, axis=-1)
        return xp.exp(-depth) * xp.cos(self.frequency * t - depth)
