"""What the last bits of a result depend on beside the settings: versions, processors, flags. Recorded in every
checkpoint and compared at a resume."""

import hashlib
import os
import platform
from pathlib import Path

from jax.sharding import Mesh

from nivp_dist.cluster import channel
from nivp_dist.storage import run_directory

PROCESSORS = Path("/proc/cpuinfo")
DEVICE_COUNT = "--xla_force_host_platform_device_count"  # counted as devices, not as a flag
# Variables of jax that say where it runs, what it caches and what it prints; the others may change a result.
HARMLESS = ("JAX_PLATFORM", "JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "JAX_LOG", "JAX_TRACEBACK", "JAX_DUMP")


def describe(mesh: Mesh) -> dict[str, str]:
    """The environment of the run, name -> text. Every process calls it.

    On CPUs it includes the number of cores of each process, because XLA splits sums over the cores, and the features of
    the processor, for which it compiles.
    """
    device = mesh.devices.flat[0]
    everyone = channel.current().gather([_cores(), _processor()])
    facts = run_directory.versions() | {"Python": platform.python_version()} | _flags()
    facts |= {"devices": f"{mesh.size} {device.device_kind}", "processes": str(len(everyone))}
    if device.platform == "cpu":
        cores, processors = zip(*everyone)
        facts["CPU cores"] = ", ".join(map(str, sorted(set(cores))))
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


def _flags() -> dict[str, str]:
    """The options of XLA and jax that this process has from its environment."""
    xla = sorted(flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(DEVICE_COUNT))
    options = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_")]
    return {
        "XLA_FLAGS": " ".join(xla) or "none",
        "JAX options": " ".join(option for option in options if not option.startswith(HARMLESS)) or "none",
    }


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    """The model of the processor, with a short digest of its features; its architecture where Linux does not say."""
    try:
        lines = PROCESSORS.read_text().split("\n\n")[0].splitlines()  # of the first core
    except OSError:
        return platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = " ".join(sorted(facts.get("flags", facts.get("Features", "")).split()))
    model = facts.get("model name", platform.machine())
    return f"{model}, features {hashlib.sha256(features.encode()).hexdigest()[:8]}"


def _is_newer(version: str, other: str) -> bool:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".")[:3] if part.isdigit()]

    return numbers(version) > numbers(other)
