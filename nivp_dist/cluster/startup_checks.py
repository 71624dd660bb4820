"""What must hold before a run starts: equal hosts and software in all processes, and the GPUs of the job."""

import glob
import hashlib
import json
import os
import re
import socket
from collections.abc import Mapping

from nivp_dist.cluster import agreement, channel
from nivp_dist.cluster.topology import Topology
from nivp_dist.errors import InputError
from nivp_dist.settings.files import changed_keys, fixed_settings, value_of
from nivp_dist.settings.model import Config


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


def require_agreement(topology: Topology) -> None:
    """Check that all processes have the same facts (``agreement.facts``). Collective.

    Raises InputError on every process if one differs from process 0.
    """
    import jax

    lines = agreement.differences(channel.current().gather(agreement.facts()))
    if lines:
        more = f" ({len(lines) - 1} more differences: `nivp doctor` under the same launcher)" if lines[1:] else ""
        raise InputError(f"the hosts differ in {lines[0]}{more}")
    if jax.process_count() != topology.processes:
        raise InputError(
            f"jax counts {jax.process_count()} processes, {topology.launcher} started {topology.processes}"
        )


def require_same_configuration(config: Config) -> None:
    """Check that all processes have the same settings, apart from [cluster] and output.directory. Collective.

    Raises InputError on every process if one differs from process 0, as it may where each host has its own files.
    """
    messages, mine = channel.current(), _decisive(config)
    text = json.dumps(mine, sort_keys=True)
    everyone = messages.gather([socket.gethostname(), hashlib.sha256(text.encode()).hexdigest()])
    differ = [index for index, (_, digest) in enumerate(everyone) if digest != everyone[0][1]]
    if not differ:
        return
    first = messages.broadcast(mine)
    changes = [
        f"{key} is {value_of(mine, key)}, on process 0 {value_of(first, key)}" for key in changed_keys(first, mine)
    ]
    words, (host, _) = messages.gather(changes[:3])[differ[0]], everyone[differ[0]]
    more = f", and {len(differ) - 1} more processes differ" if differ[1:] else ""
    raise InputError(
        f"process {differ[0]} on {host} has another configuration ({'; '.join(words)}){more}: start all processes with "
        "the same arguments, and with files that all hosts share"
    )


def _decisive(config: Config) -> dict:
    settings = config.model_dump(mode="json") | {"problem": fixed_settings(config)["problem"]}
    del settings["cluster"], settings["output"]["directory"]
    return settings


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
