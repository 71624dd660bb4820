"""What must be the same on all hosts of a run, and in which processes it is not.

All processes compute the same numbers from the same state, without comparing them: with another version of a library,
another instruction set or another number of cores the last bits differ, and a run would end at its first save.
"""

import os
import platform
import socket
from collections.abc import Mapping

from nivp_dist.cluster import host
from nivp_dist.storage import run_directory

MOST_NAMED = 4  # processes that a message names
_LABELS = ("host", "processor")  # facts for messages only
_REMEDIES = {
    "devices": "start every process with the same number",
    "platform": "give GPUs to all processes or to none, or set JAX_PLATFORMS=cpu for all",
    "GPU": "take GPUs of one kind (Slurm: --constraint, or --gres=gpu:KIND:N)",
    "memory of a device": "take GPUs of one kind, and set the same XLA_PYTHON_CLIENT_MEM_FRACTION on every host",
    "XLA_FLAGS": "set the same on every host",
    "JAX options": "set the same on every host",
    "CPU cores": "give every process the same number (srun: --cpus-per-task), because XLA splits sums over the cores",
    "CPU features": (
        "take hosts of one kind (Slurm: --constraint), or set XLA_FLAGS=--xla_cpu_max_isa=AVX2 and "
        "OPENBLAS_CORETYPE=Haswell on every host (an instruction set that all have)"
    ),
}


def facts(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The facts of this process that must be those of process 0, by name. They can be sent as JSON.

    The processor counts only where jax computes on it. With GPUs it computes nothing that enters the state.
    """
    import jax

    from nivp_dist.backend.mesh import make_mesh, memory_of

    found = {"host": socket.gethostname(), "processor": host.model()}
    found |= run_directory.versions() | {"Python": platform.python_version()} | host.options(environment)
    found |= {"devices": str(jax.local_device_count()), "platform": jax.default_backend()}
    if jax.default_backend() != "cpu":
        found["GPU"] = ", ".join(sorted({device.device_kind for device in jax.local_devices()}))
        found["memory of a device"] = f"{memory_of(make_mesh()) >> 30} GiB or more"
    else:
        found |= {"CPU cores": str(host.cores()), "CPU features": " ".join(host.instruction_sets(environment))}
    return found


def differences(everyone: list[dict[str, str]]) -> list[str]:
    """One line for each fact that is not the same everywhere, with the processes that differ and a remedy.

    everyone: the facts of all processes, in order.
    """
    first, lines = everyone[0], []
    for name in dict.fromkeys(name for found in everyone for name in found if name not in _LABELS):
        others = [
            f"process {index} on {found['host']} has {_value(name, found, first)}"
            for index, found in enumerate(everyone)
            if found.get(name) != first.get(name)
        ]
        if others:
            more = f", and {len(others) - MOST_NAMED} more differ" if len(others) > MOST_NAMED else ""
            lines.append(
                f"{name}: process 0 on {first['host']} has {_value(name, first)}, "
                f"{', '.join(others[:MOST_NAMED])}{more}: {_REMEDIES.get(name, 'install the same version everywhere')}"
            )
    return lines


def _value(name: str, found: dict[str, str], first: dict[str, str] | None = None) -> str:
    """The value of a fact in a message. Of the features of a processor: only those that process 0 has not or has."""
    if name != "CPU features":
        return found.get(name, "none")
    if first is None:
        return f"those of {found['processor']}"
    own, other = found.get(name, "").split(), first.get(name, "").split()
    missing, added = [feature for feature in other if feature not in own], [one for one in own if one not in other]
    words = [f"not {' '.join(missing)}"] if missing else []
    words += [f"also {' '.join(added)}"] if added else []
    return f"{' but '.join(words)} ({found['processor']})"
