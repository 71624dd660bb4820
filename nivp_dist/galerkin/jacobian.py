"""Products with the Jacobian of the network, from per-layer factors (see ``networks.Network.factors``).

With A_l (n, rows) and D_l (n, k, columns) of every layer cached once per (theta, points),

    J v   = sum_l  rowsum((A_l V_l) * D_l),         J^T r = sum_l  A_l^T (r . D_l),

two matrix products a layer, 4 n p flops for a pair, and memory n * sum(rows + k columns). Nothing is
differentiated again inside a solve. Everything here is local to one device's points: the caller sums.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

BLOCK_ENTRIES = 2**21  # of an explicit block of J: large enough for fast products, small enough for a cache


def apply_factors(layers, factors, v):
    """J v: (n, m) for v (p,)."""
    outputs = max(layer.outputs[1] for layer in layers)
    columns = [0.0] * outputs
    for layer, (a, d) in zip(layers, factors):
        forward = a @ v[layer.start : layer.stop].reshape(layer.rows, layer.columns)
        product = jnp.einsum("nb,nkb->nk", forward, d)
        for position, k in enumerate(range(*layer.outputs)):
            columns[k] = columns[k] + product[:, position]
    return jnp.stack(columns, axis=-1)


def apply_transpose(layers, factors, r):
    """J^T r: (p,) for r (n, m)."""
    parts = [
        a.T @ jnp.einsum("nk,nkb->nb", r[:, layer.outputs[0] : layer.outputs[1]], d)
        for layer, (a, d) in zip(layers, factors)
    ]
    return jnp.concatenate([part.reshape(-1) for part in parts])


def explicit(layers, factors):
    """J as a matrix: (n * m, p), output index fastest."""
    outputs = max(layer.outputs[1] for layer in layers)
    blocks = []
    for layer, (a, d) in zip(layers, factors):
        block = (a[:, None, :, None] * d[:, :, None, :]).reshape(len(a), d.shape[1], -1)
        padding = (layer.outputs[0], outputs - layer.outputs[1])
        blocks.append(jnp.pad(block, ((0, 0), padding, (0, 0))) if any(padding) else block)
    return jnp.concatenate(blocks, axis=-1).reshape(len(factors[0][0]) * outputs, -1)


def blocked_sum(function, arrays, rows: int):
    """The sum of function(block) over blocks of `rows` leading entries of the arrays (a pytree).

    The last block is filled up with zeros, so function must give zero on rows whose weight is zero.
    """
    n = len(jax.tree.leaves(arrays)[0])
    count = -(-n // rows)
    if count == 1:
        return function(arrays)

    def split(leaf):
        padded = jnp.pad(leaf, [(0, count * rows - n)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(count, rows, *leaf.shape[1:])

    blocks = jax.tree.map(split, arrays)
    first = function(jax.tree.map(lambda leaf: leaf[0], blocks))

    def add(total, block):
        return jax.tree.map(jnp.add, total, function(block)), None

    return jax.lax.scan(add, first, jax.tree.map(lambda leaf: leaf[1:], blocks))[0]


class Operator(NamedTuple):
    """J and M = J^T W J at (theta, x) on this device's points.

    Attributes:
        network: static. theta (p,). x (n, d). weights (n,): non-negative, sum over all devices one.
        factors: of all the points, or None when they are recomputed chunk by chunk to bound memory.
        chunk: points held at once when factors is None.
        dtype: of the products; sums over chunks and results are float64.
    """

    network: Any
    theta: Any
    x: Any
    weights: Any
    factors: Any
    chunk: int
    dtype: Any

    @classmethod
    def build(cls, network, theta, x, weights, chunk: int = 0, dtype=jnp.float64) -> "Operator":
        dtype = jnp.dtype(dtype)
        cached = chunk == 0 or chunk >= len(x)
        factors = _cast(network.factors(theta, x)[1], dtype) if cached else None
        return cls(network, theta, x, weights, factors, chunk, dtype)

    def over_chunks(self, function, *arrays):
        """Sum over chunks of function(factors, *arrays of the chunk)."""
        if self.factors is not None:
            return function(self.factors, *arrays)

        def chunk(block):
            x, *rest = block
            return function(_cast(self.network.factors(self.theta, x)[1], self.dtype), *rest)

        return blocked_sum(chunk, (self.x, *arrays), self.chunk)

    def apply(self, v):
        """J v: (n, m) float64 for v (p,)."""
        v = v.astype(self.dtype)
        if self.factors is not None:
            return apply_factors(self.network.layers, self.factors, v).astype(jnp.float64)

        def one(x):
            factors = _cast(self.network.factors(self.theta, x[None])[1], self.dtype)
            return apply_factors(self.network.layers, factors, v)[0]

        return jax.lax.map(one, self.x, batch_size=self.chunk).astype(jnp.float64)

    def transpose(self, r):
        """J^T W r: (p,) float64 for r (n, m)."""

        def chunk(factors, weights, r):
            weighted = (weights[:, None] * r).astype(self.dtype)
            return apply_transpose(self.network.layers, factors, weighted).astype(jnp.float64)

        return self.over_chunks(chunk, self.weights, r)

    def normal(self, v):
        """J^T W J v: (p,) float64 for v (p,)."""
        v = v.astype(self.dtype)

        def chunk(factors, weights):
            jv = apply_factors(self.network.layers, factors, v)
            weighted = weights[:, None].astype(self.dtype) * jv
            return apply_transpose(self.network.layers, factors, weighted).astype(jnp.float64)

        return self.over_chunks(chunk, self.weights)

    def normal_columns(self, columns):
        """J^T W J V: (p, l) float64 for V (p, l), by explicit blocks of J: two true matrix products."""
        columns = columns.astype(self.dtype)
        return self._sum_of_blocks(lambda scaled: (scaled.T @ (scaled @ columns)).astype(jnp.float64))

    def matrix(self):
        """J^T W J: (p, p) float64, by explicit blocks of J."""
        return self._sum_of_blocks(lambda scaled: (scaled.T @ scaled).astype(jnp.float64))

    def trace(self):
        """tr(J^T W J), exact: |A_i|^2 |D_ik|^2 summed."""

        def chunk(factors, weights):
            squares = sum(
                jnp.sum(a.astype(jnp.float64) ** 2, -1) * jnp.sum(d.astype(jnp.float64) ** 2, (1, 2))
                for a, d in factors
            )
            return jnp.sum(weights * squares)

        return self.over_chunks(chunk, self.weights)

    def _sum_of_blocks(self, function):
        layers, outputs = self.network.layers, self.network.outputs
        rows = max(1, BLOCK_ENTRIES // (self.network.size * outputs))

        def block(arrays):
            factors, weights = arrays
            root = jnp.repeat(jnp.sqrt(weights), outputs).astype(self.dtype)
            return function(root[:, None] * explicit(layers, factors))

        return self.over_chunks(lambda factors, weights: blocked_sum(block, (factors, weights), rows), self.weights)


def _cast(factors, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), factors)
