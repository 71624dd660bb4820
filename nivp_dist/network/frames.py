"""Coordinates in which forms of the coordinates are well determined: those of the density under which they are seen.

In the network's fixed coordinates xi the monomials 1, xi_i, xi_i xi_j are all alike for a density that is narrow and
far from the origin: the condition of their Gram matrix grows with (distance / width)^4, and mu, which is one number for
all parameters, takes the covariance out of the velocity first (measured: a moving trap of width 0.28 at a distance of 6
lost its solution by t = 2 with mu = 1e-9 tr M). So the system is solved in z = K (xi - mean), K^T K the inverse of
the covariance, where the same quadratic form has other coefficients; these are linear in those of xi, and exact.

The same holds for the first layer of a network on the whole space, whose inputs are these coordinates: where the
density has gone far, its derivatives are most of the trace of M, and mu grows with it (two packets carried over
30 of their widths were lost by t = 1.8, mu having grown 10^5 times). It has a frame with solver.equal_shares.
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


SMALLEST_SHARE = 1e-5  # of tr M, that a layer counts with: what has no part in u must not be moved at no cost


class Basis(NamedTuple):
    """In what the parameters are solved for: frames of quadratic forms, and scales (L,) of all layers.

    With solver.equal_shares the scales are those of ``balanced``, and first layers have frames too; else they are one.

    mu is one number for all parameters, and says nothing unless their derivatives are alike. Those of a layer grow with
    the weights of the others: where two packets had gone far, the head had 99.9 % of tr M, and mu left a residual of
    8.6e-4 on fresh points, where it is 8.4e-6 with all layers scaled to the same share.
    """

    frames: tuple[Frame, ...]
    scales: jax.Array

    def inverse(self) -> "Basis":
        """What undoes it, for parameters."""
        return Basis(tuple(frame.inverse() for frame in self.frames), 1 / self.scales)


def balanced(traces):
    """Scales (L,) with which every layer has the same share of tr M, from their parts of it (L,)."""
    total = jnp.sum(traces)
    share = traces / jnp.where(total > 0, total, 1.0)
    return jnp.sqrt(1 / len(traces) / jnp.maximum(share, SMALLEST_SHARE))


def monomials(xi):
    """(n, d + d (d + 1) / 2): xi_i, then xi_i xi_j for i <= j."""
    rows, columns = np.triu_indices(xi.shape[-1])
    return jnp.concatenate([xi, xi[:, rows] * xi[:, columns]], axis=-1)


def affine(features):
    """(n, k + 1): the inputs of an affine layer on features (n, k)."""
    return jnp.concatenate([features, jnp.ones_like(features[..., :1])], axis=-1)


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
    """Coefficients of a quadratic or linear form of z as those of the same form of xi: one a column.

    Rows as in ``monomials``, or d for a linear form, and the constant last.
    """
    d = len(frame.mean)
    if len(weight) == d + 1:
        linear = frame.matrix.T @ weight[:-1]
        return jnp.concatenate([linear, weight[-1:] - frame.mean[None] @ linear])
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
