"""Runs from Python: ``solve`` starts one, ``resume`` continues one, ``open_run`` reads one, finished or not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nivp_dist.callbacks import Callback
from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem
from nivp_dist.problems.registry import SHIPPED
from nivp_dist.run.stored import Run, open_run, recorded, require_same_problem, session_class
from nivp_dist.settings.files import name_of, read_config, resolve_files, resume_config
from nivp_dist.settings.model import Config
from nivp_dist.settings.validation import validate
from nivp_dist.storage.metrics import plain

if TYPE_CHECKING:
    from nivp_dist.run.launch import View  # which starts jax


def solve(
    config: Config | dict | str | Path,
    *,
    problem: Problem | None = None,
    directory: str | Path | None = None,
    resume_if_present: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> Run:
    """Fit the initial condition, evolve it to ``integrator.t_end``, and open the finished run.

    A script that srun, mpirun or launch/local has started in several processes computes the run in all of them; every
    process calls this, and gets the run.

    Args:
        config: a Config, a dictionary of its sections, a TOML file, or the name of a shipped configuration.
        problem: an instance of your own Problem class, in place of the configuration's [problem] section. The run
            directory records only the name of its class and its parameters: pass the instance to ``resume`` and
            ``open_run`` too.
        directory: the run directory, new or empty. Default: runs/NAME-NUMBER in the working directory.
        callbacks: instances of Callback classes (``nivp_dist.callbacks``), called while the run goes. The run directory
            does not record them. A run that one of them stops is returned as it is, with the status "event".
        resume_if_present: continue the run in the directory, if it holds one, in place of starting another.
        quiet: print nothing.

    Raises:
        InputError: bad input; it is found before anything large is compiled.
        RunFailed: the run cannot continue; the message says why and what to try.
        RunStopped: a signal has stopped the run, after a checkpoint.
    """
    resolved, name = _resolve(config, problem)
    view = _view(quiet, callbacks)
    launch = _launch(resolved)
    if resume_if_present:
        if directory is None:
            raise InputError("resume_if_present needs the directory of the run: directory=...")
        if launch.is_present(directory):
            path = Path(directory).expanduser().resolve()
            return _resume(path, *launch.continuation(path, resolved), problem, view)
    path = launch.start(resolved, directory, name, view, problem)
    return _open(path, problem)


def resume(
    directory: str | Path,
    *,
    problem: Problem | None = None,
    settings: dict[str, object] | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
) -> Run:
    """Continue the run in a directory from its newest checkpoint, and open the finished run.

    Args:
        problem: the instance that ``solve`` was given, if it was given one.
        settings: dotted key -> new value, such as {"integrator.t_end": 2.0}; the keys are those that may change
            between a run and its continuation (``nivp guide files``).
        callbacks: as for ``solve``.
        quiet: print nothing.

    Raises as ``solve``, and InputError if the directory holds no run, another problem's, or if a key may not change.
    """
    changes = {key: _as_text(value) for key, value in (settings or {}).items()}
    path = Path(directory).expanduser().resolve()
    return _resume(path, resume_config(path, changes), bool(changes), problem, _view(quiet, callbacks))


def _resume(path: Path, config: Config, changed: bool, problem: Problem | None, view: "View") -> Run:
    if problem is not None:
        require_same_problem(path, config.problem, problem)
    elif (name := session_class(config.problem)) is not None:
        raise InputError(
            f"{path}: solves the class {name} of a Python session, which is not stored; "
            f"use resume(directory, problem={name}(...))"
        )
    _launch(config).resume(path, config, changed, view, problem=problem)
    return _open(path, problem)


def _as_text(value: object) -> str:
    """A value as the command line would have it."""
    return value if isinstance(value, str) else json.dumps(plain(value))


def _launch(config: Config):
    """The module that starts runs, after this process has joined the others of its script. Every process calls it."""
    from nivp_dist.cluster import script

    script.join(config.cluster)
    from nivp_dist.run import launch

    return launch


def _view(quiet: bool, callbacks: Sequence[Callback]) -> "View":
    from nivp_dist.callbacks.loading import require_callbacks
    from nivp_dist.report import draw_pictures
    from nivp_dist.report.progress import Reporter
    from nivp_dist.run.launch import View
    from nivp_dist.run.reporter import SilentReporter

    require_callbacks(callbacks)
    return View(SilentReporter if quiet else Reporter, draw_pictures, callbacks=callbacks)


def _open(path: Path, problem: Problem | None) -> Run:
    """The finished run, on every process: process 0 has written its last file by then."""
    from nivp_dist.cluster.control import from_process_zero

    from_process_zero(str)
    return open_run(path, problem)


def _resolve(config: Config | dict | str | Path, problem: Problem | None) -> tuple[Config, str]:
    """The validated settings, and the name of the default run directory. Raises InputError."""
    if problem is not None:
        if not isinstance(problem, Problem):
            raise InputError(f"problem must be an instance of a Problem class, got {problem!r}: problem=MyProblem(...)")
        if type(problem).__name__ in SHIPPED:
            raise InputError(f"the class {type(problem).__name__} has the name of a shipped problem: rename it")
    own = None if problem is None else recorded(problem)
    name = None
    if isinstance(config, Config):
        resolved = config
    elif isinstance(config, dict):
        data = plain(config) | ({"problem": {"name": own.name}} if own else {})
        resolve_files(data, Path.cwd())
        resolved = validate(data, "config", {})
    elif isinstance(config, str | Path):
        override = {"problem.name": own.name} if own and own.name else None
        resolved, name = read_config(config, override), name_of(config)
    else:
        raise InputError(f"config must be a Config, a dict, a path or a name, got {type(config).__name__}")
    if own:
        resolved = resolved.model_copy(update={"problem": own})
    return resolved, name or resolved.problem.name or Path(resolved.problem.file or "run").stem
