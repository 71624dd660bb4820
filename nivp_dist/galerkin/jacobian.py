"""J and M = J^T W J at (theta, points), as products that never differentiate again.

The factors of the layers are cached once per (theta, points) in blocks that a cache holds (``blocks``). Everything
here is local to one device's points: the caller sums.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.backend import point_blocks
from nivp_dist.backend.fixed_order import map_parts, sum_over_parts
from nivp_dist.galerkin import blocks

# Points in a block on a CPU, by the bytes of a number. Measured on one core (512 KiB of L2): products in blocks of 512
# take 0.7 to 0.8 of the time of unblocked ones in float64 (widths 32, 64 and 100). In float32 blocks of 2,048 take 0.9
# to 1.05 of the time of those of 1,024 on one core, and 0.75 to 0.95 of it on two, which share a block. A layer's
# matrix of more than CACHED_MATRIX numbers does not stay in the cache beside a block and is read again for every one:
# longer blocks are better there. Explicit blocks of J in a sketch: 256 points were best.
SHORT_BLOCK, LONG_BLOCK = {8: 512, 4: 2048}, {8: 2048, 4: 4096}
EXPLICIT_BLOCK = 256
CACHED_MATRIX = 2**15
# They bound memory: the numbers of an explicit block of J (128 MiB), of a block of a sketch on a GPU (4 GiB: p = 9e6 at
# rank 128 takes 62 blocks for 65,536 points), and of a block of products of factors (32 MiB).
BLOCK_ENTRIES = 2**24
GPU_BLOCK_ENTRIES = 2**29
GRAM_ENTRIES = 2**22

# Coarse products: the bits of the mantissa that factors are rounded to, and the precision that XLA is asked for.
COARSE = {"tensorfloat32": (10, "tensorfloat32"), "bfloat16": (7, "default")}


class Operator(NamedTuple):
    """J and M = J^T W J at (theta, x) on this device's points.

    Memory: ``product_bytes``, most of it the factors of the points held at once (all of the device, or `chunk`).
    Columns and the matrix need an explicit block of J or of products of factors too, at most BLOCK_ENTRIES or
    GRAM_ENTRIES numbers whatever n is. Results are p numbers for a product, p x l for l columns, p^2 for the matrix.

    Attributes:
        network: its ``layers``, ``outputs`` and ``size`` are read, and ``factors`` called. It is static.
        theta: (p,). x: (n, d). weights: (n,), non-negative; their sum over all devices is one.
        factors: of all the points, as stacked blocks: A (count, rows, B) and D (count, k, columns, B) for each layer;
            None where they are recomputed chunk by chunk to bound memory.
        chunk: points held at once where factors is None.
        dtype: of the products; sums over blocks and results are float64.
        basis: of the parameters (``frames.Basis``); None: that of the network's own parameters.
        coarse: None, or a key of COARSE: how factors of matrix products with one vector are rounded; dtype is float32.
        platform: of the devices, "cpu" or "gpu": the blocks depend on it. The default backend may be another one.
        parts: into which the points are divided, each with blocks of its own (``fixed_order``); 0: they are not.
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
    platform: str = "cpu"
    parts: int = 0

    @classmethod
    def build(
        cls, network, theta, x, weights, chunk=0, precision=jnp.float64, basis=None, platform="cpu", parts=0
    ) -> "Operator":
        """The operator at theta (p,), x (n, d), weights (n,).

        Args:
            chunk: points held at once; 0: all of them. precision: a dtype or a key of COARSE.
        """
        coarse = precision if precision in COARSE else None
        dtype = jnp.dtype(jnp.float32 if coarse else precision)
        if chunk and chunk < len(x):
            chunk = min(chunk, len(x) // max(parts, 1))
            return cls(network, theta, x, weights, None, chunk, dtype, basis, coarse, platform, parts)

        def block(x):
            return _cast(blocks.lay_out(network.factors(theta, x, basis)[1]), dtype)

        def stacked(x):
            size = block_size(network.layers, len(x), dtype, platform)
            return point_blocks.map_over(block, point_blocks.stack(x, size, "edge"))

        factors = map_parts(stacked, x) if parts else stacked(x)
        return cls(network, theta, x, weights, factors, 0, dtype, basis, coarse, platform, parts)

    def at_points(self, x, weights) -> "Operator":
        """The operator at other points, which are all held at once."""
        precision = self.coarse or self.dtype
        return Operator.build(self.network, self.theta, x, weights, 0, precision, self.basis, self.platform)

    @classmethod
    def from_factors(cls, network, weights, factors, dtype=jnp.float64, platform: str = "cpu") -> "Operator":
        """From factors as ``Network.factors`` returns them.

        Args:
            network: an object with the ``layers``, ``outputs`` and ``size`` of these factors, perhaps of some of a
                network's layers.
        """
        size = block_size(network.layers, len(weights), dtype, platform)
        factors = jax.tree.map(lambda leaf: jnp.moveaxis(point_blocks.stack(leaf, size), 1, -1), factors)
        return cls(network, None, None, weights, _cast(factors, dtype), 0, jnp.dtype(dtype), platform=platform)

    # Products -------------------------------------------------------------------------------------

    def apply(self, v):
        """J v: (n, m) float64 for v (p,)."""
        matrices, multiply = blocks.split(self.network.layers, v.astype(self.dtype)), self._multiply
        term = lambda block: blocks.apply(self.network.layers, block, matrices, multiply)  # noqa: E731
        return self._at_each_point(term).T.astype(jnp.float64)

    def transpose(self, r):
        """J^T W r: (p,) float64 for r (n, m)."""

        def term(block, weights, r):
            return blocks.transpose(self.network.layers, block, (weights * r).astype(self.dtype), self._multiply)

        return blocks.join(self._sum(term, r))

    def normal(self, v):
        """J^T W J v: (p,) float64 for v (p,)."""
        layers, multiply = self.network.layers, self._multiply
        matrices = blocks.split(layers, v.astype(self.dtype))

        def term(block, weights):
            jv = blocks.apply(layers, block, matrices, multiply)
            return blocks.transpose(layers, block, weights.astype(self.dtype) * jv, multiply)

        return blocks.join(self._sum(term))

    def normal_columns(self, columns):
        """J^T W J V: (p, l) float64 for V (p, l).

        A CPU forms explicit blocks of J, for two matrix products with V each. On a GPU that would be thousands of small
        blocks where p is large; there l products with one vector are taken at once where that forms fewer numbers.
        """
        layers, explicit = self.network.layers, self.network.size * self.network.outputs
        columns = columns.astype(self.dtype)
        products = blocks.normal_entries(layers, columns.shape[1])
        form = blocks.explicit_normal if self.platform == "cpu" or explicit <= products else blocks.normal
        size = BLOCK_ENTRIES // explicit
        if self.platform != "cpu":
            size = GPU_BLOCK_ENTRIES // min(explicit, products)
        return self._sum(
            lambda block, weights: form(layers, block, weights.astype(self.dtype), columns),
            size=min(EXPLICIT_BLOCK, size) if self.platform == "cpu" else size,
        )

    def matrix(self):
        """J^T W J: (p, p) float64."""
        return self.assemble(self.matrix_parts())

    def matrix_parts(self):
        """The parts that ``assemble`` makes the matrix of: to be summed over devices, for they are a third to a half of
        its numbers."""

        def term(block, weights):
            return blocks.gram(self.network.layers, block, weights.astype(self.dtype))

        most = max(GRAM_ENTRIES, self.network.size**2 // 8)  # at most an eighth of the matrix, where that is larger
        return self._sum(term, size=most // blocks.gram_entries(self.network.layers))

    def assemble(self, parts):
        """The matrix (p, p) from its parts."""
        return blocks.assemble(self.network.layers, parts)

    def kernel(self, pivots):
        """J J^T between b other points and these: (b m, n m), output index fastest.

        Args:
            pivots: factors of the other points, as ``point_factors`` returns them.
        """
        values = self._at_each_point(lambda block: blocks.kernel(self.network.layers, block, pivots))
        return values.swapaxes(2, 3).reshape(-1, len(self.weights) * self.network.outputs)

    def squared_row_norms(self):
        """|row of J|^2, the diagonal of J J^T: (n, m)."""
        return self._at_each_point(lambda block: blocks.squared_row_norms(self.network.layers, block)).T

    def traces(self):
        """tr(J^T W J), each layer's part of it: (L,)."""
        return self._sum(blocks.traces)

    def point_factors(self):
        """A (n, rows) and D (n, k, columns) of each layer, for all points at once, whatever the chunk."""
        if self.parts:
            return self._by_parts(map_parts, Operator.point_factors)
        whole = self.at_points(self.x, self.weights) if self.factors is None else self

        def unstack(leaf):
            return jnp.moveaxis(leaf, -1, 1).reshape(-1, *leaf.shape[1:-1])[: len(self.weights)]

        return jax.tree.map(unstack, whole.factors)

    # Blocks ---------------------------------------------------------------------------------------

    def _by_parts(self, combine, function, *arrays):
        """``map_parts`` or ``sum_over_parts`` of function(operator of a part, *the part's arrays)."""
        part = lambda x, weights, factors: self._replace(x=x, weights=weights, factors=factors, parts=0)  # noqa: E731
        of_part = lambda held, *arrays: function(part(*held), *arrays)  # noqa: E731
        return combine(of_part, (self.x, self.weights, self.factors), *arrays)

    @property
    def _multiply(self):
        return partial(_coarse, self.coarse) if self.coarse else jnp.matmul

    def _at_each_point(self, term):
        """term(block) (..., B) for all blocks, as one array (..., n)."""
        if self.parts:
            values = self._by_parts(map_parts, lambda part: jnp.moveaxis(part._at_each_point(term), -1, 0))
            return jnp.moveaxis(values, 0, -1)
        if self.factors is None:
            stacked = point_blocks.stack(self.x, self.chunk, "edge")
            values = point_blocks.map_over(lambda x: self.at_points(x, jnp.ones(len(x)))._at_each_point(term), stacked)
        else:
            values = point_blocks.map_over(term, self.factors)
        values = jnp.moveaxis(values, 0, -2)
        return values.reshape(*values.shape[:-2], -1)[..., : len(self.weights)]

    def _sum(self, term, *arrays, size: int | None = None):
        """The sum of term(block, weights (B,), *arrays (m, B)) in float64, over blocks of at most `size` points.

        Blocks are filled up with points of weight zero: a term must be zero where its weights are.
        """
        if self.parts:
            return self._by_parts(sum_over_parts, lambda part, *arrays: part._sum(term, *arrays, size=size), *arrays)
        if self.factors is None:

            def chunk(arrays):
                x, weights, *rest = arrays
                return self.at_points(x, weights)._sum(term, *rest, size=size)

            held = (self.x, self.weights, *arrays)
            return point_blocks.sum_over(chunk, jax.tree.map(lambda leaf: point_blocks.stack(leaf, self.chunk), held))
        length = jax.tree.leaves(self.factors)[0].shape[-1]
        stacked = (self.factors, point_blocks.stack(self.weights, length))
        stacked += tuple(jnp.moveaxis(point_blocks.stack(leaf, length), 1, -1) for leaf in arrays)
        float64 = lambda block: jax.tree.map(lambda leaf: leaf.astype(jnp.float64), term(*block))  # noqa: E731
        return point_blocks.sum_over(float64, point_blocks.refine(stacked, max(1, length if size is None else size)))


def factor_bytes(network, points: int, dtype) -> int:
    """Bytes of the factors: points x (rows + outputs fed x columns) numbers for each layer."""
    numbers = sum(layer.rows + (layer.outputs[1] - layer.outputs[0]) * layer.columns for layer in network.layers)
    return points * jnp.dtype(dtype).itemsize * numbers


def product_bytes(network, points: int, chunk: int, dtype, platform: str = "cpu") -> int:
    """Bytes that a product ``Operator.normal`` takes beside theta, points and its result.

    They are held (rows + columns) + block (columns + widest columns) numbers, summed over the layers: the factors of
    the points held at once, and J v and the weighted factors of one block of them. With chunks, where factors are made
    within the product, add held x widest columns numbers, in which they are laid out, and points (d + 1) float64, the
    points and weights divided into chunks.
    """
    held = min(points, chunk) if chunk else points
    columns = [(layer.outputs[1] - layer.outputs[0]) * layer.columns for layer in network.layers]
    numbers = block_size(network.layers, held, dtype, platform) * (sum(columns) + max(columns))
    cut = chunk and chunk < points
    if cut:
        numbers += held * max(columns)
    made = jnp.dtype(dtype).itemsize * numbers + (8 * points * (network.dimension + 1) if cut else 0)
    return factor_bytes(network, held, dtype) + made


def largest_chunk(network, memory: int) -> int:
    """How many points' factors take at most a quarter of a device's memory: a power of two.

    With the working space of a product, and the same factors in solver.precision, the operators take at most half.
    """
    return 2 ** max(0, (memory // 4 // factor_bytes(network, 1, jnp.float64)).bit_length() - 1)


def block_size(layers, n: int, dtype, platform: str = "cpu") -> int:
    """Points in a block: the same number in all blocks, and as few blocks as the cache allows."""
    if platform != "cpu":
        return n
    cached = max(layer.rows * layer.columns for layer in layers) <= CACHED_MATRIX
    most = (SHORT_BLOCK if cached else LONG_BLOCK)[jnp.dtype(dtype).itemsize]
    count = -(-n // most) if n > 2 * most else 1
    return -(-n // count)


def _coarse(name, a, b):
    """a @ b of float32 matrices as matrix units of lower precision form it: factors are rounded, sums are in float32.

    The rounding is explicit, so that a device without such units returns the same up to the order of the sums.
    """
    bits, hardware = COARSE[name]
    a, b = (jax.lax.reduce_precision(each, exponent_bits=8, mantissa_bits=bits) for each in (a, b))
    return jnp.matmul(a, b, precision=hardware)


def _cast(factors, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), factors)
