"""A model of the time that a velocity takes on many devices. `nivp bench speed cost_model` prints its table.

The time is the number of operations over the rate of the devices, plus that of the all-reduces:

- "pcg" sums p numbers over the devices in every CG iteration, and p x rank once for the sketch;
- "dual_pcg" sums p numbers, `rank` numbers and two groups of dot products in every iteration, and once, for its
  approximation, rank x rank numbers and the candidates for its columns.

tests/galerkin/test_velocity.py asserts these numbers on the compiled programs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from nivp_dist.galerkin.kernel import CANDIDATES, repeated_operations

FLOAT64 = 8  # bytes of an entry: the vectors of CG are float64 whatever the precision of products
COUNTS = (8, 64, 512, 1024)  # devices in the table


class Link(NamedTuple):
    """A network. latency: seconds of a hop; start: seconds of a call; bandwidth: bytes/s of one device."""

    latency: float
    start: float
    bandwidth: float


class Machine(NamedTuple):
    """flops: operations/s that one device sustains in the products. node: devices of a host. inside: the link among
    the devices of a host. between: the link between hosts."""

    flops: float
    node: int
    inside: Link
    between: Link


class Work(NamedTuple):
    """A velocity: p parameters, n points over all devices, CG iterations, rank of the preconditioner, dimension d,
    outputs m. sides: the sum of the rows and columns of all layers for "dual_pcg"; 0 for "pcg"."""

    p: int
    n: int
    iterations: int
    rank: int
    d: int
    m: int = 1
    sides: int = 0


# An H200 has 67 TFlop/s in float32, NVLink 4 450 GB/s and InfiniBand NDR 400 Gb/s for each GPU (published peak rates).
# 40 % of the first and 80 % of the others are assumed to be reached; the latencies are of the order that NCCL's tests
# report. Nothing here was measured by this project.
H200 = Machine(0.4 * 67e12, 8, Link(1e-6, 10e-6, 0.8 * 450e9), Link(5e-6, 10e-6, 0.8 * 50e9))
# Runs in 20 dimensions with three layers of width 218 and 700. For "dual_pcg" the ranks are those with which a run
# begins, and the iterations three times those that `nivp bench speed velocity` shows.
PRIMAL = (Work(100_000, 2**20, 150, 256, 20), Work(1_000_000, 2**20, 150, 256, 20))
DUAL = (
    PRIMAL[0]._replace(iterations=30, rank=768, sides=1_330),
    PRIMAL[1]._replace(iterations=30, rank=2000, sides=4_220),
)


def rhs_passes(work: Work) -> int:
    """Evaluations of the network that a right-hand side with a Laplacian costs: one for each of its Taylor streams."""
    return work.d + 2


def flops(work: Work) -> tuple[float, float, float]:
    """Operations of all devices together: (right-hand side and layer factors, approximation, CG).

    A product with J or with its transpose takes 2 n p operations with the layer factors, each column of a sketch
    2 n m p, and a right-hand side with gradient and Laplacian in d dimensions at most d + 2 passes of 2 n p (fewer in
    the first layer, whose inputs are those of a point: 4, 6.6, 9.9, 14.5 of width 128 in 2, 5, 10, 20 dimensions).
    """
    once, rows = 2.0 * work.n * work.p, work.n * work.m
    approximation, iterations = 2 * work.m * work.rank * once, 2 * work.iterations * once
    if work.sides:
        approximation = rows * work.rank * (2.0 * work.sides + 3.0 * work.rank)
        iterations += 4.0 * rows * work.rank * work.iterations
    return (rhs_passes(work) + 2 * work.m) * once, approximation, iterations


def flops_everywhere(work: Work) -> float:
    """Operations that every device repeats: "dual_pcg" chooses columns among candidates, and factorises."""
    if not work.sides:
        return 0.0
    return repeated_operations(work.sides, work.rank)


def all_reduce(numbers: float, devices: int, machine: Machine) -> float:
    """Seconds of the sum of float64 numbers over all devices.

    A ring in each host sums there; then a ring between the hosts sums the share of each device.
    """
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
    """The efficiency of strong scaling: the time on one device over `devices` times the time on all of them."""
    return sum(velocity(work, 1, machine)) / devices / sum(velocity(work, devices, machine))


def limit(work: Work, machine: Machine) -> int:
    """The largest number of devices, a power of two, with an efficiency of at least one half."""
    devices = 1
    while efficiency(work, 2 * devices, machine) >= 0.5:
        devices *= 2
    return devices


def rows(machine: Machine = H200, counts: Sequence[int] = COUNTS) -> list[dict]:
    """Times and efficiencies of the velocities PRIMAL and DUAL on these numbers of devices."""
    found = []
    for work in (*PRIMAL, *DUAL):
        larger = work._replace(n=8 * work.n)
        for devices in counts:
            computation, communication = velocity(work, devices, machine)
            found.append(
                {
                    "method": "dual_pcg" if work.sides else "pcg",
                    "p": work.p,
                    "n": work.n,
                    "devices": devices,
                    "computation": computation,
                    "communication": communication,
                    "efficiency": efficiency(work, devices, machine),
                    "efficiency_larger": efficiency(larger, devices, machine),
                }
            )
    return found


def table(machine: Machine = H200, counts: Sequence[int] = COUNTS) -> list[str]:
    """The rows as a table in Markdown."""
    lines = ["| | p | n | GPUs | computation | communication | efficiency | the same with n 8 times larger |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows(machine, counts):
        lines.append(
            f"| `{row['method']}` | {row['p']:,} | {row['n']:,} | {row['devices']:,} | {time_text(row['computation'])} "
            f"| {time_text(row['communication'])} | {row['efficiency']:.0%} | {row['efficiency_larger']:.0%} |"
        )
    return lines


def time_text(seconds: float) -> str:
    """Two digits are as many as the model is good for."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.1f} ms"
