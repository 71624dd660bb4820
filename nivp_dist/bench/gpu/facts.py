"""The machine: versions, devices, and the report of `nivp doctor`."""

import os

import jax

from nivp_dist.bench import machine
from nivp_dist.bench.gpu.stages import Plan
from nivp_dist.cluster import doctor

PACKAGES = ("jax-cuda12-plugin", "jax-cuda13-plugin", "orbax-checkpoint", "pydantic")  # beside machine.PACKAGES
VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def plan() -> Plan:
    """The versions come first: they are known even where the GPU does not start."""
    return [("software", _software), ("devices", _devices), ("doctor", _doctor)]


def _software() -> dict:
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return machine.describe() | {"versions": machine.versions(PACKAGES), "variables": variables}


def _devices() -> dict:
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kinds": [device.device_kind for device in jax.devices()],
        "compute_capability": getattr(first, "compute_capability", None),
        "driver": first.client.platform_version,
        "memory_bytes": (first.memory_stats() or {}).get("bytes_limit"),
    }


def _doctor() -> dict:
    report = doctor.examine(".")
    found = {"problems": report.problems, "warnings": report.warnings, "interconnect": report.interconnect}
    return found | {"passed": not report.problems}
