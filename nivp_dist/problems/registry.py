"""Problems from settings: a shipped problem by its name, a user's problem by file and class."""

import dataclasses
import importlib
import typing
from pathlib import Path
from types import ModuleType

from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem, has_reference, stored_initial
from nivp_dist.problems.loading import load_module
from nivp_dist.problems.user_classes import class_in, instance
from nivp_dist.settings import sources
from nivp_dist.settings.keys import nearest
from nivp_dist.settings.model import ProblemSettings
from nivp_dist.settings.sources import Source

# name -> (module in nivp_dist.problems, class); a module is imported when its problem is asked for
SHIPPED = {
    "advection": ("advection", "Advection"),
    "allen_cahn": ("allen_cahn", "AllenCahn"),
    "allen_cahn_periodic": ("periodic", "PeriodicAllenCahn"),
    "burgers": ("burgers", "Burgers"),
    "burgers_front": ("burgers", "BurgersFront"),
    "burgers_front_walls": ("burgers", "BurgersFrontWalls"),
    "burgers_periodic": ("periodic", "PeriodicBurgers"),
    "channel": ("channel", "Channel"),
    "double_well": ("double_well", "DoubleWell"),
    "fisher_kpp": ("fisher_kpp", "FisherKPP"),
    "fokker_planck_trap": ("fokker_planck_trap", "FokkerPlanckTrap"),
    "heat": ("heat", "Heat"),
    "heat_neumann": ("heat_neumann", "HeatNeumann"),
    "heat_periodic": ("periodic", "PeriodicHeat"),
    "kdv": ("kdv", "KdV"),
    "kuramoto_sivashinsky": ("kuramoto_sivashinsky", "KuramotoSivashinsky"),
    "linear_fokker_planck": ("linear_fokker_planck", "LinearFokkerPlanck"),
    "log_fokker_planck": ("log_fokker_planck", "LogFokkerPlanck"),
    "mean_field_wells": ("mean_field_wells", "MeanFieldWells"),
    "moving_trap": ("moving_trap", "MovingTrap"),
    "nonlinear_schroedinger": ("nonlinear_schroedinger", "NonlinearSchroedinger"),
    "thermal_waves": ("thermal_waves", "ThermalWaves"),
    "time_varying_advection": ("time_varying_advection", "TimeVaryingAdvection"),
    "vlasov": ("vlasov", "Vlasov"),
    "vlasov_poisson": ("vlasov_poisson", "VlasovPoisson"),
    "wave": ("wave", "Wave"),
    "wave_maps": ("wave_maps", "WaveMaps"),
}

_REQUIRED = {"domain": "the property 'domain'", "initial": "the method 'initial(self, x)'"}
_REQUIRED["rhs"] = "the method 'rhs(self, u, x, t)'"


class CatalogueRow(typing.NamedTuple):
    """A line of `nivp problems`."""

    name: str
    summary: str
    dimension: int
    outputs: int
    reference: str
    parameters: dict[str, object]


def load(settings: ProblemSettings, base: Path | None = None) -> Problem:
    """The problem that the settings name, with its parameters validated and set.

    Args:
        base: the folder that a relative problem.file starts from. Default: the working directory.

    Raises InputError: an unknown name or parameter (the message has the nearest known one), a parameter of the wrong
    type or out of range, or an exception in the user's file (the message has file and line).
    """
    if settings.file is None:
        cls, source = _shipped(settings.name or ""), f"problem {settings.name}"
    else:
        path = (Path(base or ".") / Path(settings.file).expanduser()).resolve()
        cls, source = _class_in(load_module(path), settings.class_ or "", path), str(path)
    return instance(cls, settings.parameters, source, "problem.parameters")


def files_of(settings: ProblemSettings) -> list[Source]:
    """The files, beside problem.file, that decide the equation: modules that it imports, its ``data_files``, and those
    of a run whose solution is its initial condition.

    Raises InputError as ``load``, and if a data file is not there.
    """
    if settings.file is None:
        return []
    problem, path = load(settings), Path(settings.file)
    where = f"{path}: {type(problem).__name__}.data_files"
    found = [*sources.modules(path), *sources.data(path, problem.data_files, where)]
    if (solution := stored_initial(problem)) is not None:
        found += sources.data(path, solution.files, where)
        found.append(sources.uncompared(path, Path(solution.record)))
    return list({source.path: source for source in found}.values())


def catalogue() -> list[CatalogueRow]:
    """All shipped problems with their default parameters."""
    rows = []
    for name in SHIPPED:
        problem = _shipped(name)()
        kind = getattr(problem, "reference_kind", "yes") if has_reference(problem) else "none"
        summary = getattr(problem, "summary", "") or (type(problem).__doc__ or "").strip().split("\n")[0]
        parameters = dataclasses.asdict(problem)
        rows.append(CatalogueRow(name, summary, problem.domain.dimension, problem.outputs, kind, parameters))
    return rows


def _shipped(name: str) -> type[Problem]:
    if name not in SHIPPED:
        close = nearest(name, SHIPPED)
        hint = f"the nearest is '{close}'" if close else "`nivp problems` lists them"
        raise InputError(f"problem.name: there is no problem '{name}'; {hint}")
    module, cls = SHIPPED[name]
    return getattr(importlib.import_module(f"nivp_dist.problems.{module}"), cls)


def _class_in(module: ModuleType, name: str, path: Path) -> type[Problem]:
    cls = class_in(module, name, path, Problem, "problem.class")
    for method, words in _REQUIRED.items():
        if getattr(cls, method) is getattr(Problem, method):
            raise InputError(f"{path}: class {name} must define {words}")
    return cls
