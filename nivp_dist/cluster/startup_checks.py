"""What must hold before a run starts: the same software and devices on all processes, and the GPUs of the job."""

import glob
import os
import re
import socket
from collections.abc import Mapping
from importlib import metadata

from nivp_dist.cluster import channel
from nivp_dist.cluster.topology import Topology
from nivp_dist.errors import InputError


def visible_gpus(environment: Mapping[str, str]) -> int:
    """The number of GPUs that this process may use, found without asking a driver."""
    if environment.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return 0
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return len([entry for entry in listed.split(",") if entry.strip() not in ("", "-1", "NoDevFiles")])
    return len([path for path in glob.glob("/dev/nvidia*") if re.fullmatch(r"/dev/nvidia\d+", path)])


def require_platform(environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError if jax cannot start the platform that JAX_PLATFORMS asks for."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        # Where a plug-in for the platform is missing, jax 0.10 fails on an assertion without a text.
        if isinstance(error, RuntimeError) and "Unable to initialize backend" not in str(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "there is no such device, or no jaxlib for it"
        raise InputError(
            f"environment: jax cannot start with JAX_PLATFORMS={environment.get('JAX_PLATFORMS', '')}: {reason}; "
            "unset it to take what is there, or install 'nivp_dist[cuda12]' or [cuda13] for GPUs"
        ) from None


def require_same_software(topology: Topology) -> None:
    """Check that all processes have the same versions, platform and number of devices. Collective.

    Raises InputError on every process if one differs from process 0.
    """
    import jax

    mine = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
    mine |= {"devices": str(jax.local_device_count()), "platform": jax.default_backend()}
    everyone = channel.current().gather((socket.gethostname(), mine))
    first_host, first = everyone[0]
    for index, (host, found) in enumerate(everyone):
        for name, value in found.items():
            if value != first[name]:
                raise InputError(
                    f"process {index} on {host} has {name} {value}, process 0 on {first_host} has {first[name]}: all "
                    "must have the same; `nivp doctor` under the same launcher shows each"
                )
    if jax.process_count() != topology.processes:
        raise InputError(
            f"jax counts {jax.process_count()} processes, {topology.launcher} started {topology.processes}"
        )


def require_gpus(environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError if the job has GPUs and jax would run on the host instead."""
    given = environment.get("SLURM_GPUS_ON_NODE") or environment.get("SLURM_JOB_GPUS")
    if not given or environment.get("JAX_PLATFORMS"):
        return
    import jax

    if jax.default_backend() == "cpu":
        raise InputError(
            f"Slurm gave GPUs on {socket.gethostname()} and jax sees none: pip install 'nivp_dist[cuda12]' "
            "(or cuda13), or set JAX_PLATFORMS=cpu to run without"
        )
