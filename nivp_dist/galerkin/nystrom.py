"""Randomised Nystrom preconditioner of M + mu I (Frangella, Tropp, Udell 2021, arXiv 2110.02820, alg. 2.1).

How (p, l) matrices lie on the devices is decided by ``vectors``: whole on each, or a part of the rows on each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.galerkin.vectors import Whole


class Sketch(NamedTuple):
    """M ~ U diag(eigenvalues) U^T.

    Attributes:
        vectors: U (p, l), orthonormal. eigenvalues: (l,), descending, never negative.
    """

    vectors: jax.Array
    eigenvalues: jax.Array


def test_matrix(vectors: Whole, key, rank: int):
    """The test matrix Omega (p, l): Gaussian, orthonormalised."""
    return vectors.qr(vectors.normal(key, rank))[0]


def sketch(vectors: Whole, omega, product, precision=jnp.float64) -> Sketch:
    """The Nystrom approximation from Y = M Omega (p, l), Y formed in `precision` and stored in float64.

    M is shifted by the rounding error of Y before the Cholesky factorisation, and the shift is subtracted from the
    eigenvalues afterwards. The singular values of B (p, l) are those of its triangular factor:
    p l^2 operations, fewer than an SVD of B takes.
    """
    entries = product.reshape(-1)
    shift = jnp.finfo(precision).eps * jnp.sqrt(vectors.dots((entries, entries))[0])
    shifted = product + shift * omega
    core = vectors.inner(omega, shifted)
    factor = jnp.linalg.cholesky((core + core.T) / 2)
    b = jax.scipy.linalg.solve_triangular(factor, shifted.T, lower=True).T
    q, r = vectors.qr(b)
    left, singular, _ = jnp.linalg.svd(r, full_matrices=False)
    return Sketch(q @ left, jnp.maximum(singular**2 - shift, 0.0))


def preconditioner(vectors: Whole, sketch: Sketch, mu):
    """r -> P^-1 r, P^-1 = (lambda_l + mu) U (Lambda + mu)^-1 U^T + (I - U U^T) (ibid., eq. 5.3)."""
    scaling = (sketch.eigenvalues[-1] + mu) / (sketch.eigenvalues + mu)

    def apply(r):
        coefficients = vectors.inner(sketch.vectors, r)
        return r + sketch.vectors @ ((scaling - 1.0) * coefficients)

    return apply
