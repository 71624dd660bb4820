"""Sums over points whose order does not depend on the devices (cluster.reproducible).

A sum in floating point depends on its order. So the points are divided into PARTS parts of equal size, in order, of
which every device has as many as every other. The term of a part is computed by a loop whose body has the shapes of one
part, because the rounding of a matrix product depends on its shape; and the terms are added in pairs, then the sums of
pairs, and so on. A device adds those of its own parts, a complete subtree; the devices exchange its sums and all add
them alike. The tree is the same for 1, 2, 4, ..., PARTS devices, and so is every bit.

A mesh with the axis ORDERED, of length one, asks for all this (``backend.mesh.make_mesh``). On other meshes the
functions here are plain calls and ``jax.lax.psum``: the programs are those without this module.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

AXIS = "points"  # the name of the mesh's axis over which the collocation points are split
ORDERED = "ordered"  # that of a second axis, of length one, in a mesh whose sums have a fixed order
PARTS = 64


def parts_here() -> int:
    """The parts of the points that this device has, inside of `shard_map` over a mesh of fixed order; else 0."""
    mesh = jax.sharding.get_abstract_mesh()
    return PARTS // mesh.shape[AXIS] if ORDERED in mesh.axis_names else 0


def sum_over_devices(tree, axis: str = AXIS):
    """The sum over all devices of arrays that are sums over each one's points. Inside of `shard_map`."""
    if not parts_here():
        return jax.lax.psum(tree, axis)
    sums = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis, to="invarying"), tree)
    return _sum_in_pairs(partial(_entry, sums), jax.lax.axis_size(axis), _zeros(tree))


def sum_over_parts(function: Callable, *arrays):
    """function(*arrays), a sum over this device's points, as a sum over its parts. Inside of `shard_map`.

    Args:
        function: arrays (b, ...) -> a pytree of sums over b points.
        arrays: pytrees of arrays (n, ...) of this device's n points; n may be another multiple of the parts.
    """
    parts = parts_here()
    if not parts:
        return function(*arrays)
    divided = _divide(arrays, parts)
    of_part = lambda number: function(*_entry(divided, number))  # noqa: E731
    zero = jax.lax.pcast(_zeros(jax.eval_shape(of_part, 0)), AXIS, to="varying")
    return _sum_in_pairs(of_part, parts, zero)


def _sum_in_pairs(term: Callable, count: int, zero, first=0):
    """term(first) + ... + term(first + count - 1): the sum of the first half of them, and that of the second.

    Both are added in a loop. So log2(count) sums are kept, a term is compiled once, and no sum is fused with what is
    made of it: that is compiled alike for any number of devices.
    """
    if count == 1:
        return term(first)
    half = count // 2

    def add(total, which):
        return jax.tree.map(jnp.add, total, _sum_in_pairs(term, half, zero, first + which * half)), None

    return jax.lax.scan(add, zero, jnp.arange(2))[0]


def map_parts(function: Callable, *arrays):
    """function(*arrays) for a function that acts on every point by itself, part by part. Inside of `shard_map`.

    Args: as of ``sum_over_parts``; the leading axis of each result is that of the points, or a multiple of it.
    """
    parts = parts_here()
    if not parts:
        return function(*arrays)
    values = jax.lax.map(lambda part: function(*part), _divide(arrays, parts))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), values)


def _divide(arrays, parts: int):
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), arrays)


def _zeros(tree):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def _entry(stacked, number):
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, number, keepdims=False), stacked)
