"""What a velocity costs on many devices: a model with three constants, and what it predicts (README, "Scaling").

Communication (asserted on the compiled programs in tests/galerkin/test_velocity.py): "pcg" sends p numbers a CG
iteration and p x rank a sketch; "dual_pcg" p, `rank` and two groups of dot products an iteration, and for its
approximation rank x rank and the candidates for its columns.
"""

import math
from typing import NamedTuple

from nivp_dist.galerkin.kernel import CANDIDATES

FLOAT64 = 8  # bytes: the vectors of CG


class Link(NamedTuple):
    """What an all-reduce runs over. latency: seconds a hop; start: seconds a call; bandwidth: bytes/s of one device."""

    latency: float
    start: float
    bandwidth: float


class Machine(NamedTuple):
    """flops: sustained in the products, of one device. inside: among the `node` devices of a host. between: hosts."""

    flops: float
    node: int
    inside: Link
    between: Link


class Work(NamedTuple):
    """One velocity: p parameters, n points over all devices, CG iterations, the rank of what CG is preconditioned with,
    dimension d, outputs m. sides: the sum of rows and columns of the layers for "dual_pcg"; 0 for "pcg"."""

    p: int
    n: int
    iterations: int
    rank: int
    d: int
    m: int = 1
    sides: int = 0


# H200 on NVLink 4 and InfiniBand NDR (400 Gb/s a GPU): published peak rates times what is usually reached (40 % of the
# float32 rate, 80 % of the links); latencies are those of NCCL's own tests. Assumptions, not measurements of ours.
H200 = Machine(0.4 * 67e12, 8, Link(1e-6, 10e-6, 0.8 * 450e9), Link(5e-6, 10e-6, 0.8 * 50e9))
# A long run in 20 dimensions, and one ten times larger: three layers of 218 and of 700; for "dual_pcg" the ranks that
# it begins with, and three times the iterations of `nivp bench speed velocity`.
TYPICAL = (Work(100_000, 2**20, 150, 256, 20), Work(1_000_000, 2**20, 150, 256, 20))
BY_SAMPLES = (
    TYPICAL[0]._replace(iterations=30, rank=768, sides=1_330),
    TYPICAL[1]._replace(iterations=30, rank=2000, sides=4_220),
)


def flops(work: Work) -> tuple[float, float, float]:
    """(right-hand side with its layer factors, approximation, CG), over all devices.

    A product with J, or with its transpose, is 2 n p operations from the layer factors; one of a sketch 2 n m p a
    column; a value with gradient and Laplacian in d dimensions about 3 d + 3 forward passes of 2 n p.
    """
    once, rows = 2.0 * work.n * work.p, work.n * work.m
    approximation, iterations = 2 * work.m * work.rank * once, 2 * work.iterations * once
    if work.sides:
        approximation = rows * work.rank * (2.0 * work.sides + 3.0 * work.rank)
        iterations += 4.0 * rows * work.rank * work.iterations
    return (3 * work.d + 3 + 2 * work.m) * once, approximation, iterations


def flops_everywhere(work: Work) -> float:
    """What every device does for itself: the choice of the columns of "dual_pcg" among candidates, factorisations."""
    if not work.sides:
        return 0.0
    return CANDIDATES * work.rank**2 * (2.0 * work.sides + 2.0 * work.rank) + work.rank**3


def all_reduce(numbers: float, devices: int, machine: Machine) -> float:
    """Seconds for a sum of so many float64 over all devices: rings in the hosts, then, of each one's share, between."""
    inside = min(devices, machine.node)
    hosts = math.ceil(devices / machine.node)
    seconds, size = 0.0, FLOAT64 * numbers
    if inside > 1:
        seconds += machine.inside.start + 2 * math.log2(inside) * machine.inside.latency
        seconds += 2 * (inside - 1) / inside * size / machine.inside.bandwidth
    if hosts > 1:
        seconds += machine.between.start + 2 * math.log2(hosts) * machine.between.latency
        seconds += 2 * (hosts - 1) / hosts * size / inside / machine.between.bandwidth
    return seconds


def velocity(work: Work, devices: int, machine: Machine) -> tuple[float, float]:
    """(seconds of computation, seconds of communication) of one velocity; they do not overlap."""
    computation = (sum(flops(work)) / devices + flops_everywhere(work)) / machine.flops
    iteration = all_reduce(work.p, devices, machine)
    once = all_reduce(work.p * work.rank, devices, machine)
    if work.sides:
        iteration += all_reduce(work.rank, devices, machine) + 2 * all_reduce(3, devices, machine)
        scores = CANDIDATES * work.rank * (devices + work.d + 1)
        once = all_reduce(work.rank**2, devices, machine) + all_reduce(scores, devices, machine)
    return computation, work.iterations * iteration + once


def efficiency(work: Work, devices: int, machine: Machine) -> float:
    """Of strong scaling: the time on one device over `devices` times that on all."""
    return sum(velocity(work, 1, machine)) / devices / sum(velocity(work, devices, machine))


def limit(work: Work, machine: Machine) -> int:
    """The largest power of two of devices that still work at half of their efficiency or more."""
    devices = 1
    while efficiency(work, 2 * devices, machine) >= 0.5:
        devices *= 2
    return devices


def table(machine: Machine = H200, counts=(8, 64, 512, 1024)) -> list[str]:
    """The README's table, in Markdown."""
    lines = ["| | p | n | GPUs | computation | communication | efficiency | the same with n 8 times larger |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for work in (*TYPICAL, *BY_SAMPLES):
        larger, method = work._replace(n=8 * work.n), "dual_pcg" if work.sides else "pcg"
        for devices in counts:
            computation, communication = velocity(work, devices, machine)
            lines.append(
                f"| `{method}` | {work.p:,} | {work.n:,} | {devices:,} | {_time(computation)} | {_time(communication)} "
                f"| {efficiency(work, devices, machine):.0%} | {efficiency(larger, devices, machine):.0%} |"
            )
    return lines


def _time(seconds: float) -> str:
    return (
        f"{seconds:.2f} s"
        if seconds >= 1
        else f"{1e3 * seconds:.0f} ms"
        if seconds >= 0.01
        else f"{1e3 * seconds:.1f} ms"
    )
