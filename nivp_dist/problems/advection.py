"""Advection of a narrow pulse along the diagonal of a box."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import Box, Dimension, Positive, Problem, gradient
from nivp_dist.problems._gaussians import PULSE_REACH, PULSE_WIDTH, pulse


class Advection(Problem):
    """u_t = v (u_x1 + ... + u_xd) on [-1, 1]^d, zero on the walls, u0 = exp(-|x|^2 / (2 s^2)) / (60 pi s^2).

    Source: Neural IVP (Finzi et al. 2023, arXiv 2304.14994), d = 2, v = 1, s = 0.05.
    Reference: u0(x + v t 1), exact for the whole space, and for the box until the pulse, 7 s wide, reaches a wall
    (t = 0.65 at v = 1).
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
