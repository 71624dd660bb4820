"""GPUs that compute in float64 far slower than in float32."""

from collections.abc import Iterable
from typing import Any

# Compute capabilities of NVIDIA's GPUs with half the rate of float32 or more (P100, V100, A100, H100, B200). All later
# than 6.0 that are not here (T4, A10, L4, RTX, B300) have a 32nd or a 64th of it: CUDA C++ Programming Guide, table
# "Throughput of native arithmetic instructions".
FAST = ("6.0", "7.0", "8.0", "9.0", "10.0")
REMEDY = "set solver.precision = 'float32', and solver.method = 'pcg' or 'dual_pcg', whose residuals stay in float64"


def warning(devices: Iterable[Any]) -> str:
    """A line that names those of the jax devices that are slow in float64; empty if there is none."""
    kinds = ", ".join(sorted({device.device_kind for device in devices if is_slow(device)}))
    return f"{kinds}: float64 takes 32 times as long as float32 there, or more: {REMEDY}" if kinds else ""


def is_slow(device: Any) -> bool:
    """Whether a jax device is a GPU that is slow in float64."""
    return getattr(device, "compute_capability", FAST[0]) not in FAST
