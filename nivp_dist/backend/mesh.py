"""The mesh of devices, and arrays that are the same on all of them."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.errors import InputError

AXIS = "points"  # the one axis of the mesh: collocation points are split over it


def make_mesh(devices: int = 0) -> Mesh:
    """One axis over the first `devices` devices of all processes (0: all). Raises InputError if too few."""
    present = jax.devices()
    if devices > len(present):
        raise InputError(f"devices = {devices}, but there are {len(present)}: lower it, or 0 for all of them")
    if devices and jax.process_count() > 1 and devices != len(present):
        raise InputError(f"devices = {devices} of {len(present)}: with several processes all must be used; set 0")
    # Built directly: jax.make_mesh refuses some multi-node allocations.
    return Mesh(np.array(present[: devices or len(present)]), (AXIS,))


def replicate(tree, mesh: Mesh):
    """Every leaf, the same on all processes, as an array replicated over the mesh."""
    sharding = NamedSharding(mesh, P())

    def one(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(one, tree)


def to_host(leaf) -> np.ndarray:
    """A replicated array as numpy."""
    return np.asarray(leaf.addressable_data(0)) if isinstance(leaf, jax.Array) else np.asarray(leaf)
