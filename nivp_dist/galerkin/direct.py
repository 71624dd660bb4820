"""A direct solve of a positive definite system."""

import jax
import jax.numpy as jnp


def solve_positive(matrix, mu, b):
    """(matrix + mu I)^-1 b by Cholesky, after scaling to a unit diagonal (Jacobi), which tames the
    spread of scales between layers and delays the loss of positive definiteness to smaller mu."""
    shifted = matrix + mu * jnp.eye(len(matrix), dtype=matrix.dtype)
    scale = 1.0 / jnp.sqrt(jnp.diagonal(shifted))
    factor = jnp.linalg.cholesky(scale[:, None] * shifted * scale[None, :])
    y = jax.scipy.linalg.solve_triangular(factor, scale * b, lower=True)
    return scale * jax.scipy.linalg.solve_triangular(factor.T, y, lower=False)
