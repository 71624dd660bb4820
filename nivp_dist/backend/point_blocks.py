"""Loops over blocks of points, which bound the memory that a computation takes.

The memory of a function is found by following its jaxpr: no formula has to be kept beside the functions, and right-hand
sides of users' problems are covered.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from nivp_dist.backend.fixed_order import map_parts, sum_over_parts

# Of the intermediate results of a function of points on one device. Larger blocks are not faster: a GPU is busy with a
# hundredth of it. The shipped configurations for a core stay below it, in one block.
MOST_BYTES = 2**32


def in_blocks(function: Callable, *arrays, at_most: int = 0):
    """function(*arrays) for a function that acts on every point by itself, in as many blocks of points as memory asks.

    Args:
        function: arrays (b, ...) -> a pytree of arrays (b, ...), for any number b of points.
        arrays: (n, ...) of one device. (Under `jit` alone, sharded arrays would be gathered: call it in `shard_map`.)
        at_most: points in a block; 0: as many as take MOST_BYTES (``peak_bytes``).
    """
    return map_parts(partial(_in_blocks, function, at_most), *arrays)


def _in_blocks(function: Callable, at_most: int, *arrays):
    n, size = len(arrays[0]), _block_size(function, arrays, at_most)
    if size == n:
        return function(*arrays)
    values = map_over(lambda block: function(*block), tuple(stack(leaf, size, "edge") for leaf in arrays))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], values)


def sum_in_blocks(function: Callable, weights, *arrays, at_most: int = 0):
    """function(weights, *arrays) for a function that is a sum over points with weights (n,), as ``in_blocks``.

    The last block is filled up with points of weight zero.
    """
    return sum_over_parts(partial(_sum_in_blocks, function, at_most), weights, *arrays)


def _sum_in_blocks(function: Callable, at_most: int, weights, *arrays):
    size = _block_size(function, (weights, *arrays), at_most)
    stacked = stack(weights, size), *(stack(leaf, size, "edge") for leaf in arrays)
    return sum_over(lambda block: function(*block), stacked)


def _block_size(function: Callable, arrays, at_most: int) -> int:
    """Points in a block, of n: as few blocks as memory and `at_most` allow, all of one size."""
    n = len(arrays[0])
    count = max(1, -(-peak_bytes(function, *arrays) // MOST_BYTES), -(-n // at_most) if at_most else 1)
    return -(-n // min(count, n))


def peak_bytes(function: Callable, *arrays) -> int:
    """The bytes of the results of single operations that function(*arrays) holds at once, its own result among them.

    XLA fuses some operations and keeps some results longer. Measured on a CPU, for a wave and a density in 10
    dimensions: 0.8 and 0.98 of what it allocates for the right-hand side, 1.3 and 2.2 times that for the field.
    """
    return _peak(jax.make_jaxpr(function)(*arrays).jaxpr)


def _peak(jaxpr) -> int:
    last_use: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last_use.update(dict.fromkeys(_variables(equation.invars), index))
    last_use.update(dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns)))
    held: dict[Any, int] = {}
    peak = 0
    for index, equation in enumerate(jaxpr.eqns):
        inner = max((_peak(one) for one in _jaxprs(equation.params)), default=0)
        held.update({variable: _bytes(variable.aval) for variable in equation.outvars if variable in last_use})
        peak = max(peak, sum(held.values()) + inner)
        held = {variable: size for variable, size in held.items() if last_use[variable] > index}
    return peak


def _variables(atoms):
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _jaxprs(parameters) -> list:
    """The jaxprs among the parameters of an equation: the bodies of loops, branches and compiled functions."""
    leaves = jax.tree.leaves(list(parameters.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns"))
    return [getattr(leaf, "jaxpr", leaf) for leaf in leaves if hasattr(getattr(leaf, "jaxpr", leaf), "eqns")]


def _bytes(aval) -> int:
    shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
    return 0 if dtype is None else int(np.prod(shape)) * dtype.itemsize


def stack(leaf, size: int, mode: str = "constant"):
    """(n, ...) as blocks (count, size, ...), the last one filled up with zeros, or, with mode "edge", repetitions."""
    count = -(-len(leaf) // size)
    padded = jnp.pad(leaf, [(0, count * size - len(leaf))] + [(0, 0)] * (leaf.ndim - 1), mode=mode)
    return padded.reshape(count, size, *leaf.shape[1:])


def refine(tree, size: int):
    """Stacked blocks (count, ..., B) as more and smaller blocks of at most `size` points, filled up with zeros."""

    def one(leaf):
        parts = -(-leaf.shape[-1] // size)
        padded = jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, -leaf.shape[-1] % parts)])
        smaller = padded.reshape(*leaf.shape[:-1], parts, -1)
        return jnp.moveaxis(smaller, -2, 1).reshape(-1, *leaf.shape[1:-1], smaller.shape[-1])

    return tree if jax.tree.leaves(tree)[0].shape[-1] <= size else jax.tree.map(one, tree)


def map_over(function, stacked):
    """function(block) for every entry of the leading axis of stacked arrays, stacked along that axis."""
    if len(jax.tree.leaves(stacked)[0]) > 1:
        return jax.lax.map(function, stacked)
    return jax.tree.map(lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], stacked)))


def sum_over(function, stacked):
    """The sum of function(block) over the leading axis of stacked arrays (a pytree)."""
    first = jax.tree.map(lambda leaf: leaf[0], stacked)
    leaf = jax.tree.leaves(stacked)[0]
    if len(leaf) == 1:
        return function(first)
    # Zeros made from the arrays, not from a shape: under shard_map they vary over the mesh as the terms do.
    varying = 0 * leaf.reshape(-1)[0]
    zero = jax.tree.map(
        lambda term: jnp.zeros(term.shape, term.dtype) + varying.astype(term.dtype), jax.eval_shape(function, first)
    )

    def add(sums, block):
        return jax.tree.map(jnp.add, sums, function(block)), None

    return jax.lax.scan(add, zero, stacked)[0]
