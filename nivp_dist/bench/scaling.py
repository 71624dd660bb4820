"""Weak and strong scaling of a velocity and of a whole step over devices and processes, each on cores of its own.

Every layout runs in new processes, which are bound to their cores before jax starts (``worker``). They time a velocity,
right-hand side included, with a fixed number of CG iterations, or accepted steps of a run, and take the median. The
layouts are run in turn several times; speed-ups are ratios of the medians over these turns. More devices than cores
share them, and are not faster.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
from typing import NamedTuple

from nivp_dist.bench import machine
from nivp_dist.errors import RunFailed
from nivp_dist.settings.files import shipped


class Layout(NamedTuple):
    """A number of processes with `devices` devices each, on `cores` cores altogether."""

    processes: int
    devices: int
    cores: int

    @property
    def parts(self) -> int:
        return self.processes * self.devices


class Size(NamedTuple):
    """strong: all points of strong scaling. weak: points of each device of weak scaling. rounds: velocities timed in a
    process. turns: processes started for each layout. The others describe network and solver."""

    strong: int
    weak: int
    width: int
    d: int
    rank: int
    iterations: int
    rounds: int
    turns: int
    depth: int = 3


# Of a velocity and of a step, in full and quickly.
FULL = {
    "velocity": Size(40_000, 10_000, 40, 5, 16, 25, 5, 3),
    "step": Size(40_000, 20_000, 40, 5, 64, 25, 5, 3),
}
QUICK = {
    "velocity": Size(2_000, 500, 8, 2, 4, 3, 2, 1, 1),
    "step": Size(2_000, 500, 8, 2, 4, 3, 2, 1, 1),
}
TIMEOUT = 600  # seconds for the processes of one layout


def layouts(cores: int) -> list[Layout]:
    """The layouts; the first, one device on one core, is the one with which the others are compared."""
    found = [Layout(1, devices, min(devices, cores)) for devices in (1, 2, 4)]
    return found + [Layout(2, 1, min(2, cores))]


def measure(kind: str, what: str, size: Size) -> list[dict]:
    """The lines of the table of `strong` or `weak` scaling of a `velocity` or a `step`.

    The last line of weak scaling has as many processes as cores that know nothing of each other, each with the work of
    one. They share the memory of the machine, and no more: no layout can be more efficient.
    """
    cores = machine.cores()
    seconds: dict[Layout, list[float]] = {layout: [] for layout in layouts(len(cores))}
    apart = Layout(len(cores), 0, len(cores))
    if kind == "weak":
        seconds[apart] = []
    for _, layout in itertools.product(range(size.turns), seconds):
        n = size.strong if kind == "strong" else size.weak * max(1, layout.parts)
        found = run_apart(cores, n, size, what) if layout == apart else run(layout, cores, n, size, what)
        seconds[layout].append(statistics.median(found["seconds"]))
    first = statistics.median(next(iter(seconds.values())))
    return [_line(kind, layout, statistics.median(times), first, size) for layout, times in seconds.items()]


def _line(kind: str, layout: Layout, median: float, first: float, size: Size) -> dict:
    parts = layout.parts or layout.processes
    factor = first / median * (1 if kind == "strong" else parts)
    n = size.strong if kind == "strong" else size.weak * parts
    return layout._asdict() | {"n": n, "seconds": median, "speedup": factor, "efficiency": factor / parts}


def run(layout: Layout, cores: list[int], n: int, size: Size, what: str) -> dict:
    """The result of the worker: its seconds and CG iterations. Raises RunFailed with the last line of a failed one."""
    share = layout.cores // layout.processes or 1
    pinned = [[cores[(i * share + k) % len(cores)] for k in range(share)] for i in range(layout.processes)]
    return _result(_started(layout, pinned, n, size, what), layout)


def run_apart(cores: list[int], n: int, size: Size, what: str) -> dict:
    """The same of processes on a core each that are not connected, at the same time: the slowest of each round."""
    layout = Layout(1, 1, 1)
    processes = [_started(layout, [[core]], n, size, what) for core in cores]
    found = [_result(process, layout) for process in processes]
    rounds = zip(*(each["seconds"] for each in found), strict=True)
    return {"seconds": [max(times) for times in rounds], "iterations": found[0]["iterations"]}


def _started(layout: Layout, pinned: list[list[int]], n: int, size: Size, what: str) -> subprocess.Popen:
    wanted = {"n": n, "cores": pinned, "width": size.width, "depth": size.depth, "d": size.d, "rank": size.rank}
    wanted |= {"iterations": size.iterations, "rounds": size.rounds, "what": what}
    command = [sys.executable, "-m", "nivp_dist.bench.worker", json.dumps(wanted)]
    if layout.processes > 1:
        command = [sys.executable, str(shipped("launch") / "local"), str(layout.processes), "--", *command]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={layout.devices}"
    environment = os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen, layout: Layout) -> dict:
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RunFailed(f"bench: {layout.processes} processes did not end in {TIMEOUT} s") from None
    if process.returncode:
        last = (errors.strip() or "no message").splitlines()[-1]
        raise RunFailed(f"bench: {layout.processes} processes of {layout.devices} devices failed: {last}")
    return json.loads(output.strip().splitlines()[-1])
