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

    def one(leaf):
        sums = jax.lax.all_gather(leaf, axis, to="invarying")
        while len(sums) > 1:
            sums = sums[::2] + sums[1::2]
        # What follows is compiled alike then, whatever the additions before it.
        return jax.lax.optimization_barrier(sums[0])

    return jax.tree.map(one, tree)


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

    def pairs(count: int, first):
        """The sum over `count` parts. A loop over two halves keeps log2(parts) sums, and is compiled once."""
        if count == 1:
            return function(*jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, first, 0, False), divided))
        halves = jax.lax.map(lambda half: pairs(count // 2, first + half * (count // 2)), jnp.arange(2))
        return jax.tree.map(lambda terms: terms[0] + terms[1], halves)

    return pairs(parts, 0)


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
