"""Factors of the network's output, by which it satisfies boundary conditions and symmetries for all parameters.

Where slopes are prescribed the features have none at that end (``embedding``), so that a function N of them has
dN/dn = 0. A factor w(x) then decides the condition: d(w N)/dn = (dw/dn) N, which is -b (w N) if dw/dn = -b w there.
"""

from typing import cast

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems.axes import Axis
from nivp_dist.problems.domains import Domain, columns


def factors(domain: Domain, xi) -> list:
    """The factors (n, 1), if any, at points xi (n, d) in units of the domain."""
    found = []
    if walls := domain.axes_of("wall"):
        found.append(jnp.prod(1 - columns(xi, walls) ** 2, axis=-1, keepdims=True))
    return found + [_robin(domain.axes[i], xi[:, i : i + 1]) for i in domain.axes_of("robin")]


def _robin(axis: Axis, xi):
    """w with dw/dn = -b w at each end, or w = 0 where b is inf; positive inside.

    It is a product of one factor for each end. With s = b times the half width, the factor (1 + s g) / (1 + s) has the
    slope that b asks for at its end, and no slope at the other, where it is one. It tends to g for large b.
    """
    w = jnp.ones_like(xi)
    for b, r in zip(cast(tuple[float, float], axis.conditions), (1 + xi, 1 - xi)):
        # r is the distance from this end, up to 2. g = r near it; at the other end g = 1, without a slope.
        s, g = b * axis.scale, r * (1 - r / 4)
        if b == np.inf:
            w = w * g
        elif b != 0:
            w = w * (1 + s * g) / (1 + s) if b > 0 else w / (1 - s * g)
    return w


def odd_factor(axis: Axis, xi):
    """An odd function of xi (n, 1), about the middle of the axis, that keeps the axis' boundary condition.

    An odd solution is this factor times a function of even features.
    """
    if axis.kind == "periodic":
        return jnp.sin(np.pi * xi)
    return jnp.sin(np.pi / 2 * xi) if axis.mirrors else xi
