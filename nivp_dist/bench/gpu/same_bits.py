"""A tiny run on the device, another that is stopped and resumed, and a third: all have the same bits.

The first run and the resumed one share compiled programs. The last compiles its own, for which XLA measures again
which of its kernels are the fastest on this GPU: other kernels may round differently.
"""

import time
from pathlib import Path

from nivp_dist.bench import child_process
from nivp_dist.bench.faults import outcome, tiny_run
from nivp_dist.bench.gpu.stages import Plan
from nivp_dist.errors import RunFailed
from nivp_dist.settings.model import IntegratorSettings

STOP = 9  # the step after which the second run ends, of 18: there is a refit before it
SOLVER = ("--solver.method", "pcg")  # the solver of large runs
LIMIT = 600.0  # seconds of one run; the limit of the stage is shorter


def plan(folder: Path) -> Plan:
    """folder: an empty one for the runs. Every run is a process of its own; this one leaves the GPU to them."""
    runs = _Runs(folder)
    return [
        ("run", runs.first),
        ("stopped and resumed", runs.resumed),
        ("run again, compiled again", runs.again),
    ]


class _Runs:
    def __init__(self, folder: Path):
        self.folder, self.config = folder, str(tiny_run.write(folder))

    def first(self) -> dict:
        seconds = self._evolve("first", *self._start("first"), cache="compiled")
        summary = outcome.read(self.folder / "first").summary
        return {"seconds": seconds, "steps": summary["steps"], "cg_iterations": summary["cg_iterations"]}

    def resumed(self) -> dict:
        message = f"integrator.max_steps = {STOP} reached"
        try:
            self._evolve("resumed", *self._start("resumed"), "--integrator.max_steps", str(STOP), cache="compiled")
        except RunFailed as error:
            if message not in str(error):
                raise
        steps = str(IntegratorSettings().max_steps)
        resume = "resume", str(self.folder / "resumed"), "--integrator.max_steps", steps
        seconds = self._evolve("resumed", *resume, cache="compiled")
        return {"seconds": seconds} | self._compare("resumed")

    def again(self) -> dict:
        return {"seconds": self._evolve("again", *self._start("again"), cache="off")} | self._compare("again")

    def _start(self, name: str) -> tuple[str, ...]:
        return "run", self.config, "--output", str(self.folder / name), *SOLVER

    def _evolve(self, name: str, *words: str, cache: str) -> float:
        """Run `nivp WORDS`. Returns its seconds, start included. Raises RunFailed with its last line."""
        place = cache if cache == "off" else str(self.folder / cache)
        started = time.perf_counter()
        words = *words, "--cluster.compilation_cache", place
        reason = child_process.evolve(list(words), self.folder / f"{name}.log", LIMIT)
        if reason is not None:
            raise RunFailed(f"{name}: {reason}")
        return time.perf_counter() - started

    def _compare(self, name: str) -> dict:
        first, other = (outcome.read(self.folder / run) for run in ("first", name))
        same = {part: getattr(first, part) == getattr(other, part) for part in ("snapshots", "metrics", "errors")}
        return {"same": same, "passed": all(same.values())}
