"""The host of this process, as far as the last bits of a result depend on it: processor, cores, options of XLA and jax.

XLA compiles for the instruction sets of the host, and splits sums over its cores.
"""

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")
# Flags of XLA that are no options here: devices are counted, and what is printed changes no result.
UNCOUNTED = ("--xla_force_host_platform_device_count", "--xla_dump")
# Variables of jax that say where it runs, what it caches and what it prints; the others may change a result.
HARMLESS = ("JAX_PLATFORM", "JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "JAX_LOG", "JAX_TRACEBACK", "JAX_DUMP")
HARMLESS += ("JAX_COORDINATOR", "JAX_NUM_PROCESSES", "JAX_PROCESS")
# Features of /proc/cpuinfo with instructions that a compiler may choose for sums and products of numbers. Others, like
# those for virtual machines or against attacks, depend on the kernel and change no result.
_ARITHMETIC = re.compile(r"(sse|ssse|avx|fma|f16c|amx|asimd|sve|fp|neon|i8mm|bf16)")
# The feature that each value of --xla_cpu_max_isa needs (xla/backends/cpu/codegen/cpu_features.cc).
_NEEDED = {
    "SSE4_2": "sse4_2",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "AMX_FP16": "amx_fp16",
}


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model() -> str:
    """The name of the processor; its architecture where Linux does not say."""
    return _first_core().get("model name", platform.machine())


def features() -> list[str]:
    """The features of the processor, sorted; none where Linux does not say."""
    core = _first_core()
    return sorted(core.get("flags", core.get("Features", "")).split())


def digest_of_features() -> str:
    """A short hash of all features."""
    return hashlib.sha256(" ".join(features()).encode()).hexdigest()[:8]


def instruction_sets(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The features for which XLA may compile sums and products here.

    With --xla_cpu_max_isa in XLA_FLAGS it uses no newer ones: then only that one counts, if the processor has it.
    """
    found = features()
    limit = re.search(r"--xla_cpu_max_isa=(\w+)", environment.get("XLA_FLAGS", ""))
    if limit and _NEEDED.get(limit[1].upper()) in found:
        return [_NEEDED[limit[1].upper()]]
    return [feature for feature in found if _ARITHMETIC.match(feature)]


def options(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The options of XLA and jax that this process has from its environment."""
    xla = sorted(flag for flag in environment.get("XLA_FLAGS", "").split() if not flag.startswith(UNCOUNTED))
    jax = [f"{name}={value}" for name, value in sorted(environment.items()) if name.startswith("JAX_")]
    return {
        "XLA_FLAGS": " ".join(xla) or "none",
        "JAX options": " ".join(option for option in jax if not option.startswith(HARMLESS)) or "none",
    }


def _first_core() -> dict[str, str]:
    try:
        lines = PROCESSORS.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
