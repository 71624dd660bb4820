"""What the last bits of a result depend on beside the settings: versions, processors, flags. Recorded in every
checkpoint and compared at a resume."""

import platform

from jax.sharding import Mesh

from nivp_dist.backend.mesh import is_ordered
from nivp_dist.cluster import channel, host
from nivp_dist.storage import run_directory


def describe(mesh: Mesh) -> dict[str, str]:
    """The environment of the run, name -> text. Every process calls it.

    On CPUs it includes the number of cores of each process, because XLA splits sums over the cores, and the features of
    the processor, for which it compiles. On an ordered mesh (``backend.mesh``) the numbers of devices and processes are
    no part of it.
    """
    device = mesh.devices.flat[0]
    everyone = channel.current().gather([str(host.cores()), f"{host.model()}, features {host.digest_of_features()}"])
    facts = run_directory.versions() | {"Python": platform.python_version()} | host.options()
    if is_ordered(mesh):
        facts["devices"] = device.device_kind
    else:
        facts |= {"devices": f"{mesh.size} {device.device_kind}", "processes": str(len(everyone))}
    if device.platform == "cpu":
        cores, processors = zip(*everyone)
        facts["CPU cores"] = ", ".join(sorted(set(cores), key=int))
        facts["CPU"] = ", ".join(sorted(set(processors)))
    return facts


def change(before: dict[str, str], now: dict[str, str]) -> str:
    """What has changed between two environments, in one line; '' if nothing has."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    if not names:
        return ""
    words = [f"{name} {before.get(name, 'none')} -> {now.get(name, 'none')}" for name in names]
    newer = _is_newer(before.get("nivp_dist", ""), now.get("nivp_dist", ""))
    newer_line = "the directory was written by a newer nivp_dist; " if newer else ""
    return f"{newer_line}another environment than before, the last bits may differ from here on: {', '.join(words)}"


def _is_newer(version: str, other: str) -> bool:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".")[:3] if part.isdigit()]

    return numbers(version) > numbers(other)
