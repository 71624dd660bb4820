"""Advection of a narrow pulse along the diagonal of a box."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import Box, Dimension, Positive, Problem, gradient
from nivp_dist.problems._gaussians import PULSE_REACH, PULSE_WIDTH, pulse


class Advection(Problem):
    """Advection along the diagonal of a box.

    Equation:    u_t = v (u_x1 + ... + u_xd)
    Domain:      [-1, 1]^d, u = 0 on the walls
    Initial:     u0 = exp(-|x|^2 / (2 s^2)) / (60 pi s^2)
    Parameters:  d = dimension, v = velocity, s = width
    Source:      Neural IVP (Finzi et al. 2023, arXiv 2304.14994): d = 2, v = 1, s = 0.05
    Reference:   u0(x + v t (1, ..., 1)). It is exact for the whole space, and for the box until the pulse, taken to be
                 7 s wide, reaches a wall (t = 0.65 with the source's parameters).
    """

    summary: ClassVar[str] = "advection of a pulse along the diagonal, box [-1, 1]^d"
    reference_kind: ClassVar[str] = "exact (translation), until the pulse reaches a wall"
    linear: ClassVar[bool] = True

    dimension: Dimension = 2
    velocity: float = 1.0
    width: Positive = PULSE_WIDTH

    @property
    def domain(self):
        return Box(self.dimension)

    def initial(self, x):
        return pulse(x, self.width, jnp)

    def rhs(self, u, x, t):
        return self.velocity * jnp.sum(gradient(u, x))

    def invariants(self, u, x):
        return {"mass": u(x), "square": u(x) ** 2}  # until the pulse reaches a wall

    @property
    def reference_until(self):
        speed = abs(self.velocity)
        return (1 - PULSE_REACH * self.width) / speed if speed else np.inf

    def reference(self, x, t):
        return pulse(x + self.velocity * t, self.width, np)
