"""The kernel matrix K = S S^T, S = W^(1/2) J, of all samples, and its Nystrom approximation from some of its columns.

K has the nonzero eigenvalues of M = S^T S. A column of it is a product of factors of the layers, n sum(rows + columns)
operations instead of the 4 n p of a product with M, so that a preconditioner of CG may have a rank of a thousand at the
cost of a few products. The columns are chosen by randomly pivoted Cholesky in blocks (Chen, Epperly, Tropp and Webber
2023, arXiv 2207.06503, sec. 3.6): points drawn in proportion to what is left of the diagonal. Measured with
Jacobians of advection and the wave (p = 4,241 and 2,312): it takes 1.3 to 1.8 times the columns to save the iterations
that a Gaussian sketch of M does, and 8 blocks are as good as 16.

Memory: rank x n m numbers of this device's n points, whatever the chunk, and about three times that while it is made.

Points lie on their devices, and so do the columns of F^T; everything here is called inside of `shard_map`, by all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys

# Measured with the Jacobians above: with all points as candidates 10 % of the iterations are saved, in twice the time.
CANDIDATES = 4  # for each point that is chosen
PIVOT_BLOCKS = 8  # measured above; pivots of one block are drawn independently of each other
ROUNDING = 4 * float(np.finfo(np.float64).eps)  # relative error of an entry of K, a sum of a few products


class Factor(NamedTuple):
    """K ~ F F^T.

    Attributes:
        rows: F^T (l, n m) of this device's points, output index fastest.
        gram: F^T F (l, l), over all devices.
        remaining_trace: tr(K - F F^T), over all devices. K - F F^T is positive semidefinite, so that this is not
            negative, and bounds the eigenvalues that the approximation lacks.
    """

    rows: jax.Array
    gram: jax.Array
    remaining_trace: jax.Array


def operations(network, rank: int) -> float:
    """Operations of ``factor`` for each sample: columns of K, their elimination, and F^T F."""
    return rank * (2.0 * sum(layer.rows + layer.columns for layer in network.layers) + 3.0 * rank)


def repeated_operations(sides: int, rank: int) -> float:
    """Operations of ``factor`` that every device repeats: it chooses columns among candidates, and factorises.

    sides: the sum of the rows and columns of all layers.
    """
    return CANDIDATES * rank**2 * (2.0 * sides + 2.0 * rank) + rank**3


def roots(weights, outputs: int):
    """The diagonal of W^(1/2), one entry a sample: (n m,), zero for padding."""
    return jnp.repeat(jnp.sqrt(weights), outputs)


def unweighted(alpha, root, outputs: int):
    """W^(-1/2) alpha as (n, m): ``Operator.transpose`` multiplies by W, so that it makes S^T alpha of this."""
    return (alpha / jnp.where(root > 0, root, 1.0)).reshape(-1, outputs)


def gather(leaf, axis: str):
    """The arrays (n, ...) of k devices as one (k n, ...), which shard_map knows to be replicated."""
    return jax.lax.all_gather(leaf, axis, tiled=True, to="invarying")


def factor(operator, key, rank: int, axis: str) -> Factor:
    """A Factor of about `rank` columns: those of all outputs at as many points as that takes.

    Args:
        operator: of this device's points, in float64 (``jacobian.Operator``).
        key: the same on all devices.
    """
    outputs, weights = operator.network.outputs, operator.weights
    root, squares = roots(weights, outputs), operator.squared_row_norms().reshape(-1)
    x, w = _pivots(operator, jnp.sum((root**2 * squares).reshape(-1, outputs), axis=1), key, -(-rank // outputs), axis)
    chosen, scale = operator.at_points(x, w), roots(w, outputs)[:, None]
    factors = chosen.point_factors()
    core = scale * chosen.kernel(factors) * scale.T
    # The rounding error of the factorisation. F F^T loses n / l times as much, which is far below mu.
    shift = len(core) * ROUNDING * jnp.max(jnp.diagonal(core))
    lower = jnp.linalg.cholesky((core + core.T) / 2 + shift * jnp.eye(len(core)))
    rows = jax.scipy.linalg.solve_triangular(lower, scale * operator.kernel(factors) * root, lower=True)
    gram, remaining = jax.lax.psum((rows @ rows.T, jnp.sum(root**2 * squares) - jnp.sum(rows**2)), axis)
    return Factor(rows, gram, jnp.maximum(remaining, 0.0))


def _pivots(operator, diagonal, key, number: int, axis: str):
    """Points x (number, d) and their weights, the same on all devices, by randomly pivoted Cholesky of candidates.

    Args:
        diagonal: (n,), of K, summed over the outputs of a point.
    """
    count = min(CANDIDATES * number, len(diagonal) * jax.lax.axis_size(axis))
    x, weights = _candidates(operator, diagonal, key, count, axis)
    chosen = _pivoted_cholesky(operator.at_points(x, weights), key, min(number, count))
    return x[chosen], weights[chosen]


def _candidates(operator, diagonal, key, count: int, axis: str):
    """`count` points of all devices, x (count, d) and weights, drawn in proportion to the diagonal of K."""
    here = jax.lax.axis_index(axis)
    own, scores = _draw_without_replacement(
        diagonal, random_keys.device_pivots_key(key, here), min(count, len(diagonal))
    )
    device, place = jnp.divmod(jax.lax.top_k(gather(scores, axis), count)[1], len(own))
    # A sum in which one device has each point: `count` of them are sent, not as many from every device.
    mine = operator.x[own[place]], operator.weights[own[place]]
    return jax.lax.psum(
        [jnp.where(jnp.expand_dims(device == here, range(1, leaf.ndim)), leaf, 0) for leaf in mine], axis
    )


def _pivoted_cholesky(candidates, key, number: int):
    """Indices (about `number`,) of candidates, chosen block by block in proportion to what the blocks before leave of
    the diagonal of their kernel. An index beyond the last one stands for none."""
    count, outputs = len(candidates.weights), candidates.network.outputs
    root, factors = roots(candidates.weights, outputs), candidates.point_factors()
    rounds = min(PIVOT_BLOCKS, number)
    size = -(-number // rounds)  # points a block
    columns = size * outputs

    def add(state, block):
        rows, diagonal, chosen = state
        remaining = jnp.sum(diagonal.reshape(count, outputs), axis=1).at[chosen].set(0.0)
        pivots = _draw_without_replacement(remaining, random_keys.block_pivots_key(key, block), size)[0]
        samples = (pivots[:, None] * outputs + jnp.arange(outputs)).reshape(-1)
        new = candidates.kernel(jax.tree.map(lambda leaf: leaf[pivots], factors))
        new = root[samples][:, None] * new * root - rows[:, samples].T @ rows
        new = _eliminate(new, samples, start[1])
        rows = jax.lax.dynamic_update_slice_in_dim(rows, new, block * columns, 0)
        chosen = jax.lax.dynamic_update_slice_in_dim(chosen, pivots, block * size, 0)
        return (rows, jnp.maximum(diagonal - jnp.sum(new**2, axis=0), 0.0), chosen), None

    start = jnp.zeros((rounds * columns, count * outputs)), root**2 * candidates.squared_row_norms().reshape(-1)
    start += (jnp.full(rounds * size, count, jnp.int32),)
    return jax.lax.scan(add, start, jnp.arange(rounds))[0][2]


def _eliminate(rows, samples, diagonal):
    """C^-1 rows, C the Cholesky factor of the block rows[:, samples], shifted by the rounding error of a matrix with
    that diagonal. Zeros where the block is not positive definite even so: it holds rounding errors only."""
    core = rows[:, samples]
    shift = len(core) * ROUNDING * jnp.max(diagonal)
    lower = jnp.linalg.cholesky((core + core.T) / 2 + shift * jnp.eye(len(core)))
    rows = jax.scipy.linalg.solve_triangular(lower, rows, lower=True)
    return jnp.where(jnp.all(jnp.isfinite(lower)), rows, 0.0)


def cholesky(gram, mu):
    """The lower Cholesky factor of F^T F + mu I: (l, l)."""
    return jnp.linalg.cholesky(gram + mu * jnp.eye(len(gram)))


def preconditioner(factor: Factor, mu, axis: str, lower=None):
    """r -> (F F^T + mu I)^-1 r for a vector (n m,) of this device's samples (Woodbury).

    lower: from ``cholesky`` with that mu; None: it is made.
    """
    lower = cholesky(factor.gram, mu) if lower is None else lower

    def apply(r):
        coefficients = jax.scipy.linalg.cho_solve((lower, True), jax.lax.psum(factor.rows @ r, axis))
        return (r - coefficients @ factor.rows) / mu

    return apply


def _draw_without_replacement(shares, key, size: int):
    """`size` of the indices of shares (n,), in proportion to them, and their scores (Efraimidis and Spirakis 2006).

    The scores are logarithms with Gumbel noise, of which the largest are chosen; the largest scores of several draws
    together are a draw from all of them.
    """
    scores, index = jax.lax.top_k(jnp.log(shares) + jax.random.gumbel(key, shares.shape, jnp.float64), size)
    return index, scores
