"""Differential operators on functions of one point, for writing right-hand sides.

u maps a point x of shape (d,) to a scalar or to (m,). All of them are forward mode: no graph of
the network is kept, and the Laplacian never forms a Hessian.
"""

import jax
import jax.numpy as jnp


def gradient(u, x):
    """grad u at x: (d,) for scalar u, (m, d) for u of m components."""
    return jax.jacfwd(u)(x)


def laplacian(u, x):
    """Sum of the second derivatives of u at x, of the shape of u(x)."""

    def second(direction):
        slope = lambda y: jax.jvp(u, (y,), (direction,))[1]  # noqa: E731
        return jax.jvp(slope, (x,), (direction,))[1]

    return jnp.sum(jax.vmap(second)(jnp.eye(x.size, dtype=x.dtype)), axis=0)


def divergence(field, x):
    """div of a vector field x -> (d,) at x: a scalar."""
    return jnp.trace(jax.jacfwd(field)(x))
