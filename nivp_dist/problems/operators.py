"""Differential operators on functions of one point, for writing right-hand sides.

u maps a point x (d,) to a scalar or to (m,). All operators use forward mode: no intermediate values of the network are
stored, and second derivatives take one pass that does not form a Hessian (``forward_laplacian``). Where an equation has
several derivatives, compute them by one call: ``derivatives`` costs as much as ``laplacian`` alone.
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
    """u, grad u and lap u at x in one pass: (), (d,), () for scalar u; (m,), (m, d), (m,) for u of m components."""
    value, jacobian, curvature = propagate(u, x)
    return value, jnp.moveaxis(jacobian, 0, -1), curvature


def generator(u, x, drift, noise):
    """b . grad u + tr(B B^T Hess u) / 2 at x in one pass, of the shape of u(x).

    Args:
        drift: b (d,).
        noise: B (d, k). Zeros in a numpy array save work; those in a jax array are not seen.

    It is the generator of the process dx = b dt + B dW: by Ito's formula u(x) has this drift along its paths.
    """
    return propagate(u, x, drift, noise / np.sqrt(2))[2]


def to_complex(pair):
    """The complex number, or array (...), of a pair (2, ...) of real and imaginary part.

    A complex unknown psi is a problem with outputs = 2. ``derivatives`` act on pairs, and are complex numbers by this
    function: psi, psi_x, lap psi = map(to_complex, derivatives(u, x)).
    """
    return pair[0] + 1j * pair[1]


def to_pair(z):
    """The pair (2, ...) of the real and imaginary part of z (...), the inverse of ``to_complex``."""
    return jnp.stack([jnp.real(z), jnp.imag(z)])


def divergence(field, x):
    """The divergence of a vector field, a function x (d,) -> (d,), at x: a scalar."""
    return jnp.trace(jax.jacfwd(field)(x))
