"""The machine on which something is measured. Does not import jax."""

import contextlib
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import nivp_dist

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy")


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def describe() -> dict:
    """Processor, cores, memory, operating system and Python."""
    model, path = "", Path("/proc/cpuinfo")
    if path.exists():
        names = (line.split(":", 1)[1].strip() for line in path.open() if line.startswith("model name"))
        model = next(names, "")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": len(cores()),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """The version of this package, and those of PACKAGES and of more packages, where they are installed."""
    found = {"nivp_dist": nivp_dist.__version__}
    for package in (*PACKAGES, *more):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
