"""Why the systems of a run become ill-conditioned, and which remedy acts on the reason.

Along each run the spectrum of M is measured with a fixed relative mu, and beside it one number for every mechanism that
is suspected (``mechanisms``). A mechanism explains the decay of a problem only if three things hold: its number grows
with the residual in every run; refits, which change the parameters and not the solution, lower both; and the remedy
that acts on it, switched on alone, lowers it and halves the residual at the end of every run.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from nivp_dist.settings.files import read_config, shipped_configs
from nivp_dist.settings.model import Config
from nivp_dist.studies import conditioning_picture, conditioning_shown
from nivp_dist.studies.mechanisms import BASE, MEASURES, REFITS
from nivp_dist.studies.study import Case, Study

SEEDS = (0, 1, 2)
MU = 1e-10  # of the measurements, relative to the trace
MEASUREMENTS = 16  # of a run, about
SETTINGS = {
    "fit.iterations": "60",
    "fit.points": "1200",
    "fit.on_miss": "continue",
    "sampling.adapt_points": "false",
    "solver.equal_shares": "false",
    "integrator.rtol": "1e-3",
    "integrator.max_steps": "300",
    "output.times": "[]",
    "output.spectrum_every": "0",
    "output.evaluation_points": "4000",
    "restart.enabled": "false",
    "devices": "1",
}


class Problem(NamedTuple):
    """A problem of the study. kind: of equation. configuration: a shipped one. settings: of it that differ. variants:
    name -> the settings that differ from the base."""

    kind: str
    configuration: str
    settings: dict[str, str]
    variants: dict[str, dict[str, str]]


def _refits(age: str) -> dict[str, str]:
    return {"restart.enabled": "true", "restart.max_age": age, "restart.bound": "2e-2"}


PROBLEMS = {
    "wave": Problem(
        "hyperbolic",
        "wave_2d_long",
        {
            "network.width": "12",
            "network.depth": "2",
            "sampling.points": "1200",
            "solver.mu": "3e-12",
            "integrator.t_end": "6",
        },
        {
            BASE: {},
            REFITS: _refits("2"),
            "equal_shares": {"solver.equal_shares": "true"},
            "mu": {"solver.mu": "3e-10"},
            "width": {"network.width": "15"},
            "frequencies": {"network.frequencies": "5"},
        },
    ),
    "advection": Problem(
        "transport",
        "advection_2d",
        {
            "problem.parameters.width": "0.07",
            "network.width": "10",
            "network.depth": "2",
            "network.frequencies": "4",
            "sampling.points": "1000",
            "solver.mu": "1e-12",
            "integrator.rtol": "1e-4",
            "integrator.t_end": "0.4",
        },
        {
            BASE: {},
            REFITS: _refits("0.1"),
            "equal_shares": {"solver.equal_shares": "true"},
            "mu": {"solver.mu": "1e-10"},
        },
    ),
    "vlasov": Problem(
        "kinetic",
        "landau_damping_2d",
        {
            "network.width": "10",
            "sampling.points": "1000",
            "solver.mu": "1e-11",
            "integrator.t_end": "6",
        },
        {BASE: {}, REFITS: _refits("1.5"), "equal_shares": {"solver.equal_shares": "true"}},
    ),
}


def _cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(f"wave-{variant}", partial(_measure, "wave", variant, 0.5, (0,))) for variant in (BASE, REFITS)]
    variants = dict.fromkeys(variant for problem in PROBLEMS.values() for variant in problem.variants)
    return [  # what all problems have comes first, so that an interrupted study can be compared
        Case(f"{name}-{variant.replace('_', '-')}", partial(_measure, name, variant, None, SEEDS))
        for variant in variants
        for name, problem in PROBLEMS.items()
        if variant in problem.variants
    ]


def configuration(name: str, variant: str) -> Config:
    """That of a variant of a problem."""
    problem = PROBLEMS[name]
    return read_config(
        shipped_configs()[problem.configuration], SETTINGS | problem.settings | problem.variants[variant]
    )


def _measure(name: str, variant: str, t_end: float | None, seeds: tuple[int, ...], folder: Path) -> dict:
    """The record of a variant of a problem, lists over the seeds. t_end: other than that of the problem."""
    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.studies.along import Along, watched

    config = configuration(name, variant)
    if t_end is not None:
        restart = config.restart.model_copy(update={"max_age": config.restart.max_age and 0.4 * t_end})
        integrator = config.integrator.model_copy(update={"t_end": t_end})
        config = config.model_copy(update={"integrator": integrator, "restart": restart})
    run = Simulation(config, registry.load(config.problem))
    along = Along(run, MU)
    every = config.integrator.t_end / MEASUREMENTS
    courses = [watched(along, seed, every, MEASURES) for seed in seeds]
    facts = {"problem": name, "kind": PROBLEMS[name].kind, "variant": variant, "seeds": list(seeds)}
    return facts | {"changed": _changed(name, variant), "parameters": run.network.size, "runs": courses}


def _changed(name: str, variant: str) -> str:
    """What a variant changes, in words."""
    left_out = ("restart.enabled", "restart.bound")
    settings = PROBLEMS[name].variants[variant].items()
    return ", ".join(f"{key} = {value}" for key, value in settings if key not in left_out)


STUDY = Study(
    "conditioning",
    "Why do the linear systems become ill-conditioned along a run, and which remedy acts on the reason?",
    _cases,
    conditioning_shown.tables,
    conditioning_shown.answer,
    conditioning_picture.draw,
)
