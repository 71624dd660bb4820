"""A stored run as arrays: the solution on a grid, its marginals, or samples of it, with coordinates and provenance.

This is what ``Run.to_xarray`` and `nivp export` give to other programs.
"""

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nivp_dist.errors import InputError
from nivp_dist.problems.base import output_names
from nivp_dist.run.observables import StoredDensity
from nivp_dist.run.stored import Run
from nivp_dist.run.stored_density import POINTS
from nivp_dist.run.window import window
from nivp_dist.settings.files import RECORD, VERSIONS, read_toml

if TYPE_CHECKING:
    import xarray

DEFAULT_POINTS = {1: 512, 2: 128, 3: 48}  # along each axis, for so many axes
MOST_NUMBERS = 50_000_000  # of one variable, over all times: 0.4 GB

Bounds = Mapping[str, tuple[float, float]]  # name of a coordinate -> (lower, upper)


class Variable(NamedTuple):
    """An array, the names of its dimensions, and what it is in words."""

    dims: tuple[str, ...]
    values: np.ndarray
    meaning: str


class Tabulated(NamedTuple):
    """Arrays of a run at some times.

    name: of the kind, "solution", "marginals" or "samples". coordinates, variables: by name. attributes: provenance.
    """

    name: str
    coordinates: dict[str, Variable]
    variables: dict[str, Variable]
    attributes: dict[str, str]


class Grid(NamedTuple):
    """A regular grid in some of the coordinates x1, x2, ..., xd, both ends included.

    Attributes:
        points: along every axis, or for each free one; None: as many as suit their number.
        at: the values of the other coordinates. bounds: of the free ones; by default bounded axes as a whole, and of
            real ones the part that the collocation points fill at one of the times.
    """

    name = "solution"

    points: int | Sequence[int] | None = None
    at: Mapping[str, float] = {}
    bounds: Bounds = {}


class Marginals(NamedTuple):
    """The marginal density of every coordinate, as its mean over so many bins; bounds: as in ``Grid``."""

    name = "marginals"

    bins: int = 40
    bounds: Bounds = {}


class Samples(NamedTuple):
    """So many samples of the first output, taken as a density."""

    name = "samples"

    number: int
    seed: int = 0


def tabulate(run: Run, what: Grid | Marginals | Samples, times: Sequence[float] | None = None) -> Tabulated:
    """The arrays of a run at some of its stored times, None: at all of them.

    Raises InputError for what does not suit the problem, and ValueError for a time that is not stored.
    """
    if not len(run.times):
        raise InputError(f"{run.directory}: no output is stored yet")
    chosen = run.times if times is None else np.array([run.solution(t).t for t in times])
    kinds: dict[type, Callable] = {Grid: _on_grid, Marginals: _marginals, Samples: _samples}
    return kinds[type(what)](run, what, chosen)


def kind(grid, at, bounds, marginals, samples, seed: int = 0) -> Grid | Marginals | Samples:
    """What is meant by the arguments of ``Run.to_xarray``, None where they are not given. Raises InputError."""
    if sum((grid is not None or bool(at), marginals is not None, samples is not None)) > 1:
        raise InputError("a grid, marginals and samples exclude each other: name one of them")
    if marginals is not None:
        return Marginals(marginals, bounds or {})
    if samples is not None:
        return Samples(samples, seed)
    return Grid(grid, at or {}, bounds or {})


def dataset(table: Tabulated) -> "xarray.Dataset":
    """The table as a dataset of xarray. Raises InputError if xarray is missing."""
    xarray = library("xarray")

    def variables(named: dict[str, Variable]) -> dict:
        return {name: (one.dims, one.values, {"long_name": one.meaning}) for name, one in named.items()}

    return xarray.Dataset(variables(table.variables), variables(table.coordinates), table.attributes)


def library(name: str):
    """A library of the extra ``export``. Raises InputError if it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{error}: it comes with the extra `export`: pip install 'nivp_dist[export]'") from None


def axis_names(run: Run) -> list[str]:
    """The names of the coordinates: x1, ..., xd."""
    return [f"x{i + 1}" for i in range(run.problem.domain.dimension)]


# ---------------------------------------------------------------------------------------------------- a grid


def _on_grid(run: Run, grid: Grid, times: np.ndarray) -> Tabulated:
    names = axis_names(run)
    _require_inside(run, {name: (value, value) for name, value in grid.at.items()})
    free = [name for name in names if name not in grid.at]
    numbers = _numbers(grid.points, free, len(times))
    lower, upper = _bounds(run, grid.bounds, times)
    axes = [np.linspace(lower[i], upper[i], n) for i, n in zip(map(names.index, free), numbers)]
    sides = [np.array([float(grid.at[name])]) if name in grid.at else axes[free.index(name)] for name in names]
    x = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(names))
    coordinates = {name: Variable((name,), axis, f"coordinate {name[1:]}") for name, axis in zip(free, axes)}
    coordinates |= {
        name: Variable((), np.array(float(value)), f"coordinate {name[1:]}") for name, value in grid.at.items()
    }
    variables = _fields(run, times, x, ("t", *free), (len(times), *numbers))
    return _table(run, grid.name, times, coordinates, variables | _errors(run, times))


def _fields(run: Run, times: np.ndarray, x: np.ndarray, dims: tuple[str, ...], shape) -> dict[str, Variable]:
    """Every output at points x (n, d), and where the problem has a reference that, and the difference of the two."""
    names = [f"{name}_" if name in ("t", *axis_names(run)) else name for name in output_names(run.problem)]
    found = np.full((len(names), 2, len(times), len(x)), np.nan)
    for i, t in enumerate(times):
        found[:, 0, i] = run.solution(t)(x).T
        if (reference := run.reference(t)) is not None:
            exact = reference(x).T
            found[: len(exact), 1, i] = exact
    variables = {}
    for name, (u, exact) in zip(names, found):
        variables[name] = Variable(dims, u.reshape(shape), f"output {name} of the network")
        if not np.isnan(exact).all():
            variables[f"{name}_exact"] = Variable(dims, exact.reshape(shape), f"reference of {name}")
            difference = (u - exact).reshape(shape)
            variables[f"{name}_error"] = Variable(dims, difference, f"{name} minus its reference")
    return variables


def _errors(run: Run, times: np.ndarray) -> dict[str, Variable]:
    meanings = {
        "relative_l2": "relative L2 error against the reference",
        "estimate": "the run's estimate of that error",
        "estimate_bound": "that error if all contributions add up",
    }
    errors = run.errors()
    at = [int(np.argmin(np.abs(errors["t"] - t))) for t in times]
    return {name: Variable(("t",), errors[name][at], meaning) for name, meaning in meanings.items()}


def _numbers(points: int | Sequence[int] | None, free: list[str], times: int) -> list[int]:
    """The number of points along each free axis."""
    if not free:
        raise InputError("a grid needs an axis: leave one coordinate free")
    if points is None and len(free) not in DEFAULT_POINTS:
        raise InputError(
            f"{len(free)} coordinates are free, and a grid shows at most 3: fix the others with a slice, such as "
            f"{free[-1]} = 0, or give the points along each axis"
        )
    given = DEFAULT_POINTS[len(free)] if points is None else points
    numbers = [given] * len(free) if isinstance(given, int) else [int(number) for number in given]
    if len(numbers) != len(free) or min(numbers) < 1:
        words = " x ".join(map(str, numbers))
        raise InputError(f"a grid of {words} points does not suit the free coordinates {', '.join(free)}")
    if math.prod(numbers) * times > MOST_NUMBERS:
        raise InputError(
            f"a grid of {' x '.join(map(str, numbers))} points at {times} times has more than {MOST_NUMBERS} numbers: "
            "take fewer points or times, or fix coordinates with a slice"
        )
    return numbers


def _bounds(run: Run, bounds: Bounds, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (d,) of what is shown, the same at all times."""
    _require_inside(run, bounds)
    windows = np.array([window(run, t)[:2] for t in times])
    lower, upper = windows[:, 0].min(axis=0), windows[:, 1].max(axis=0)
    for i, name in enumerate(axis_names(run)):
        lower[i], upper[i] = bounds.get(name, (lower[i], upper[i]))
    return lower, upper


def _require_inside(run: Run, intervals: Bounds) -> None:
    names, domain = axis_names(run), run.problem.domain
    for name, (low, high) in intervals.items():
        if name not in names:
            raise InputError(f"there is no coordinate {name}; the problem has {', '.join(names)}")
        i = names.index(name)
        if not (domain.lower[i] <= low <= high <= domain.upper[i] and math.isfinite(high - low)):
            where = f"{low:g}" if low == high else f"from {low:g} to {high:g}"
            raise InputError(f"{name} {where} does not lie in the domain, [{domain.lower[i]:g}, {domain.upper[i]:g}]")


# ------------------------------------------------------------------------------------ marginals and samples


def _marginals(run: Run, marginals: Marginals, times: np.ndarray) -> Tabulated:
    """For the coordinate x1: marginal_x1, marginal_x1_standard_error and, of the reference, marginal_x1_exact at the
    middle of the bins, x1; their edges are x1_edges, of the dimension x1_edge."""
    lower, upper = _bounds(run, marginals.bounds, times)
    coordinates, variables = {}, {}
    densities = {t: _density(run, t) for t in times}
    references = {t: _density(run, t, exact=True) for t in times if run.reference(t) is not None}
    for i, name in enumerate(axis_names(run)):
        edges = np.linspace(lower[i], upper[i], marginals.bins + 1)
        found = [densities[t].marginal((i,), (edges,), POINTS) for t in times]
        coordinates[name] = Variable((name,), (edges[1:] + edges[:-1]) / 2, f"coordinate {name[1:]}, middle of a bin")
        coordinates[f"{name}_edges"] = Variable((f"{name}_edge",), edges, f"edges of the bins of {name}")
        column = {
            "": ([one.value for one in found], f"marginal density of {name}"),
            "_standard_error": ([one.error for one in found], f"standard error of the marginal density of {name}"),
        }
        if references:
            none = np.full(marginals.bins, np.nan)
            exact = [references[t].marginal((i,), (edges,), POINTS).value if t in references else none for t in times]
            column["_exact"] = (exact, f"marginal density of {name} of the reference, at the same points")
        for ending, (values, meaning) in column.items():
            variables[f"marginal_{name}{ending}"] = Variable(("t", name), np.stack(values), meaning)
    return _table(run, marginals.name, times, coordinates, variables)


def _density(run: Run, t: float, exact: bool = False) -> StoredDensity:
    reference = run.reference(t) if exact else None
    return StoredDensity(run.snapshot(t), reference or run.solution(t), run.problem.domain)


def _samples(run: Run, samples: Samples, times: np.ndarray) -> Tabulated:
    x = np.stack([run.samples(t, samples.number, samples.seed) for t in times])
    columns = {
        name: Variable(("t", "sample"), x[:, :, i], f"coordinate {name[1:]} of the samples")
        for i, name in enumerate(axis_names(run))
    }
    number = {"sample": Variable(("sample",), np.arange(samples.number), "number of the sample")}
    return _table(run, samples.name, times, number, columns)


# ----------------------------------------------------------------------------------------------- provenance


def _table(run: Run, name: str, times: np.ndarray, coordinates, variables) -> Tabulated:
    return Tabulated(name, {"t": Variable(("t",), times, "time")} | coordinates, variables, provenance(run, name))


def provenance(run: Run, what: str) -> dict[str, str]:
    """Where numbers come from: problem, run, configuration, versions, and the commit where it is known.

    Conventions, title, source and comment are attributes of the CF conventions.
    """
    record = run.directory / RECORD
    versions = read_toml(record).get(VERSIONS, {})
    problem = run.config.problem.name or run.config.problem.class_
    attributes = {
        "Conventions": "CF-1.11",
        "title": f"{what} of {problem}, d = {run.problem.domain.dimension}",
        "source": f"nivp_dist {versions.get('nivp_dist', '')}".strip(),
        "comment": "lengths and times are in the units of the equation",
        "problem": str(problem),
        "run": str(run.directory),
        "configuration": record.read_text("utf-8"),
        "versions": json.dumps(versions),
    }
    if commit := versions.get("commit"):
        attributes["commit"] = commit
    return attributes
