"""A process that resumes stopped runs on request and stays alive, because starting jax and tracing the programs takes
longer than a run.

    python -m nivp_dist.bench.faults.worker FOLDER

first makes, in FOLDER, the undisturbed run and runs that were stopped on the way. Then it takes the path of a run
directory a line, and answers with a line of JSON: [how the resume ended, its line, its messages].
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import jax

import nivp_dist.backend  # noqa: F401  float64
from nivp_dist.bench.faults import tiny_run
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.problems.base import Problem
from nivp_dist.run import controller, launch
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.run.simulation import Simulation
from nivp_dist.settings.files import config_hash, read_config, resume_config
from nivp_dist.settings.model import Config

UNDISTURBED = "undisturbed"
FINISHED, REFUSED, FAILED = "finished", "refused", "traceback"


class Killed(BaseException):
    """The end of a run, as far as its directory can tell: nothing is written any more."""


class Listener(SilentReporter):
    """Collects the warnings of a run, and how it was resumed; in step `last` it raises Killed."""

    def __init__(self, last: int | None = None):
        self.last, self.steps, self.messages = last, 0, []

    def step(self, metrics, t_end):
        self.steps += 1
        if self.steps == self.last:
            raise Killed

    def warn(self, message):
        self.messages.append(message)

    def note(self, message):
        if message.startswith("resumed at"):
            self.messages.append(message)


class Simulations:
    """The simulation of the undisturbed run, made once: tracing it takes longer than a run. Any other is made anew."""

    def __init__(self):
        self._made: tuple[tuple, Simulation] | None = None

    def __call__(self, config: Config, problem: Problem, note: Callable[[str], None] = lambda line: None) -> Simulation:
        # Not where a run is and keeps its copy of the problem's file, but what that says.
        key = config_hash(config), config.model_dump_json(exclude={"problem": {"file"}, "output": {"directory"}})
        if self._made is None:
            self._made = key, Simulation(config, problem, note)
        return self._made[1] if self._made[0] == key else Simulation(config, problem, note)


def prepare(folder: Path) -> None:
    """Make the undisturbed run, and those that were killed in one of its steps."""
    config = read_config(tiny_run.write(folder), {"devices": "1"})
    for name, last in {UNDISTURBED: None, **tiny_run.STOPPED}.items():
        try:
            launch.start(config, folder / name, name, _view(Listener(last)))
        except Killed:
            continue
        assert last is None, f"the run ended before step {last}"


def resume(directory: Path) -> tuple[str, str, list[str]]:
    """Resume a run: FINISHED, REFUSED or FAILED, the line of a refusal or the traceback, and its messages."""
    listener = Listener()
    try:
        launch.resume(directory, resume_config(directory), False, _view(listener))
    except (InputError, RunFailed) as error:
        return REFUSED, str(error), listener.messages
    except Exception:  # noqa: BLE001  a defect, which is what this is looking for
        return FAILED, traceback.format_exc(), listener.messages
    return FINISHED, "", listener.messages


def main(folder: Path, answer: Callable[[object], None]) -> None:
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    controller.Simulation = Simulations()
    prepare(folder)
    answer("ready")
    for line in sys.stdin:
        answer(resume(Path(line.rstrip("\n"))))


def _view(listener: Listener) -> launch.View:
    return launch.View(lambda: listener, lambda *_: None)


if __name__ == "__main__":
    # What libraries print goes to the log, so that the answers are alone in the pipe.
    with os.fdopen(os.dup(1), "w") as pipe:
        os.dup2(2, 1)
        main(Path(sys.argv[1]), lambda value: print(json.dumps(value), file=pipe, flush=True))
