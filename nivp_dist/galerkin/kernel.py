"""The kernel matrix K = S S^T, S = W^(1/2) J, of all samples, and its Nystrom approximation from some of its columns.

K has the nonzero eigenvalues of M = S^T S. A column of it is a product of factors of the layers, n sum(rows + columns)
operations instead of the 4 n p of a product with M, so that a preconditioner of CG may have a rank of a thousand at the
cost of a few products. The columns are chosen by randomly pivoted Cholesky in blocks (Chen, Epperly, Tropp and Webber
2023, arXiv 2207.06503, sec. 3.6): points drawn in proportion to what is left of the diagonal. Measured with
Jacobians of advection and the wave (p = 4,241 and 2,312): it takes 1.3 times the columns to save the iterations that a
Gaussian sketch of M does, and 8 blocks are as good as 16.

Points lie on their devices, and so do the columns of F^T; everything here is called inside of `shard_map`, by all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.galerkin import nystrom
from nivp_dist.galerkin.vectors import Whole

BLOCKS = 8  # of pivots: within one they do not know of each other
WATCHED = 32  # eigenvalues
ROUNDING = 1e-14  # of the entries of K, taken for positive definite where a block is not by less


class Factor(NamedTuple):
    """K ~ F F^T.

    Attributes:
        rows: F^T (l, n m) of this device's points, output index fastest.
        gram: F^T F (l, l), over all devices.
        left: tr(K - F F^T), over all devices, never negative: K - F F^T is positive semidefinite, and no eigenvalue
            that the approximation lacks is larger.
    """

    rows: jax.Array
    gram: jax.Array
    left: jax.Array


def roots(weights, outputs: int):
    """W^(1/2) by samples: (n m,), zero for padding."""
    return jnp.repeat(jnp.sqrt(weights), outputs)


def gather(leaf, axis: str):
    """(n, ...) of every device as one (k n, ...): a sum of zero-padded shards, exact and replicated for shard_map."""
    shards = jax.lax.axis_size(axis)
    whole = jnp.zeros((shards, *leaf.shape), leaf.dtype).at[jax.lax.axis_index(axis)].set(leaf)
    return jax.lax.psum(whole, axis).reshape(shards * leaf.shape[0], *leaf.shape[1:])


def factor(operator, key, rank: int, axis: str) -> Factor:
    """A Factor of about `rank` columns: those of whole points, in BLOCKS equal blocks.

    Args:
        operator: of this device's points, in float64 (``jacobian.Operator``).
        key: the same on all devices.
    """
    outputs, weights = operator.network.outputs, operator.weights
    root, n = roots(weights, outputs), len(weights)
    size = min(n, -(-rank // (BLOCKS * outputs)))  # points a block
    columns = size * outputs

    def add(state, number):
        rows, diagonal = state
        pivots, own = _draw(jnp.sum(diagonal.reshape(n, outputs), axis=1), jax.random.fold_in(key, number), size, axis)
        chosen = operator.on(_sum_of_own(operator.x, pivots, own, axis), jnp.ones(size))
        factors = chosen.point_factors()
        scale = jnp.repeat(_sum_of_own(jnp.sqrt(weights), pivots, own, axis), outputs)[:, None]
        samples = (pivots[:, None] * outputs + jnp.arange(outputs)).reshape(-1)
        found = jax.lax.psum(jnp.where(jnp.repeat(own, outputs), rows[:, samples], 0.0), axis)  # F^T at the pivots
        block = scale * chosen.kernel(factors) * scale.T - found.T @ found
        new = scale * operator.kernel(factors) * root - found.T @ rows
        shift = ROUNDING * jnp.max(scale**2 * chosen.squares().reshape(-1, 1))
        lower = jnp.linalg.cholesky((block + block.T) / 2 + shift * jnp.eye(columns))
        new = jax.scipy.linalg.solve_triangular(lower, new, lower=True)
        # A block that rounding leaves without a factor holds nothing more: its columns are zero.
        new = jnp.where(jnp.all(jnp.isfinite(lower)), new, 0.0)
        rows = jax.lax.dynamic_update_slice_in_dim(rows, new, number * columns, 0)
        return (rows, jnp.maximum(diagonal - jnp.sum(new**2, axis=0), 0.0)), None

    start = jnp.zeros((BLOCKS * columns, n * outputs)) + 0 * root, root**2 * operator.squares().reshape(-1)
    (rows, diagonal), _ = jax.lax.scan(add, start, jnp.arange(BLOCKS))
    gram, left = jax.lax.psum((rows @ rows.T, jnp.sum(diagonal)), axis)
    return Factor(rows, gram, left)


def preconditioner(factor: Factor, mu, axis: str):
    """r -> (F F^T + mu I)^-1 r for a vector (n m,) of this device's samples (Woodbury)."""
    lower = jnp.linalg.cholesky(factor.gram + mu * jnp.eye(len(factor.gram)))

    def apply(r):
        coefficients = jax.scipy.linalg.cho_solve((lower, True), jax.lax.psum(factor.rows @ r, axis))
        return (r - coefficients @ factor.rows) / mu

    return apply


def spectrum(factor: Factor, key) -> nystrom.Sketch:
    """The largest eigenvalues, for telemetry: vectors of no rows."""
    here = Whole(len(factor.gram), "")
    omega = nystrom.test_matrix(here, key, min(WATCHED, here.size))
    return nystrom.sketch(here, omega, factor.gram @ omega)._replace(vectors=jnp.zeros((0, omega.shape[1])))


def effective_dimension(factor: Factor, mu):
    """tr K (K + mu)^-1 of the approximation: a lower estimate of that of M."""
    lower = jnp.linalg.cholesky(factor.gram + mu * jnp.eye(len(factor.gram)))
    inverse = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(lower)), lower=True)
    return len(lower) - mu * jnp.sum(inverse**2)


def _draw(residual, key, size: int, axis: str):
    """`size` of the points of all devices, without replacement, in proportion to residual (n,): (index on its device,
    whether that is this device), each (size,). By Gumbel's largest numbers (Efraimidis and Spirakis 2006)."""
    device, n = jax.lax.axis_index(axis), len(residual)
    noise = jax.random.gumbel(jax.random.fold_in(key, device), (n,), jnp.float64)
    best, index = jax.lax.top_k(jnp.log(residual) + noise, size)
    chosen = jax.lax.top_k(gather(best, axis), size)[1]
    return gather(index, axis)[chosen], chosen // size == device


def _sum_of_own(leaf, index, own, axis: str):
    """leaf[index] (size, ...) of the device that each is on, for all."""
    mask = own.reshape(-1, *([1] * (leaf.ndim - 1)))
    return jax.lax.psum(jnp.where(mask, leaf[index], 0), axis)
