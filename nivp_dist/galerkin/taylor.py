"""Corrections of higher order: how a nonlinear field continues along a curve of parameters.

A Gauss-Newton correction d_1 solves J d_1 = r for a misfit r. The field at theta + d_1 misses the target by what J
changes along the way, which is the larger part of r as soon as r is small in comparison with u. With the same J and the
same factorisation the curve theta + s d_1 + s^2 d_2 + ... is continued so that the field grows linearly in s:
J d_k = -(coefficient of s^k of the field along the first k - 1 terms). With two terms that is the geodesic acceleration
of Transtrum and Sethna (arXiv 1201.5885).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# The k-th power of the distance h of the points whose differences give a coefficient of order k. What rounding in
# float64 makes of the coefficient is then 1e-9 of the field, and what its differences leave out, O(h^2), is small:
# h = 3e-4 for k = 2, and 4e-2 for k = 5.
SPACING = 1e-7


def curve(solve: Callable, field: Callable, theta, misfit, order: int):
    """The terms d_1 to d_order of a curve along which the field moves straight towards its target: (order, p).

    Args:
        solve: right-hand side (n, m) -> parameters (p,), regularised least squares with J at theta.
        field: theta (p,) -> (n, m). misfit: (n, m), target minus field.
    """
    terms = [solve(misfit)]
    while len(terms) < order:
        terms.append(-solve(coefficient(field, theta, terms)))
    return jnp.stack(terms)


def coefficient(function: Callable, theta, terms: Sequence):
    """The coefficient of s^k in function(theta + sum_{i < k} s^i terms[i - 1]), for k = len(terms) + 1.

    By central differences: derivatives of order k by nested differentiation cost 2^k times the function, and
    those of jax.experimental.jet have no rule inside of `shard_map`.

    Args:
        function: theta (p,) -> an array, in float64. terms: (p,) each.
    """
    k, stacked = len(terms) + 1, jnp.stack(terms)
    nodes, weights = central_differences(k)
    powers = (SPACING ** (1 / k) * nodes[:, None]) ** np.arange(1, k)
    values = jax.lax.map(lambda power: function(theta + power @ stacked), jnp.asarray(powers))
    return jnp.tensordot(jnp.asarray(weights / SPACING), values, 1)


def usable_order(order: int, dtype) -> int:
    """The order of corrections for a network of that dtype: differences are lost in the rounding of float32."""
    return order if np.dtype(dtype) == np.float64 else 1


def central_differences(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (k + 1,) with sum_j weights_j g(nodes_j) = g^(k)(0) / k! + O(h^2), for nodes in units of h."""
    half = (k + 1) // 2
    nodes = np.array([j for j in range(-half, half + 1) if j != 0 or k % 2 == 0], float)
    weights = np.linalg.solve(np.vander(nodes, increasing=True).T, np.eye(k + 1)[k])
    return nodes, weights
