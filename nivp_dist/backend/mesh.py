"""The mesh of devices, and arrays that are replicated over it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.errors import InputError

AXIS = "points"  # the name of the mesh's only axis, over which the collocation points are split


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh with one axis over the first `devices` devices of all processes; 0 takes all devices.

    Raises InputError if there are fewer devices, or if several processes would leave a device unused.
    """
    present = jax.devices()
    if devices > len(present):
        raise InputError(f"devices = {devices}, but there are {len(present)}: lower it, or 0 for all of them")
    if devices and jax.process_count() > 1 and devices != len(present):
        raise InputError(f"devices = {devices} of {len(present)}: with several processes all must be used; set 0")
    # The mesh is built directly because jax.make_mesh refuses some allocations of several nodes.
    return Mesh(np.array(present[: devices or len(present)]), (AXIS,))


def platform_of(mesh: Mesh) -> str:
    """The platform of the mesh's devices, "cpu" or "gpu". That of the default backend may be another one."""
    return mesh.devices.flat[0].platform


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree with every leaf as an array replicated over the mesh. Leaves must be equal on all processes."""
    sharding = NamedSharding(mesh, P())

    def one(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(one, tree)


def to_host(leaf: Any) -> np.ndarray:
    """A replicated array as a numpy array."""
    return np.asarray(leaf.addressable_data(0)) if isinstance(leaf, jax.Array) else np.asarray(leaf)
