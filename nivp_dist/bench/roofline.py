"""The rates of this machine in matrix products and memory traffic, with which measured times are compared."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.bench.timing import interleaved

MATRIX, STREAM = 2048, 2**26  # rows of the square matrices; float32 entries of the arrays, far larger than a cache


class Roofline(NamedTuple):
    """Rates of one device. flops: operations/s of matrix products for each dtype. bandwidth: bytes/s, read and
    written."""

    flops: dict[str, float]
    bandwidth: float

    def seconds(self, flops: float, bytes_: float, dtype: str) -> float:
        """The least time for these operations and this memory traffic."""
        return max(flops / self.flops[dtype], bytes_ / self.bandwidth)


def measure(quick: bool = False, dtypes=("float32", "float64")) -> Roofline:
    """Measure products of square matrices, and the addition of a number to a large array."""
    side, entries = (MATRIX // 4, STREAM // 16) if quick else (MATRIX, STREAM)
    product, stream = jax.jit(jnp.matmul), jax.jit(lambda a: a + 1)
    matrices = {dtype: jnp.ones((side, side), dtype) for dtype in dtypes}
    array = jnp.ones(entries, jnp.float32)
    calls = {dtype: partial(product, a, a) for dtype, a in matrices.items()} | {"stream": partial(stream, array)}
    samples = interleaved(calls, rounds=3)
    rates = {dtype: 2 * side**3 / min(samples.seconds[dtype]) for dtype in dtypes}
    return Roofline(rates, 2 * array.nbytes / min(samples.seconds["stream"]))
