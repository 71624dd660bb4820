"""A run on the disk, read: its solution, errors, metrics and integrals."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem, evaluate_reference, has_reference
from nivp_dist.problems.registry import SHIPPED, load
from nivp_dist.run.stored_density import DensityRun
from nivp_dist.settings.files import RECORD, read_config
from nivp_dist.settings.model import ProblemSettings
from nivp_dist.storage import problem_copy, run_directory, snapshots
from nivp_dist.storage.columns import Columns
from nivp_dist.storage.metrics import METRICS, iterate, plain

if TYPE_CHECKING:
    import xarray

    from nivp_dist.run.stored_solution import StoredSolution  # which imports jax

METRIC_NAMES = (
    "step t h error order rejected residual residual_fresh cg_iterations cg_wasted cg_residual evaluations theta_norm "
    "mu trace rank effective_sample_size coverage turn estimate estimate_bound estimate_initial estimate_residual "
    "estimate_steps estimate_refits theta_step jacobian_share h_rho h_rho_angle h_rho_limit wall_seconds lambda_max "
    "lambda_min condition effective_dimension numerical_rank rhs_below_mu condition_preconditioned cg_iterations_bound "
    "cg_iterations_first spectrum_seconds implicit"
).split()
DENSITY_ERRORS = ("relative_l2_normalised", "relative_l2_unweighted", "log_rms", "kl")

Field = Callable[[np.ndarray], np.ndarray]


class Run(DensityRun):
    """A run on the disk. Every call reads the files anew, so that a run in progress can be watched.

    Attributes:
        directory: its run directory, absolute.
        config: its settings, defaults included.
    """

    def __init__(self, directory: Path, problem: Problem | None = None):
        self.directory = directory
        self.config = read_config(directory / RECORD)
        self._problem = problem
        if problem is not None:
            require_same_problem(directory, self.config.problem, problem)

    def __repr__(self) -> str:
        summary = self.summary
        name = self.config.problem.name or self.config.problem.class_
        where = f", t = {summary['t']:g} of {summary['t_end']:g}" if {"t", "t_end"} <= summary.keys() else ""
        stored = len(snapshots.list_snapshots(self.directory))
        state = summary.get("status", "not started")
        return f"<Run {name} ({state}{where}, {stored} stored times) in {self.directory}>"

    @property
    def summary(self) -> dict:
        """The contents of summary.json; {} before there is one."""
        return run_directory.read_summary(self.directory) or {}

    @property
    def times(self) -> np.ndarray:
        """The stored times, in order."""
        return np.array([snapshot.t for snapshot in snapshots.list_snapshots(self.directory)], np.float64)

    @functools.cached_property
    def problem(self) -> Problem:
        """The problem, with its parameters. Raises InputError if its class cannot be found."""
        settings = self.config.problem
        if self._problem is not None:
            return self._problem
        if (name := session_class(settings)) is not None:
            raise InputError(
                f"{self.directory}: solves the class {name} of a Python session, which is not stored; "
                f"use open_run(directory, problem={name}(...))"
            )
        problem_copy.require_unchanged(self.directory)
        return load(settings)

    def solution(self, t: float) -> "StoredSolution":
        """The network at a stored time: a function of points (n, d) that gives (n, m) float64, m outputs.

        It can be the initial condition of another problem (``StoredSolution``). Raises ValueError if t is not a stored
        time (to a relative 1e-9).
        """
        from nivp_dist.run.stored_solution import StoredSolution

        found = self._find(t)
        files = [Path(file) for file in [self.config.problem.file] if file is not None]
        files = [found.path, *files, *(self.directory / name for name in problem_copy.recorded(self.directory))]
        theta = snapshots.load(found.path)["theta"]
        return StoredSolution(self._network, theta, found.t, files, self.directory / RECORD)

    def reference(self, t: float) -> Field | None:
        """The problem's reference at any time t: points (n, d) -> (n, k), the first k outputs. None if it has none."""
        problem = self.problem
        if not has_reference(problem, float(t)):
            return None
        return lambda points: evaluate_reference(problem, self._points(points), float(t))

    def snapshot(self, t: float) -> dict[str, np.ndarray]:
        """All arrays stored at a stored time, by name. Raises ValueError if t is not a stored time."""
        return snapshots.load(self._find(t).path)

    def errors(self) -> dict[str, np.ndarray]:
        """Errors at the stored times, each (times,): "t"; "relative_l2" against the reference, NaN where there is none;
        "estimate" and "estimate_bound" by the run itself (``monitoring.estimate``); of densities also DENSITY_ERRORS.
        """
        always = ("relative_l2", "estimate", "estimate_bound")
        stored = self._stored(lambda name: name in (*always, *DENSITY_ERRORS))
        names = [*always, *(name for name in DENSITY_ERRORS if any(name in entry for entry in stored))]
        columns = {name: [float(entry.get(name, np.nan)) for entry in stored] for name in names}
        return {"t": self.times} | {name: np.array(column, np.float64) for name, column in columns.items()}

    def metrics(self) -> dict[str, np.ndarray]:
        """Every number logged at the accepted steps, name -> (steps,) float64; NaN where none was logged."""
        columns = Columns(METRIC_NAMES)
        for line in iterate(self.directory / METRICS):
            columns.append(line)
        return columns.arrays()

    def statistics(self) -> dict[str, np.ndarray]:
        """Integrals of the solution at the stored times: "t" (times,), "mass" (times,), "mean" (times, d),
        "covariance" (times, d, d), of densities also "log_normalisation" and "entropy" (times,), and the invariants of
        the problem with their standard errors as "invariant_NAME" (times, 2). Arrays that are not stored at every time
        are left out.
        """
        names = ["mass", "mass_error", "mean", "covariance", "log_normalisation", "entropy"]
        stored = self._stored(lambda name: name in names or name.startswith("invariant_"))
        names = [*names, *sorted({name for entry in stored for name in entry if name.startswith("invariant_")})]
        columns = {name: [np.asarray(entry[name], np.float64) for entry in stored if name in entry] for name in names}
        whole = {name: np.stack(column) for name, column in columns.items() if column and len(column) == len(stored)}
        return {"t": self.times} | whole

    def integrals(self, t: float) -> np.ndarray:
        """The integrals at a stored time on which the equation depends (``Problem.integrals``): (k,).

        They are computed by the problem's nodes, or, roughly, by 4,096 points. Raises ValueError if it depends on none.
        """
        from nivp_dist.problems.nonlocal_terms import further_arguments

        if not callable(self.problem.integrals):
            raise ValueError("the equation depends on no integrals (Problem.integrals)")
        return np.asarray(further_arguments(self.problem, self.solution(t), float(t))[0], np.float64)

    def to_xarray(
        self,
        grid: int | Sequence[int] | None = None,
        at: Mapping[str, float] | None = None,
        *,
        marginals: int | None = None,
        samples: int | None = None,
        times: Sequence[float] | None = None,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        seed: int = 0,
    ) -> "xarray.Dataset":
        """The run as a dataset of xarray: the outputs on a grid, or marginals or samples of the first output.

        Beside an output u are its reference u_exact and their difference u_error, where the problem has a reference.
        The attributes hold configuration and versions. Needs the extra ``export``.

        Args:
            grid: the number of points along each free coordinate, one for all or one for each.
            at: values of the coordinates that are not free, such as {"x3": 0.0}; coordinates are named x1, ..., xd.
            marginals: in place of a grid, the number of bins of the marginal density of every coordinate.
            samples: in place of a grid, the number of samples at every time; seed: of their random numbers.
            times: stored times; default: all. bounds: {"x1": (-1.0, 1.0)} of grid and marginals; default: bounded
                axes as a whole, and of real ones the part that the collocation points fill.

        Raises InputError for what does not suit the problem, and if xarray is missing; ValueError for other times.
        """
        from nivp_dist.run import tabulated

        tabulated.library("xarray")  # before the work
        what = tabulated.kind(grid, at, bounds, marginals, samples, seed)
        return tabulated.dataset(tabulated.tabulate(self, what, times))

    # ----------------------------------------------------------------------------------------------

    def _stored(self, wanted: Callable[[str], bool]) -> list[dict[str, np.ndarray]]:
        """The arrays of all snapshots whose names are wanted."""
        return [snapshots.load(entry.path, wanted) for entry in snapshots.list_snapshots(self.directory)]

    def _find(self, t: float) -> snapshots.Snapshot:
        found = snapshots.find(self.directory, t)
        if found is None:
            times = ", ".join(f"{time:g}" for time in self.times) or "none yet"
            raise ValueError(f"t = {t} is not a stored time; stored are: {times}")
        return found

    @functools.cached_property
    def _network(self):
        from nivp_dist.network.forms import for_problem
        from nivp_dist.network.network import network_of

        problem_copy.require_unchanged(self.directory)
        return network_of(for_problem(self.config, self.problem), self.problem)

    def _points(self, points) -> np.ndarray:
        x, d = np.asarray(points, np.float64), self.problem.domain.dimension
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(f"points must have the shape (n, {d}), got {x.shape}")
        return x


def open_run(directory: str | Path, problem: Problem | None = None) -> Run:
    """The run in a directory: finished, stopped, or still going on.

    problem: the instance that ``solve`` was given, if it was given one.

    Raises InputError if the directory holds no run, or another problem's.
    """
    run_directory.require_run(directory)
    return Run(Path(directory).resolve(), problem)


def session_class(settings: ProblemSettings) -> str | None:
    """The name of a class of a Python session, whose code no run directory holds; None for any other problem."""
    return settings.name if settings.file is None and settings.name not in SHIPPED else None


def require_same_problem(directory: Path, kept: ProblemSettings, problem: Problem) -> None:
    """Raise InputError unless the instance is the problem of the run in a directory, parameters included.

    kept: as its config.toml records it.
    """
    given = recorded(problem)
    if kept.file is not None or kept.name in SHIPPED:
        kept = recorded(load(kept))  # with the defaults
    if given.name != kept.name:
        raise InputError(f"{directory}: holds a run of {kept.name}, not of {given.name}")
    if given.parameters != kept.parameters:
        raise InputError(f"{directory}: holds a run of {given.name} with other parameters: {_difference(given, kept)}")


def recorded(problem: Problem) -> ProblemSettings:
    """The section [problem] of config.toml for an instance: the name of a shipped problem, or of the class, and the
    parameters."""
    cls = type(problem)
    shipped = {(f"nivp_dist.problems.{module}", name): key for key, (module, name) in SHIPPED.items()}
    name = shipped.get((cls.__module__, cls.__name__), cls.__name__)
    parameters = {key: _storable(value) for key, value in dataclasses.asdict(problem).items() if value is not None}
    return ProblemSettings(name=name, parameters=parameters)


def _storable(value: Any) -> Any:
    """A value that TOML can hold: an array as a list; for anything but numbers and text the name of its type."""
    if isinstance(value, dict):
        return {str(key): _storable(entry) for key, entry in value.items()}
    value = plain(value)
    if isinstance(value, (list, tuple)):
        return [_storable(entry) for entry in value]
    if isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def _difference(given: ProblemSettings, kept: ProblemSettings) -> str:
    mine, theirs = given.parameters, kept.parameters
    names = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
    return ", ".join(f"{key} = {theirs.get(key)}, not {mine.get(key)}" for key in names)
