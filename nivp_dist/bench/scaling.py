"""Weak and strong scaling of a velocity over devices and processes, each on cores of its own.

Every layout runs in new processes, which are bound to their cores before jax starts (``worker``). They time a velocity,
right-hand side included, with a fixed number of CG iterations, and take the median. The layouts are run in turn several
times; speed-ups are ratios of the medians over these turns. More devices than cores share them, and are not faster.
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


FULL = Size(40_000, 10_000, 40, 5, 16, 25, 5, 3)
QUICK = Size(2_000, 500, 8, 2, 4, 3, 2, 1, 1)
TIMEOUT = 600  # seconds for the processes of one layout


def layouts(cores: int) -> list[Layout]:
    """The layouts; the first, one device on one core, is the one with which the others are compared."""
    found = [Layout(1, devices, min(devices, cores)) for devices in (1, 2, 4)]
    return found + [Layout(2, 1, min(2, cores))]


def measure(kind: str, size: Size) -> list[dict]:
    """The lines of the table of `strong` or `weak` scaling."""
    cores = machine.cores()
    seconds: dict[Layout, list[float]] = {layout: [] for layout in layouts(len(cores))}
    for _, layout in itertools.product(range(size.turns), seconds):
        n = size.strong if kind == "strong" else size.weak * layout.parts
        found = run(layout, cores, n, size)
        seconds[layout].append(statistics.median(found["seconds"]))
    first = statistics.median(next(iter(seconds.values())))
    lines = []
    for layout, times in seconds.items():
        median = statistics.median(times)
        factor = first / median * (1 if kind == "strong" else layout.parts)
        line = layout._asdict() | {"n": size.strong if kind == "strong" else size.weak * layout.parts}
        lines.append(line | {"seconds": median, "speedup": factor, "efficiency": factor / layout.parts})
    return lines


def run(layout: Layout, cores: list[int], n: int, size: Size) -> dict:
    """The result of the worker: its seconds and CG iterations. Raises RunFailed with the last line of a failed one."""
    share = layout.cores // layout.processes or 1
    pinned = [[cores[(i * share + k) % len(cores)] for k in range(share)] for i in range(layout.processes)]
    wanted = {"n": n, "cores": pinned, "width": size.width, "depth": size.depth, "d": size.d, "rank": size.rank}
    wanted |= {"iterations": size.iterations, "rounds": size.rounds}
    command = [sys.executable, "-m", "nivp_dist.bench.worker", json.dumps(wanted)]
    if layout.processes > 1:
        command = [sys.executable, str(shipped("launch") / "local"), str(layout.processes), "--", *command]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={layout.devices}"
    environment = os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RunFailed(f"bench: {layout.processes} processes of {layout.devices} devices failed: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])
