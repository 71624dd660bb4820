"""Factors of the network's output, by which it satisfies boundary conditions and symmetries for all parameters.

Where slopes are prescribed the features have none at that end (``embedding``), so that a function N of them has
dN/dn = 0. A factor w(x) then decides the condition: d(w N)/dn = (dw/dn) N, which is -b (w N) if dw/dn = -b w there.
"""

from typing import cast

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems.domains import Axis, Domain, columns


def factors(domain: Domain, xi) -> list:
    """The factors (n, 1), if any, at points xi (n, d) in units of the domain."""
    found = []
    if walls := domain.axes_of("wall"):
        found.append(jnp.prod(1 - columns(xi, walls) ** 2, axis=-1, keepdims=True))
    return found + [_robin(domain.axes[i], xi[:, i : i + 1]) for i in domain.axes_of("robin")]


def _robin(axis: Axis, xi):
    """w with dw/dn = -b w where b is finite, and 0 where b is inf; positive inside, and about one in the middle."""
    conditions = cast(tuple[float, float], axis.conditions)
    zeros = tuple(b == np.inf for b in conditions)
    lower, upper = (1 + xi) / 2, (1 - xi) / 2
    if all(zeros):
        w = 1 - xi**2
    elif any(zeros):  # no slope at the other end
        rise = lower if zeros[0] else upper
        w = rise * (2 - rise)
    else:
        w = jnp.ones_like(xi)
    for b, near, far in zip(conditions, (lower, upper), (upper, lower)):
        if np.isfinite(b) and b != 0:
            # The bump is zero at both ends. Its slope is one at this end, inwards, and zero at the other.
            bump, strength = 2 * near * far**2, b * axis.scale
            # Both forms have this logarithmic slope. The first is bounded for large b, the second positive for b < 0.
            w = w * ((1 + strength * bump) / (1 + strength / 4) if b > 0 else jnp.exp(strength * bump))
    return w


def odd_factor(axis: Axis, xi):
    """An odd function of xi (n, 1), about the middle of the axis, that keeps the axis' boundary condition.

    An odd solution is this factor times a function of even features.
    """
    if axis.kind == "periodic":
        return jnp.sin(np.pi * xi)
    return jnp.sin(np.pi / 2 * xi) if axis.mirrors else xi
