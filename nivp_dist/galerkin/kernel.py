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
from nivp_dist.galerkin import nystrom
from nivp_dist.galerkin.vectors import Whole

CANDIDATES = 4  # points for each one that is chosen: all of them save a tenth of the iterations, for twice the time
BLOCKS = 8  # of pivots: within one they do not know of each other
ENTRIES = 2**27  # of F^T on a device, at most: 1 GiB
WATCHED = 32  # eigenvalues
ROUNDING = 4 * float(np.finfo(np.float64).eps)


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


def operations(network, rank: int) -> float:
    """Of a Factor, a sample: columns of K, their elimination, and F^T F."""
    return rank * (2.0 * sum(layer.rows + layer.columns for layer in network.layers) + 3.0 * rank)


def roots(weights, outputs: int):
    """W^(1/2) by samples: (n m,), zero for padding."""
    return jnp.repeat(jnp.sqrt(weights), outputs)


def gather(leaf, axis: str):
    """(n, ...) of every device as one (k n, ...): a sum of zero-padded shards, exact and replicated for shard_map."""
    shards = jax.lax.axis_size(axis)
    whole = jnp.zeros((shards, *leaf.shape), leaf.dtype).at[jax.lax.axis_index(axis)].set(leaf)
    return jax.lax.psum(whole, axis).reshape(shards * leaf.shape[0], *leaf.shape[1:])


def factor(operator, key, rank: int, axis: str) -> Factor:
    """A Factor of about `rank` columns: those of all outputs at as many points as that takes.

    Args:
        operator: of this device's points, in float64 (``jacobian.Operator``).
        key: the same on all devices.
    """
    outputs, weights = operator.network.outputs, operator.weights
    root, squares = roots(weights, outputs), operator.squares().reshape(-1)
    x, w = _pivots(operator, jnp.sum((root**2 * squares).reshape(-1, outputs), axis=1), key, -(-rank // outputs), axis)
    chosen, scale = operator.on(x, w), roots(w, outputs)[:, None]
    factors = chosen.point_factors()
    core = scale * chosen.kernel(factors) * scale.T
    # As large as the rounding of its factorisation: what it takes off F F^T is n / l times that, and far below mu.
    shift = len(core) * ROUNDING * jnp.max(jnp.diagonal(core))
    lower = jnp.linalg.cholesky((core + core.T) / 2 + shift * jnp.eye(len(core)))
    rows = jax.scipy.linalg.solve_triangular(lower, scale * operator.kernel(factors) * root, lower=True)
    gram, left = jax.lax.psum((rows @ rows.T, jnp.sum(root**2 * squares) - jnp.sum(rows**2)), axis)
    return Factor(rows, gram, jnp.maximum(left, 0.0))


def _pivots(operator, diagonal, key, number: int, axis: str):
    """Points x (number, d) and their weights, the same on all devices. diagonal (n,): of K, summed over outputs.

    From CANDIDATES times as many, drawn in proportion to the diagonal, by randomly pivoted Cholesky.
    """
    outputs, devices = operator.network.outputs, jax.lax.axis_size(axis)
    count = min(CANDIDATES * number, len(diagonal) * devices)
    here = jax.lax.axis_index(axis)
    own, scores = _draw(diagonal, random_keys.device_pivots_key(key, here), min(count, len(diagonal)))
    device, place = jnp.divmod(jax.lax.top_k(gather(scores, axis), count)[1], len(own))
    # A sum in which one device has each point: `count` of them are sent, not as many from every device.
    found = operator.x[own[place]], operator.weights[own[place]]
    x, weights = jax.lax.psum(
        [jnp.where(jnp.expand_dims(device == here, range(1, leaf.ndim)), leaf, 0) for leaf in found], axis
    )
    candidates, root = operator.on(x, weights), roots(weights, outputs)
    factors = candidates.point_factors()
    number = min(number, count)
    rounds = min(BLOCKS, number)
    size = -(-number // rounds)  # points a block
    columns = size * outputs

    def add(state, block):
        rows, diagonal, chosen = state
        left = jnp.sum(diagonal.reshape(count, outputs), axis=1)
        pivots = _draw(left.at[chosen].set(0.0), random_keys.block_pivots_key(key, block, devices), size)[0]
        samples = (pivots[:, None] * outputs + jnp.arange(outputs)).reshape(-1)
        new = candidates.kernel(jax.tree.map(lambda leaf: leaf[pivots], factors))
        new = root[samples][:, None] * new * root - rows[:, samples].T @ rows
        core = new[:, samples]
        shift = len(core) * ROUNDING * jnp.max(start[1])
        lower = jnp.linalg.cholesky((core + core.T) / 2 + shift * jnp.eye(columns))
        new = jax.scipy.linalg.solve_triangular(lower, new, lower=True)
        # A block that rounding leaves without a factor holds nothing more.
        new = jnp.where(jnp.all(jnp.isfinite(lower)), new, 0.0)
        rows = jax.lax.dynamic_update_slice_in_dim(rows, new, block * columns, 0)
        chosen = jax.lax.dynamic_update_slice_in_dim(chosen, pivots, block * size, 0)
        return (rows, jnp.maximum(diagonal - jnp.sum(new**2, axis=0), 0.0), chosen), None

    start = jnp.zeros((rounds * columns, count * outputs)), root**2 * candidates.squares().reshape(-1)
    # An index beyond the last one is none.
    start += (jnp.full(rounds * size, count, jnp.int32),)
    chosen = jax.lax.scan(add, start, jnp.arange(rounds))[0][2]
    return x[chosen], weights[chosen]


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


def _draw(shares, key, size: int):
    """`size` of the indices of shares (n,), without replacement, in proportion to them, and their scores: the largest
    of the logarithms with Gumbel's noise (Efraimidis and Spirakis 2006); of several draws the largest are one again."""
    scores, index = jax.lax.top_k(jnp.log(shares) + jax.random.gumbel(key, shares.shape, jnp.float64), size)
    return index, scores
