"""Scalar waves around a black hole, in Schwarzschild's and in Kerr and Schild's coordinates."""

from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from nivp_dist.problems import Box, Positive, Problem
from nivp_dist.problems._gaussians import PULSE_REACH, PULSE_WIDTH, pulse
from nivp_dist.problems._schwarzschild import solution

HOLE = -2.0  # the x_1 coordinate of the hole, which lies on that axis


class WaveMaps(Problem):
    """box_g u = 0 on [-1, 1]^3, zero on the walls, with a hole of mass M at (-2, 0, 0), as a system (u, u_t).

    With y = x - hole, r = |y|, n = y / r and H = 2 M / r, the metric is, in Cartesian coordinates,

        schwarzschild  -(1 - H) dt^2 + (delta_ij + H / (1 - H) n_i n_j) dx^i dx^j, as published,
        kerr_schild    -dt^2 + delta_ij dx^i dx^j + H (dt + n_i dx^i)^2, in whose time infalling light passes the
                       horizon.

    Both have determinant -1 and an inverse with g^ij = delta_ij - H n_i n_j; g^00 = -1 / (1 - H), g^0i = 0 in the
    first and g^00 = -(1 + H), g^0i = H n_i in the second. So box_g u = d_mu(g^mu,nu d_nu u) = 0 is, with
    L u = d_i(g^ij d_j u) = lap u - H n_i n_j u_ij - H / r n.grad u, as div(H n) = H / r,

        schwarzschild  u_tt = (1 - H) L u,
        kerr_schild    u_tt = (L u + 2 H n.grad u_t + H / r u_t) / (1 + H).

    The horizon r = 2 M touches the box at (-1, 0, 0) if M = 1/2. There the published metric is singular, but the
    equation is not: it degenerates to u_tt = 0, and its coefficients are bounded in the box. This is why it is written
    as above, and not with the inverse of the metric. In Kerr and Schild's coordinates it is regular there.

    Data: u0 = exp(-|x|^2 / (2 s^2)) / (60 pi s^2), u_t = 0.
    Source: Neural IVP (Finzi et al. 2023, arXiv 2304.14994): M = 1/2, schwarzschild, to t = 0.36.
    Reference: fourth-order differences on two grids in (x_1, distance from that axis), extrapolated: 4e-6 at
    t = 0.36. It has no walls, and is valid until the pulse, 7 s wide, reaches one; speeds are at most 1.
    """

    summary: ClassVar[str] = "waves around a black hole, first-order system (u, u_t), box [-1, 1]^3"
    reference_kind: ClassVar[str] = "4th-order differences, extrapolated to 4e-6, until the pulse reaches a wall"
    outputs: ClassVar[int] = 2
    output_names: ClassVar[tuple[str, ...]] = ("u", "u_t")
    dimension: ClassVar[int] = 3
    even: ClassVar[tuple[int, ...]] = (1, 2)  # the hole is on the first axis

    coordinates: Literal["schwarzschild", "kerr_schild"] = "schwarzschild"
    mass: Annotated[float, Field(ge=0, le=0.5)] = 0.5  # beyond 1/2 a part of the box is inside of the horizon
    width: Positive = PULSE_WIDTH

    @property
    def domain(self):
        return Box(self.dimension)

    @property
    def reference_until(self):
        return 1 - PULSE_REACH * self.width

    def initial(self, x):
        displacement = pulse(x, self.width, jnp)
        return jnp.stack([displacement, jnp.zeros_like(displacement)])

    def rhs(self, u, x, t):
        y = x - jnp.asarray([HOLE, 0.0, 0.0], x.dtype)
        r = jnp.sqrt(jnp.sum(y**2))
        n, strength = y / r, 2 * self.mass / r

        def second(direction):
            slope = lambda z: jax.jvp(lambda z: u(z)[0], (z,), (direction,))[1]  # noqa: E731
            return jax.jvp(slope, (x,), (direction,))[1]

        (_, velocity), (slope, velocity_slope) = jax.jvp(u, (x,), (n,))
        # The Laplacian along three axes and the second derivative along n, in one pass.
        straight = jax.vmap(second)(jnp.concatenate([jnp.eye(3, dtype=x.dtype), n[None]]))
        waves = jnp.sum(straight[:3]) - strength * straight[3] - strength / r * slope
        if self.coordinates == "schwarzschild":
            acceleration = (1 - strength) * waves
        else:
            acceleration = (waves + 2 * strength * velocity_slope + strength / r * velocity) / (1 + strength)
        return jnp.stack([velocity, acceleration])

    def reference(self, x, t):
        return solution(self.coordinates, self.mass, HOLE, self.width, float(t))(np.asarray(x))
