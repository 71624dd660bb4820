"""A model of the time that a whole step takes on many devices: its velocities, and all that is around them.

Operations are counted in passes of 2 n p, as in ``cost_model``, whose machine and velocities it takes.
tests/bench/test_cost_model.py compares operations and messages with those of the compiled programs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from nivp_dist.bench import cost_model
from nivp_dist.bench.cost_model import DUAL, FLOAT64, H200, PRIMAL, Machine, Work, all_reduce, rhs_passes, time_text
from nivp_dist.galerkin.hardware import CORE, GPU
from nivp_dist.galerkin.methods import ITERATIVE, assumed_iterations, choose_method, initial_rank
from nivp_dist.integration.step_points import DENSITY_SWEEPS
from nivp_dist.network.network import Network
from nivp_dist.problems.base import Problem
from nivp_dist.settings.automatic import mu_of, number_of_points
from nivp_dist.settings.model import Config

# Seconds in which the host starts the programs of a step of six velocities and reads their numbers: the least of 20
# steps whose programs have next to nothing to compute, on one core of a CPU.
HOST_SECONDS = 10e-3
DRAW_FLOPS = 350.0  # operations for each coordinate of a new point (of the compiled program)
VELOCITIES = 6  # of a step with the default pair
SAVES = 1 / 20  # checkpoints a step; a long run writes fewer
STATE_VECTORS, DISK = 5, 1e9  # vectors of p numbers in a checkpoint; bytes/s that one host writes
GROUP = 8  # devices on which a weak scaling begins: one host
MANY = 1024
WANTED = 0.95  # of the efficiency of weak scaling
MOST_DEVICES = 4096


class Part(NamedTuple):
    """A part of a step.

    Attributes:
        passes: operations of all devices together, in units of 2 n p. sums: the sizes of its sums over all devices.
    """

    passes: float
    sums: tuple[float, ...]


def around(work: Work) -> dict[str, Part]:
    """The programs of a step besides those of its velocities.

    The error of a step takes the fields before and after, the solution, and a product with J; the check a right-hand
    side, the field and a product with J, on as many points, which are drawn for it.
    """
    m, moments = work.m, (work.d + 1.0, float(work.d**2))  # of the one Gaussian that points are drawn from
    points = Part(DRAW_FLOPS * work.d / (2 * work.p), (1.0, 3.0, 1.0))
    return {
        "points": points,
        "points of the check": points,
        "values": Part(1.0, ()),
        "density": Part(0.0, (1.0, 1.0) + moments * DENSITY_SWEEPS),
        "error": Part(3.0 + 2.0 * m, (4.0,)),
        "check": Part(rhs_passes(work) + 1.0 + 2.0 * m, (7.0,)),
    }


def costs(work: Work, devices: int, machine: Machine = H200) -> dict[str, float]:
    """Seconds of a step by their cause.

    "computation" is shared by the devices, "repeated" done by each of them; "sums" are the all-reduces; "host" is the
    start of programs; "saves" are checkpoints, on average.
    """
    parts, passes = around(work).values(), 2.0 * work.n * work.p
    once, approximation, iterations = cost_model.flops(work)
    # The approximation is made at the start of a step and serves all its velocities.
    shared = VELOCITIES * (once + iterations) + approximation + passes * sum(part.passes for part in parts)
    sums = VELOCITIES * (_sums(work, devices, machine) - _of_approximation(work, devices, machine))
    sums += _of_approximation(work, devices, machine)
    sums += sum(all_reduce(numbers, devices, machine) for part in parts for numbers in part.sums)
    return {
        "computation": shared / devices / machine.flops,
        "repeated": cost_model.flops_everywhere(work) / machine.flops,
        "sums": sums,
        "host": HOST_SECONDS,
        "saves": SAVES * STATE_VECTORS * FLOAT64 * work.p / DISK,
    }


def _sums(work: Work, devices: int, machine: Machine) -> float:
    """Seconds of the all-reduces of a velocity."""
    return cost_model.velocity(work, devices, machine)[1]


def _of_approximation(work: Work, devices: int, machine: Machine) -> float:
    return _sums(work._replace(iterations=0), devices, machine)


def saved_by_one_message(work: Work, devices: int, machine: Machine = H200) -> float:
    """The share of a step that would be saved if all that an iteration sums were one message, as in pipelined CG."""
    iterations = _sums(work, devices, machine) - _of_approximation(work, devices, machine)
    numbers = work.p + (work.rank + 6 if work.sides else 0)
    fused = work.iterations * all_reduce(numbers, devices, machine)
    return VELOCITIES * (iterations - fused) / sum(costs(work, devices, machine).values())


def weak_efficiency(work: Work, devices: int, machine: Machine = H200) -> float:
    """Seconds of a step on GROUP devices over those on more, with as many points on each. work: on GROUP devices."""
    more = work._replace(n=work.n * devices // GROUP)
    return sum(costs(work, GROUP, machine).values()) / sum(costs(more, devices, machine).values())


def where_it_ends(work: Work, machine: Machine = H200) -> tuple[int, str]:
    """The largest number of devices, GROUP times a power of two, with WANTED, and the cause that grows most then."""
    devices = GROUP
    while devices < MOST_DEVICES and weak_efficiency(work, 2 * devices, machine) >= WANTED:
        devices *= 2
    before = costs(work, GROUP, machine)
    after = costs(work._replace(n=2 * work.n * devices // GROUP), 2 * devices, machine)
    return devices, max(after, key=lambda cause: after[cause] - before[cause])


def work_of(config: Config, problem: Problem, network: Network, devices: int) -> Work:
    """A velocity of the configuration, by the method and with the iterations that it begins with by assumption.

    Raises ValueError for a direct method, which the model does not have.
    """
    solver, n = config.solver, number_of_points(config.sampling)
    method = choose_method(solver, network, n, hardware=CORE._replace(rates=GPU, devices=devices))
    if method not in ITERATIVE:
        raise ValueError(f"the model has conjugate gradients alone, and the method is {method}")
    iterations = round(assumed_iterations(method, mu_of(solver)))
    rank = initial_rank(method, network, mu_of(solver), solver.max_rank)
    sides = sum(layer.rows + layer.columns for layer in network.layers) if method == "dual_pcg" else 0
    return Work(network.size, n, iterations, rank, network.dimension, network.outputs, sides)


def rows(works: Sequence[Work] = (*PRIMAL, *DUAL), machine: Machine = H200) -> list[dict]:
    """For each velocity, with its points on GROUP devices: the seconds of a step there by their causes, and how it
    scales with as many points on each of more devices."""
    found = []
    for work in works:
        devices, cause = where_it_ends(work, machine)
        many = work._replace(n=work.n * MANY // GROUP)
        found.append(
            {
                "method": "dual_pcg" if work.sides else "pcg",
                "p": work.p,
                "n": work.n,
                "costs": costs(work, GROUP, machine),
                "efficiency": weak_efficiency(work, MANY, machine),
                "devices": devices,
                "cause": cause,
                "devices_larger": where_it_ends(work._replace(n=8 * work.n), machine)[0],
                "saved": saved_by_one_message(many, MANY, machine),
            }
        )
    return found


def table() -> list[str]:
    """The rows as a table in Markdown."""
    lines = [
        f"| | p | n on {GROUP} GPUs | a step there | of it not computation | weak efficiency on {MANY:,} GPUs "
        f"| {WANTED:.0%} up to | what grows most | with n 8 times larger up to | saved by one message an iteration |",
        "|" + "---|" * 10,
    ]
    for row in rows():
        total = sum(row["costs"].values())
        lines.append(
            f"| `{row['method']}` | {row['p']:,} | {row['n']:,} | {time_text(total)} "
            f"| {1 - row['costs']['computation'] / total:.1%} | {row['efficiency']:.0%} | {_devices(row['devices'])} "
            f"| {row['cause']} | {_devices(row['devices_larger'])} | {row['saved']:.1%} |"
        )
    return lines


def _devices(count: int) -> str:
    return f"{count:,} and more" if count == MOST_DEVICES else f"{count:,}"
