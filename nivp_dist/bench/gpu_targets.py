"""GPUs that XLA can compile for where there is none, and the meshes of such GPUs.

XLA needs the plugin of jax for CUDA, and neither a driver nor a card.
"""

from importlib import metadata
from typing import NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from nivp_dist.backend.mesh import declare_memory, mesh_over
from nivp_dist.errors import InputError

GPUS_PER_HOST = 8


class Target(NamedTuple):
    """A kind of GPU. memory: bytes. bandwidth: of it, bytes a second. cache: L2, bytes. clock: GHz."""

    name: str
    memory: int
    bandwidth: int
    cache: int
    clock: float


# Data sheets of NVIDIA (SXM modules); both have 132 multiprocessors of compute capability 9.0.
TARGETS = {
    "h100": Target("NVIDIA H100 80GB HBM3", 85_520_809_984, 3_350_000_000_000, 52_428_800, 1.98),
    "h200": Target("NVIDIA H200", 150_754_820_096, 4_800_000_000_000, 62_914_560, 1.98),
}

# XLA's GpuTargetConfigProto in text form.
DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {target.bandwidth}
  l2_cache_size: {target.cache}
  clock_rate_ghz: {target.clock}
  device_memory_size: {target.memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: {cuda} minor: {minor} patch: 0 }}
device_description_str: "{target.name}"
"""
CUDA = {"12": 9, "13": 0}  # versions of CUDA for which jax has plugins, with the minor version described


def mesh_of(gpu: str, count: int, ordered: bool = False) -> Mesh:
    """The mesh of `count` GPUs that are not there, eight on each host. Programs can be compiled for it, not run.

    ordered: as of ``backend.mesh.mesh_over``.

    Raises InputError: an unknown GPU, a number that does not fill hosts or an ordered mesh, or no plugin.
    """
    if gpu not in TARGETS:
        raise InputError(f"--compile-for {gpu}: known are {', '.join(TARGETS)}")
    per_host = min(count, GPUS_PER_HOST)
    if count % per_host:
        raise InputError(f"--gpus {count}: more than {GPUS_PER_HOST} must be a multiple of {GPUS_PER_HOST}")
    cuda = _cuda()
    description = DESCRIPTION.format(target=TARGETS[gpu], cuda=cuda, minor=CUDA[cuda])
    shape = f"1x{count // per_host}x{per_host}"
    topology = topologies.get_topology_desc(platform="cuda", target_config=description, topology=shape)
    mesh = mesh_over(topology.devices, ordered)
    declare_memory(mesh, TARGETS[gpu].memory * 3 // 4)  # what jax takes by default
    return mesh


def _cuda() -> str:
    """The version of CUDA whose plugin is installed. Raises InputError if there is none of this jax."""
    for version in CUDA:
        try:
            if metadata.version(f"jax-cuda{version}-plugin") == jax.__version__:
                return version
        except metadata.PackageNotFoundError:
            continue
    wheels = " ".join(f"jax-cuda12-{part}=={jax.__version__}" for part in ("plugin", "pjrt"))
    raise InputError(f"--compile-for needs jax's plugin for CUDA, but no card: pip install --no-deps {wheels}")
