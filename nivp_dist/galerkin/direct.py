"""A direct solve of a positive definite system."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def solve_positive(matrix, mu, b):
    """(matrix + mu I)^-1 b for a positive semidefinite matrix (n, n) and b (n,), as ``factored`` does it."""
    return factored(matrix, mu)(b)


def factored(matrix, mu) -> Callable:
    """b (n,) -> (matrix + mu I)^-1 b by Cholesky, factorised once, for a positive semidefinite matrix (n, n).

    The matrix is scaled to a unit diagonal (Jacobi) first. That removes the differences of scale between layers, so
    that rounding destroys positive definiteness only at a smaller mu. The result is NaN where it does.
    """
    shifted = matrix + mu * jnp.eye(len(matrix), dtype=matrix.dtype)
    scale = 1.0 / jnp.sqrt(jnp.diagonal(shifted))
    factor = jnp.linalg.cholesky(scale[:, None] * shifted * scale[None, :])

    def solve(b):
        y = jax.scipy.linalg.solve_triangular(factor, scale * b, lower=True)
        return scale * jax.scipy.linalg.solve_triangular(factor.T, y, lower=False)

    return solve
