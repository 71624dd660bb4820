"""Differential operators on functions of one point, for writing right-hand sides.

u maps a point x of shape (d,) to a scalar or to (m,). All of them are forward mode: no graph of the network is
kept, and second derivatives take one pass that never forms a Hessian (``forward_laplacian``). Ask for all that an
equation needs at once: ``derivatives`` costs what ``laplacian`` alone does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.problems.forward_laplacian import propagate


def gradient(u, x):
    """grad u at x: (d,) for scalar u, (m, d) for u of m components."""
    return jax.jacfwd(u)(x)


def laplacian(u, x):
    """Sum of the second derivatives of u at x, of the shape of u(x)."""
    return propagate(u, x)[2]


def derivatives(u, x):
    """u, grad u and lap u at x in one pass: (), (d,), () for scalar u, (m,), (m, d), (m,) for m components."""
    value, jacobian, curvature = propagate(u, x)
    return value, jnp.moveaxis(jacobian, 0, -1), curvature


def generator(u, x, drift, noise):
    """b . grad u + tr(B B^T Hess u) / 2 at x in one pass, of the shape of u(x).

    Args:
        drift: b (d,). noise: B (d, k); as a numpy array, so that zeros in it save work.

    It is the generator of dx = b dt + B dW: by Ito's formula the change of u along a path has this drift.
    """
    return propagate(u, x, drift, noise / np.sqrt(2))[2]


def divergence(field, x):
    """div of a vector field x -> (d,) at x: a scalar."""
    return jnp.trace(jax.jacfwd(field)(x))
