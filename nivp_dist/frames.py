"""Coordinates in which a quadratic form is well determined: those of the density under which it is seen.

In the network's fixed coordinates xi the monomials 1, xi_i, xi_i xi_j are all alike for a density that is narrow and
far from the origin: the condition of their Gram matrix grows with (distance / width)^4, and mu, which is one number for
all parameters, takes the covariance out of the velocity first (measured: a moving trap of width 0.28 at a distance of 6
lost its solution by t = 2 with mu = 1e-9 tr M). So the system is solved in z = K (xi - mean), K^T K the inverse of
the covariance, where the same quadratic form has other coefficients; these are linear in those of xi, and exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Frame(NamedTuple):
    """z = K (xi - mean): mean (d,), matrix K (d, d), lower triangular."""

    mean: jax.Array
    matrix: jax.Array

    def inverse(self) -> "Frame":
        """xi as coordinates of the same kind, of z."""
        return Frame(-self.matrix @ self.mean, jnp.linalg.inv(self.matrix))


def monomials(xi):
    """(n, d + d (d + 1) / 2): xi_i, then xi_i xi_j for i <= j."""
    rows, columns = np.triu_indices(xi.shape[-1])
    return jnp.concatenate([xi, xi[:, rows] * xi[:, columns]], axis=-1)


def fit(xi, mass, axis: str) -> Frame:
    """The frame of a density: mean and covariance of points xi (n, d) with weights mass (n,), summed over devices.

    The unit frame where the points are too few, or the mass on them, to have a covariance.
    """
    xi, mass = xi.astype(jnp.float64), mass.astype(jnp.float64)
    total, first = jax.lax.psum((jnp.sum(mass), mass @ xi), axis)
    mean = first / total
    offset = xi - mean
    covariance = jax.lax.psum((mass[:, None] * offset).T @ offset, axis) / total
    matrix = jnp.linalg.inv(jnp.linalg.cholesky(covariance))
    usable = jnp.all(jnp.isfinite(matrix))
    return Frame(jnp.where(usable, mean, 0.0), jnp.where(usable, matrix, jnp.eye(xi.shape[1])))


def translated(weight, frame: Frame):
    """Coefficients of a quadratic form of z, (1 + d + d (d + 1) / 2, m), as those of the same form of xi.

    Rows as in ``monomials``, the constant last.
    """
    d = len(frame.mean)
    rows, columns = np.triu_indices(d)
    halves = np.where(rows == columns, 1.0, 0.5)

    def one(column):
        linear, quadratic, constant = column[:d], halves * column[d:-1], column[-1]
        form = jnp.zeros((d, d)).at[rows, columns].set(quadratic).at[columns, rows].set(quadratic)
        form, linear = frame.matrix.T @ form @ frame.matrix, frame.matrix.T @ linear
        turned = form @ frame.mean
        constant = constant - linear @ frame.mean + turned @ frame.mean
        return jnp.concatenate([linear - 2 * turned, form[rows, columns] / halves, constant[None]])

    return jax.vmap(one, 1, 1)(weight)
