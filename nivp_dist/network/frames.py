"""Whitened coordinates of the density of the points, in which the coefficients of a quadratic form are well determined.

In the network's fixed coordinates xi the monomials 1, xi_i, xi_i xi_j are almost linearly dependent on a density that
is narrow and far from the origin: the condition number of their Gram matrix grows with (distance / width)^4. Then mu,
which is one number for all parameters, suppresses the covariance's part of the velocity first (measured: a moving trap
of width 0.28 at a distance of 6 lost its solution by t = 2 with mu = 1e-9 tr M). So the system is solved in
z = K (xi - mean), with K^T K the inverse of the covariance. A quadratic form of xi is one of z with other coefficients,
which depend linearly on those of xi: the change of coordinates is exact.

The same holds for the first layer of a network on the whole space, whose inputs are these coordinates. When the density
has moved far, the derivatives by that layer's weights are most of the trace of M, and mu grows with it (two packets
carried over 30 of their widths were lost by t = 1.8, when mu had grown 10^5 times). With solver.equal_shares that layer
has a frame too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend.fixed_order import sum_over_devices, sum_over_parts


class Frame(NamedTuple):
    """z = K (xi - mean): mean (d,), matrix K (d, d), lower triangular in the frames of ``fit``."""

    mean: jax.Array
    matrix: jax.Array

    def inverse(self) -> "Frame":
        """The frame that gives xi from z."""
        return Frame(-self.matrix @ self.mean, jnp.linalg.inv(self.matrix))


# The least share of tr M that a layer is scaled from. A layer on which u hardly depends would get a huge scale, with
# which mu no longer penalises changes of its weights.
SMALLEST_SHARE = 1e-5


class Basis(NamedTuple):
    """The basis of the parameters that a system is solved in: frames of quadratic forms, and scales (L,) of all layers.

    With solver.equal_shares the scales are those of ``balanced``, and first layers have frames too; else they are one.

    mu is one number for all parameters, and suits them all only if the derivatives by them are of one size. Those of a
    layer grow with the weights of the others: where two packets had moved far, the head had 99.9 % of tr M, and with
    that mu the residual on fresh points was 8.6e-4; with all layers scaled to the same share it is 8.4e-6.
    """

    frames: tuple[Frame, ...]
    scales: jax.Array

    def inverse(self) -> "Basis":
        """The basis of the inverse change of parameters: the inverse frames, and scales 1 / scales."""
        return Basis(tuple(frame.inverse() for frame in self.frames), 1 / self.scales)


def balanced(traces):
    """Scales (L,) with which every layer has the same share of tr M, from the layers' parts of it, traces (L,)."""
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

    Where the points, or those with mass, are too few for a positive definite covariance: z = xi.
    """
    xi, mass = xi.astype(jnp.float64), mass.astype(jnp.float64)
    total, first = sum_over_devices(sum_over_parts(lambda mass, xi: (jnp.sum(mass), mass @ xi), mass, xi), axis)
    mean = first / total
    offset = xi - mean
    products = sum_over_parts(lambda mass, offset: (mass[:, None] * offset).T @ offset, mass, offset)
    covariance = sum_over_devices(products, axis) / total
    matrix = jnp.linalg.inv(jnp.linalg.cholesky(covariance))
    usable = jnp.all(jnp.isfinite(matrix))
    return Frame(jnp.where(usable, mean, 0.0), jnp.where(usable, matrix, jnp.eye(xi.shape[1])))


def translated(weight, frame: Frame):
    """Coefficients of quadratic or linear forms of xi from those of the same forms of z.

    Args:
        weight: one form in each column. Its rows are those of ``monomials``, or d for a linear form; the constant is
            last.
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
