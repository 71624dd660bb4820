"""Runs from Python: ``solve`` starts one, ``open_run`` reads one, finished or not."""

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any, Callable

import numpy as np

from nivp_dist.config import Config, ProblemSettings
from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem, evaluate_reference, has_reference
from nivp_dist.problems.registry import SHIPPED, load
from nivp_dist.settings_io import RECORD, _anchor_problem_file, _validate, read_config
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.metrics import METRICS, plain, read_lines

METRIC_NAMES = (
    "step t h error rejected residual residual_fresh cg_iterations cg_wasted cg_residual evaluations theta_norm mu "
    "trace lambda_max lambda_min condition effective_dimension rank effective_sample_size wall_seconds"
).split()
CHUNK = 1 << 16  # points evaluated at once

Field = Callable[[np.ndarray], np.ndarray]


def solve(
    config: Config | dict | str | Path,
    *,
    problem: Problem | None = None,
    directory: str | Path | None = None,
    quiet: bool = False,
) -> "Run":
    """Fit the initial condition, evolve it to ``integrator.t_end``, and open the finished run.

    Args:
        config: a Config, a dictionary of its sections, a TOML file, or the name of a shipped configuration.
        problem: an instance of your own Problem class, in place of the configuration's [problem] section. The run
            directory records its class and parameters by name only: hand it to ``open_run`` too.
        directory: of the run, new or empty. Default: runs/NAME-NUMBER in the working directory.
        quiet: say nothing.

    Raises:
        InputError: bad input, one line, before anything large is compiled.
        RunFailed: the run cannot go on; one line says why and what to try.
        RunStopped: stopped by a signal, with a checkpoint.
    """
    import jax

    from nivp_dist import controller
    from nivp_dist.cluster.control import from_process_zero
    from nivp_dist.cluster.mesh import make_mesh
    from nivp_dist.problems import checks
    from nivp_dist.report.progress import Reporter, Silent

    resolved, name = _resolve(config, problem)
    own = {} if problem is None else {"problem": problem}
    make_mesh(resolved.devices)
    checks.check(problem or load(resolved.problem), resolved.problem.file or f"problem {resolved.problem.name}")
    path = Path(from_process_zero(lambda: str(run_directory.create(resolved, directory, name))))
    first = jax.process_index() == 0
    with Silent() if quiet or not first else Reporter() as reporter:
        # What is computed is what the directory says, so that a resume computes the same.
        recorded = read_config(path / RECORD)
        try:
            with run_directory.lock(path) if first else contextlib.nullcontext():
                controller.evolve(recorded, path, resume=False, reporter=reporter, **own)
        except InputError:
            if first:  # refused before it began: leave nothing behind
                run_directory.discard(path)
            raise
    return open_run(path, problem)


def open_run(directory: str | Path, problem: Problem | None = None) -> "Run":
    """The run in a directory: finished, stopped, or still going on.

    problem: the instance that ``solve`` was given, if it was given one.

    Raises InputError if the directory holds no run, or another problem's.
    """
    run_directory.read_summary(directory)  # refuses what is no run
    return Run(Path(directory).resolve(), problem)


class Run:
    """A run as it stands on the disk; every call reads anew, so that a run in progress can be watched.

    Attributes:
        directory: its run directory, absolute.
        config: its settings, resolved.
    """

    def __init__(self, directory: Path, problem: Problem | None = None):
        self.directory = directory
        self.config = read_config(directory / RECORD)
        self._problem = problem
        if problem is not None:
            self._require_same_problem(problem)

    def __repr__(self) -> str:
        summary = self.summary
        name = self.config.problem.name or self.config.problem.class_
        where = f", t = {summary['t']:g} of {summary['t_end']:g}" if {"t", "t_end"} <= summary.keys() else ""
        stored = len(snapshots.list_snapshots(self.directory))
        state = summary.get("status", "not started")
        return f"<Run {name} ({state}{where}, {stored} stored times) in {self.directory}>"

    @property
    def summary(self) -> dict:
        """summary.json; {} before there is one."""
        return run_directory.read_summary(self.directory) or {}

    @property
    def times(self) -> np.ndarray:
        """The stored times, in order."""
        return np.array([snapshot.t for snapshot in snapshots.list_snapshots(self.directory)], np.float64)

    @functools.cached_property
    def problem(self) -> Problem:
        """The problem. Raises InputError if its class cannot be found."""
        settings = self.config.problem
        if self._problem is not None:
            return self._problem
        if settings.file is None and settings.name not in SHIPPED:
            raise InputError(
                f"{self.directory}: solves the class {settings.name} of a Python session, which is not stored; "
                f"use open_run(directory, problem={settings.name}(...))"
            )
        return load(settings)

    def solution(self, t: float) -> Field:
        """The network at a stored time: a function of points (n, d) that gives (n, m) float64, m outputs.

        Raises ValueError if t is not a stored time (to a relative 1e-9); so does the function for points of
        another shape.
        """
        import jax

        network, theta = self._network, self.snapshot(t)["theta"]
        if theta.shape != (network.size,):
            raise InputError(
                f"{self.directory}: the network stored at t = {t:g} has {theta.size} parameters and [network] says "
                f"{network.size}: it was written by another version of nivp_dist"
            )
        values = jax.jit(network.values)

        def u(points):
            x = self._points(points)
            parts = [np.asarray(values(theta, x[i : i + CHUNK]), np.float64) for i in range(0, len(x), CHUNK)]
            return np.concatenate(parts) if parts else np.zeros((0, network.outputs))

        return u

    def reference(self, t: float) -> Field | None:
        """The problem's reference at any time t: points (n, d) -> (n, k), the first k outputs. None if it has none."""
        problem = self.problem
        if not has_reference(problem, float(t)):
            return None
        return lambda points: evaluate_reference(problem, self._points(points), float(t))

    def snapshot(self, t: float) -> dict[str, np.ndarray]:
        """All arrays stored at a stored time. Raises ValueError if t is none."""
        stored = snapshots.list_snapshots(self.directory)
        near = [entry for entry in stored if np.isclose(entry.t, t, rtol=1e-9, atol=1e-12)]
        if not near:
            times = ", ".join(f"{entry.t:g}" for entry in stored) or "none yet"
            raise ValueError(f"t = {t} is not a stored time; stored are: {times}")
        return snapshots.load(min(near, key=lambda entry: abs(entry.t - t)).path)

    def errors(self) -> dict[str, np.ndarray]:
        """Relative L2 error at the stored times: {"t", "relative_l2"}, NaN where there is no reference."""
        stored = self._snapshots()
        values = [float(entry.get("relative_l2", np.nan)) for entry in stored]
        return {"t": self.times, "relative_l2": np.array(values, np.float64)}

    def metrics(self) -> dict[str, np.ndarray]:
        """Every number logged at the accepted steps, name -> (steps,) float64; NaN where none was logged."""
        lines = read_lines(self.directory / METRICS)
        names = dict.fromkeys([*METRIC_NAMES, *(key for line in lines for key in line)])
        columns = {name: [line.get(name) for line in lines] for name in names}
        return {
            name: np.array([np.nan if value is None else value for value in column], np.float64)
            for name, column in columns.items()
            if all(map(_is_number_or_none, column))
        }

    def statistics(self) -> dict[str, np.ndarray]:
        """Moments of the solution at the stored times: "t" (times,), "mass" (times,), "mean" (times, d),
        "covariance" (times, d, d); a moment that is not stored at every time is left out."""
        stored = self._snapshots()
        moments = {"t": self.times}
        for name in ("mass", "mean", "covariance"):
            if stored and all(name in entry for entry in stored):
                moments[name] = np.stack([np.asarray(entry[name], np.float64) for entry in stored])
        return moments

    # ----------------------------------------------------------------------------------------------

    def _snapshots(self) -> list[dict[str, np.ndarray]]:
        return [snapshots.load(entry.path) for entry in snapshots.list_snapshots(self.directory)]

    @functools.cached_property
    def _network(self):
        from nivp_dist import networks

        return networks.build(self.config.network, self.problem)

    def _points(self, points) -> np.ndarray:
        x, d = np.asarray(points, np.float64), self.problem.domain.dimension
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(f"points must have the shape (n, {d}), got {x.shape}")
        return x

    def _require_same_problem(self, problem: Problem) -> None:
        given, recorded = _record(problem), self.config.problem
        if recorded.file is not None or recorded.name in SHIPPED:
            recorded = _record(load(recorded))  # with the defaults
        if given.name != recorded.name:
            raise InputError(f"{self.directory}: holds a run of {recorded.name}, not of {given.name}")
        if given.parameters != recorded.parameters:
            raise InputError(
                f"{self.directory}: holds a run of {given.name} with other parameters: {_difference(given, recorded)}"
            )


def _resolve(config, problem: Problem | None) -> tuple[Config, str]:
    """The validated settings, and the name of the run's directory."""
    if problem is not None and not isinstance(problem, Problem):
        raise InputError(f"problem must be an instance of a Problem class, got {problem!r}: problem=MyProblem(...)")
    if type(problem).__name__ in SHIPPED:
        raise InputError(f"the class {type(problem).__name__} has the name of a shipped problem: rename it")
    own = None if problem is None else _record(problem)
    name = None
    if isinstance(config, Config):
        resolved = config
    elif isinstance(config, dict):
        data = plain(config) | ({"problem": {"name": own.name}} if own else {})
        _anchor_problem_file(data, Path.cwd())
        resolved = _validate(data, "config", {})
    elif isinstance(config, (str, Path)):
        resolved, name = read_config(config, {"problem.name": own.name} if own else None), Path(config).stem
    else:
        raise InputError(f"config must be a Config, a dict, a path or a name, got {type(config).__name__}")
    if own:
        resolved = resolved.model_copy(update={"problem": own})
    return resolved, name or resolved.problem.name or Path(resolved.problem.file).stem


def _record(problem: Problem) -> ProblemSettings:
    """What a run directory says of an instance: a shipped problem's name, or the class's; and the parameters."""
    cls = type(problem)
    shipped = {(f"nivp_dist.problems.{module}", name): key for key, (module, name) in SHIPPED.items()}
    name = shipped.get((cls.__module__, cls.__name__), cls.__name__)
    parameters = {key: _storable(value) for key, value in dataclasses.asdict(problem).items() if value is not None}
    return ProblemSettings(name=name, parameters=parameters)


def _storable(value: Any) -> Any:
    """What TOML can hold: arrays as lists, and of what is no number or text the name only."""
    if isinstance(value, dict):
        return {str(key): _storable(entry) for key, entry in value.items()}
    value = plain(value)
    if isinstance(value, (list, tuple)):
        return [_storable(entry) for entry in value]
    if isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def _difference(given: ProblemSettings, recorded: ProblemSettings) -> str:
    mine, theirs = given.parameters, recorded.parameters
    names = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
    return ", ".join(f"{key} = {theirs.get(key)}, not {mine.get(key)}" for key in names)


def _is_number_or_none(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))
