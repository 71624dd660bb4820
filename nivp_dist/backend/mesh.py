"""The mesh of devices, programs that run on it, and arrays that are replicated over it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import AXIS, ORDERED, PARTS
from nivp_dist.backend.point_blocks import in_blocks
from nivp_dist.errors import InputError

CPU_MEMORY = 2**34  # bytes that each device of a CPU is taken to have
_declared: dict[Mesh, int] = {}  # by ``declare_memory``


def make_mesh(devices: int = 0, ordered: bool = False) -> Mesh:
    """A mesh with the axis "points" over the first `devices` devices of all processes; 0 takes all devices.

    ordered: as of ``mesh_over``.

    Raises InputError if there are fewer devices, if several processes would leave one unused, and as ``mesh_over``.
    """
    present = jax.devices()
    if devices > len(present):
        raise InputError(f"devices = {devices}, but there are {len(present)}: lower it, or 0 for all of them")
    if devices and jax.process_count() > 1 and devices != len(present):
        raise InputError(f"devices = {devices} of {len(present)}: with several processes all must be used; set 0")
    return mesh_over(present[: devices or len(present)], ordered)


def mesh_over(devices: Sequence, ordered: bool = False) -> Mesh:
    """The mesh over these devices.

    ordered: its sums over points have an order that does not depend on the devices (``fixed_order``).

    Raises InputError if their number does not divide the parts of an ordered mesh.
    """
    # The mesh is built directly because jax.make_mesh refuses some allocations of several nodes.
    if not ordered:
        return Mesh(np.array(devices), (AXIS,))
    if PARTS % len(devices):
        *few, most = (str(count) for count in range(1, PARTS + 1) if PARTS % count == 0)
        raise InputError(
            f"cluster.reproducible = true needs {', '.join(few)} or {most} devices, and here are {len(devices)}: "
            "set devices, or start other processes"
        )
    return Mesh(np.array(devices)[:, None], (AXIS, ORDERED))


def is_ordered(mesh: Mesh) -> bool:
    """Whether the mesh's sums over points have an order that does not depend on its devices."""
    return ORDERED in mesh.axis_names


def multiple_of_points(mesh: Mesh) -> int:
    """What the number of points on the mesh is padded to a multiple of: its devices, or its parts if it is ordered."""
    return PARTS if is_ordered(mesh) else mesh.size


def platform_of(mesh: Mesh) -> str:
    """The platform of the mesh's devices, "cpu" or "gpu". That of the default backend may be another one."""
    return mesh.devices.flat[0].platform


def memory_of(mesh: Mesh) -> int:
    """The bytes of memory that each device of the mesh has at least, as a power of two.

    Decisions that depend on it are then the same on all cards of a kind, whatever else takes a little of their memory.
    The devices of a CPU share the memory of their host, which differs from host to host: CPU_MEMORY is assumed.
    """
    least = memory_limit(mesh)
    return 2 ** (least.bit_length() - 1) if least else CPU_MEMORY


def declare_memory(mesh: Mesh, size: int) -> None:
    """Says how many bytes jax could use on each device of a mesh of devices that are not here."""
    _declared[mesh] = size


def memory_limit(mesh: Mesh) -> int:
    """The bytes that jax may use on each device of this process, the least of them; 0 for those of a CPU."""
    if mesh in _declared:
        return _declared[mesh]
    devices = [device for device in own_devices(mesh) if device.platform != "cpu"]
    return min(((device.memory_stats() or {}).get("bytes_limit", 0) for device in devices), default=0)


def own_devices(mesh: Mesh) -> list:
    """The devices of the mesh that belong to this process."""
    return [device for device in mesh.devices.flat if device.process_index == jax.process_index()]


def program(mesh: Mesh, function: Callable, *in_specs, out_specs: Any = P()) -> Callable:
    """function of one device's shards -> a compiled function of global arrays.

    No buffer is donated: theta, points and the approximation serve later stages and retries, and the initial guess of a
    velocity, which does not, is 0.13 of the 826 MB that it takes (p = 107,581, n = 16,384).
    """
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs))


def whole_program(mesh: Mesh, function: Callable, out_specs: Any = None, static_argnames: Any = ()) -> Callable:
    """A compiled function of global arrays, in which XLA decides what each device computes, sums over points included.

    On an ordered mesh each device computes all of it on all points, so that the number of devices changes no bit.

    out_specs: how the results lie on the devices; None leaves that to XLA.
    """
    out = None if out_specs is None else NamedSharding(mesh, out_specs)
    if not is_ordered(mesh):
        return jax.jit(function, static_argnames=static_argnames, out_shardings=out)
    everywhere = partial(jax.lax.with_sharding_constraint, shardings=NamedSharding(mesh, P()))

    def on_every_device(*arguments, **keywords):
        return everywhere(function(*everywhere(arguments), **keywords))

    return jax.jit(on_every_device, static_argnames=static_argnames, out_shardings=out)


def pointwise(mesh: Mesh, function: Callable, at_most: int = 0) -> Callable:
    """The compiled program of function(context, x (n, d)) -> (n, ...), which acts on every point by itself.

    Every device computes the values of its own points, in blocks that fit into its memory (``point_blocks.in_blocks``).
    """
    body = lambda context, x: in_blocks(partial(function, context), x, at_most=at_most)  # noqa: E731
    return program(mesh, body, P(), P(AXIS), out_specs=P(AXIS))


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
