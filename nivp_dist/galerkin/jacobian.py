"""J and M = J^T W J at (theta, points), as products that never differentiate again.

The factors of the layers are cached once per (theta, points) in blocks that a cache holds (``blocks``). Everything
here is local to one device's points: the caller sums.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.galerkin import blocks

# Measured on one core (512 KiB of L2), products against unblocked ones: 0.7 to 0.8 of the time at widths 32, 64 and 100
# with blocks of 512 in float64. In float32 blocks of 2,048 take as long as those of 1,024 on one core, 0.9 to 1.05, and
# 0.75 to 0.95 of it on two, which share a block. Where a layer's matrix does not stay in the cache beside them, it is
# read again for every block, and longer ones are better. Explicit blocks of J in a sketch: 256 points best.
SHORT, LONG = {8: 512, 4: 2048}, {8: 2048, 4: 4096}  # by the bytes of a number
SHORT_EXPLICIT = 256
CACHED_MATRIX = 2**15  # numbers in the largest layer's matrix
BLOCK_ENTRIES = 2**24  # at most, of an explicit block of J
GRAM_ENTRIES = 2**22  # at most, of the products of factors that the matrix is made of

# Bits of the mantissa of what is multiplied, and what the hardware is asked for: for products that may be coarse.
COARSE = {"tensorfloat32": (10, "tensorfloat32"), "bfloat16": (7, "default")}


class Operator(NamedTuple):
    """J and M = J^T W J at (theta, x) on this device's points.

    Memory: ``product_bytes``, most of it the factors of the points held at once, n of the device or `chunk`. For
    columns and the matrix an explicit block of J or of products of factors, at most BLOCK_ENTRIES or GRAM_ENTRIES
    numbers whatever n, and what is asked for: p numbers for a product, p x l for l columns, p^2 for the matrix.

    Attributes:
        network: static. theta (p,). x (n, d). weights (n,): non-negative, sum over all devices one.
        factors: of all the points, as stacked blocks: A (count, rows, B) and D (count, k, columns, B) a layer; or
            None when they are recomputed chunk by chunk to bound memory.
        chunk: points held at once when factors is None.
        dtype: of the products; sums over blocks and results are float64.
        basis: of the parameters (``frames.Basis``), or None: those of the network.
        coarse: None, or of COARSE: how the matrix products with one vector are rounded, dtype being float32.
    """

    network: Any
    theta: Any
    x: Any
    weights: Any
    factors: Any
    chunk: int
    dtype: Any
    basis: Any = None
    coarse: str | None = None

    @classmethod
    def build(cls, network, theta, x, weights, chunk: int = 0, precision=jnp.float64, basis=None) -> "Operator":
        """precision: a dtype, or of COARSE."""
        coarse = precision if precision in COARSE else None
        dtype = jnp.dtype(jnp.float32 if coarse else precision)
        if chunk and chunk < len(x):
            return cls(network, theta, x, weights, None, chunk, dtype, basis, coarse)

        def block(x):
            return _cast(blocks.lay_out(network.factors(theta, x, basis)[1]), dtype)

        stacked = blocks.stack(x, block_size(network.layers, len(x), dtype), "edge")
        return cls(network, theta, x, weights, blocks.each(block, stacked), 0, dtype, basis, coarse)

    def on(self, x, weights) -> "Operator":
        """The same at other points, all held at once."""
        return Operator.build(self.network, self.theta, x, weights, 0, self.coarse or self.dtype, self.basis)

    @classmethod
    def of_factors(cls, network, weights, factors, dtype=jnp.float64) -> "Operator":
        """From factors as ``Network.factors`` gives them, those of some layers perhaps: network is what has them."""
        size = block_size(network.layers, len(weights), dtype)
        factors = jax.tree.map(lambda leaf: jnp.moveaxis(blocks.stack(leaf, size), 1, -1), factors)
        return cls(network, None, None, weights, _cast(factors, dtype), 0, jnp.dtype(dtype))

    # Products -------------------------------------------------------------------------------------

    def apply(self, v):
        """J v: (n, m) float64 for v (p,)."""
        matrices, multiply = blocks.split(self.network.layers, v.astype(self.dtype)), self._multiply
        term = lambda block: blocks.apply(self.network.layers, block, matrices, multiply)  # noqa: E731
        return self._points(term).T.astype(jnp.float64)

    def transpose(self, r):
        """J^T W r: (p,) float64 for r (n, m)."""

        def term(block, weights, r):
            return blocks.transpose(self.network.layers, block, (weights * r).astype(self.dtype), self._multiply)

        return blocks.join(self._total(term, r))

    def normal(self, v):
        """J^T W J v: (p,) float64 for v (p,)."""
        layers, multiply = self.network.layers, self._multiply
        matrices = blocks.split(layers, v.astype(self.dtype))

        def term(block, weights):
            jv = blocks.apply(layers, block, matrices, multiply)
            return blocks.transpose(layers, block, weights.astype(self.dtype) * jv, multiply)

        return blocks.join(self._total(term))

    def normal_columns(self, columns):
        """J^T W J V: (p, l) float64 for V (p, l), by explicit blocks of J: two true matrix products."""
        columns = columns.astype(self.dtype)

        def term(block, weights):
            transposed = blocks.explicit(self.network.layers, block)
            weights = jnp.tile(weights.astype(self.dtype), self.network.outputs)
            return transposed @ (weights[:, None] * (transposed.T @ columns))

        size = BLOCK_ENTRIES // (self.network.size * self.network.outputs)
        return self._total(term, size=min(SHORT_EXPLICIT, size) if jax.default_backend() == "cpu" else size)

    def matrix(self):
        """J^T W J: (p, p) float64."""
        return self.assemble(self.matrix_parts())

    def matrix_parts(self):
        """What the matrix is assembled from, a third to a half of its numbers: sum these over devices."""

        def term(block, weights):
            return blocks.gram(self.network.layers, block, weights.astype(self.dtype))

        most = max(GRAM_ENTRIES, self.network.size**2 // 8)  # no more than a fraction of the result itself
        return self._total(term, size=most // blocks.gram_entries(self.network.layers))

    def assemble(self, parts):
        """The matrix from its parts."""
        return blocks.assemble(self.network.layers, parts)

    def kernel(self, pivots):
        """J J^T between other points and these: (b m, n m), output index fastest.

        pivots: factors of b points, as ``point_factors`` gives them.
        """
        values = self._points(lambda block: blocks.kernel(self.network.layers, block, pivots))
        return values.swapaxes(2, 3).reshape(-1, len(self.weights) * self.network.outputs)

    def squares(self):
        """|row of J|^2, the diagonal of J J^T: (n, m)."""
        return self._points(lambda block: blocks.squares(self.network.layers, block)).T

    def traces(self):
        """tr(J^T W J) by layers, exact: (L,)."""
        return self._total(blocks.traces)

    def point_factors(self):
        """A (n, rows) and D (n, k, columns) of each layer, of all points whatever the chunk."""
        whole = self.on(self.x, self.weights) if self.factors is None else self

        def unstack(leaf):
            return jnp.moveaxis(leaf, -1, 1).reshape(-1, *leaf.shape[1:-1])[: len(self.weights)]

        return jax.tree.map(unstack, whole.factors)

    # Blocks ---------------------------------------------------------------------------------------

    @property
    def _multiply(self):
        return partial(_coarse, self.coarse) if self.coarse else jnp.matmul

    def _points(self, term):
        """term(block) (..., B) of all blocks, as (..., n)."""
        if self.factors is None:
            stacked = blocks.stack(self.x, self.chunk, "edge")
            values = blocks.each(lambda x: self.on(x, jnp.ones(len(x)))._points(term), stacked)
        else:
            values = blocks.each(term, self.factors)
        values = jnp.moveaxis(values, 0, -2)
        return values.reshape(*values.shape[:-2], -1)[..., : len(self.weights)]

    def _total(self, term, *arrays, size: int | None = None):
        """The sum of term(block, weights (B,), *arrays (m, B)) in float64, over blocks of at most `size` points.

        Weights are zero where a block is filled up, so that a term must be zero where its weights are.
        """
        if self.factors is None:

            def chunk(arrays):
                x, weights, *rest = arrays
                return self.on(x, weights)._total(term, *rest, size=size)

            given = (self.x, self.weights, *arrays)
            return blocks.total(chunk, jax.tree.map(lambda leaf: blocks.stack(leaf, self.chunk), given))
        length = jax.tree.leaves(self.factors)[0].shape[-1]
        stacked = (self.factors, blocks.stack(self.weights, length))
        stacked += tuple(jnp.moveaxis(blocks.stack(leaf, length), 1, -1) for leaf in arrays)
        float64 = lambda block: jax.tree.map(lambda leaf: leaf.astype(jnp.float64), term(*block))  # noqa: E731
        return blocks.total(float64, blocks.refine(stacked, max(1, length if size is None else size)))


def factor_bytes(network, points: int, dtype) -> int:
    """points x (rows + outputs fed x columns) numbers a layer."""
    numbers = sum(layer.rows + (layer.outputs[1] - layer.outputs[0]) * layer.columns for layer in network.layers)
    return points * jnp.dtype(dtype).itemsize * numbers


def product_bytes(network, points: int, chunk: int, dtype) -> int:
    """What a product takes beside theta, points and result:

    held (rows + columns) + block (columns + widest columns) numbers, summed over the layers: the factors of the
        points held, and J v and weighted factors of one block of them;
    in chunks, where factors are made within a product: held x widest columns while they are laid out, and
        points (d + 1) float64, the points and weights cut up.
    """
    held = min(points, chunk) if chunk else points
    columns = [(layer.outputs[1] - layer.outputs[0]) * layer.columns for layer in network.layers]
    numbers = block_size(network.layers, held, dtype) * (sum(columns) + max(columns))
    cut = chunk and chunk < points
    if cut:
        numbers += held * max(columns)
    made = jnp.dtype(dtype).itemsize * numbers + (8 * points * (network.dimension + 1) if cut else 0)
    return factor_bytes(network, held, dtype) + made


def block_size(layers, n: int, dtype) -> int:
    """Points a block: the same number in each of as few as the cache allows."""
    if jax.default_backend() != "cpu":
        return n
    cached = max(layer.rows * layer.columns for layer in layers) <= CACHED_MATRIX
    most = (SHORT if cached else LONG)[jnp.dtype(dtype).itemsize]
    count = -(-n // most) if n > 2 * most else 1
    return -(-n // count)


def _coarse(name, a, b):
    """a @ b of float32 matrices as coarser units form it: rounded before, summed in float32. Where there are no such
    units the numbers are the same."""
    bits, hardware = COARSE[name]
    a, b = (jax.lax.reduce_precision(each, exponent_bits=8, mantissa_bits=bits) for each in (a, b))
    return jnp.matmul(a, b, precision=hardware)


def _cast(factors, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), factors)
