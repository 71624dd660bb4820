"""Why the systems of a run become ill-conditioned, and which remedy acts on the reason.

Along each run the spectrum of M is measured with a fixed relative mu, and beside it one number for every mechanism that
is suspected (``MECHANISMS``). A mechanism explains the decay of a problem only if three things hold: its number grows
with the residual in every run; a refit, which changes the parameters and not the solution, lowers both; and the remedy
that acts on it, switched on alone, lowers the residual by more than the seeds differ.
"""

import math
import statistics
from functools import partial
from pathlib import Path
from typing import NamedTuple

from scipy.stats import spearmanr

from nivp_dist.formatting import MISSING, number, scientific
from nivp_dist.settings.files import read_config, shipped_configs
from nivp_dist.settings.model import Config
from nivp_dist.studies import conditioning_picture
from nivp_dist.studies.architecture import Effect, effect
from nivp_dist.studies.study import Case, Records, Study, Table, median_and_range

SEEDS = (0, 1, 2)
MU = 1e-10  # of the measurements, relative to the trace
MEASUREMENTS = 25  # of a run, about
BASE, REFITS = "base", "refits"
SETTINGS = {
    "fit.iterations": "40",
    "fit.points": "1500",
    "fit.on_miss": "continue",
    "sampling.adapt_points": "false",
    "solver.equal_shares": "false",
    "integrator.rtol": "1e-3",
    "integrator.max_steps": "400",
    "output.times": "[]",
    "output.spectrum_every": "0",
    "output.evaluation_points": "4000",
    "restart.enabled": "false",
    "devices": "1",
}


class Mechanism(NamedTuple):
    """A suspected reason.

    Attributes:
        title: in words. measure: its number, of ``along``. remedy: the variant that acts on it, or None.
    """

    title: str
    measure: str
    remedy: str | None


MECHANISMS = (
    Mechanism("growth of |theta|", "theta", "mu"),
    Mechanism("dead or duplicate units", "dependence", "width"),
    Mechanism("imbalance of the layers", "imbalance", "equal_shares"),
    Mechanism("drift out of the embedding's band", "wavenumber", "frequencies"),
    Mechanism("symmetries", "null", None),
)
# What decays: measures of ``along``.
DECAY = ("residual", "effective_dimension", "numerical_rank", "condition", "cg_iterations")
MEASURES = (*DECAY, *(mechanism.measure for mechanism in MECHANISMS), "alike", "idle")

GROWS = 2.0  # factor on the residual from which on a run decays, and by which a refit helps
TOGETHER = 0.7  # rank correlation from which on two numbers grow together
OFTEN = 0.75  # share of the refits


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
            "problem.parameters.width": "0.25",
            "network.width": "10",
            "network.depth": "2",
            "network.frequencies": "3",
            "sampling.points": "1200",
            "solver.mu": "1e-11",
            "integrator.t_end": "6",
        },
        {
            BASE: {},
            REFITS: _refits("1"),
            "mu": {"solver.mu": "1e-9"},
            "width": {"network.width": "14"},
            "equal_shares": {"solver.equal_shares": "true"},
            "frequencies": {"network.frequencies": "4"},
        },
    ),
    "advection": Problem(
        "transport",
        "advection_2d",
        {
            "problem.parameters.width": "0.1",
            "network.width": "10",
            "network.depth": "2",
            "network.frequencies": "4",
            "sampling.points": "1200",
            "solver.mu": "1e-11",
            "integrator.rtol": "1e-4",
            "integrator.t_end": "0.3",
        },
        {BASE: {}, REFITS: _refits("0.1")},
    ),
    "vlasov": Problem(
        "kinetic",
        "landau_damping_2d",
        {
            "network.width": "10",
            "sampling.points": "1500",
            "solver.mu": "1e-11",
            "integrator.t_end": "6",
        },
        {BASE: {}, REFITS: _refits("1")},
    ),
}


def _cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(f"wave-{variant}", partial(_measure, "wave", variant, 1.0, (0,))) for variant in (BASE, REFITS)]
    return [
        Case(f"{name}-{variant.replace('_', '-')}", partial(_measure, name, variant, None, SEEDS))
        for name, problem in PROBLEMS.items()
        for variant in problem.variants
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
    return {"problem": name, "variant": variant, "seeds": list(seeds), "parameters": run.network.size, "runs": courses}


# ---- what the records say ----


def by_problem(records: Records) -> dict[str, dict[str, dict]]:
    """problem -> variant -> record, of the problems whose base is known."""
    found: dict[str, dict[str, dict]] = {}
    for record in records.values():
        found.setdefault(record["problem"], {})[record["variant"]] = record
    return {name: variants for name, variants in found.items() if BASE in variants}


def ends(record: dict, measure: str = "residual") -> list[float]:
    """The median of the last quarter of a run, of each run."""
    return [statistics.median(run[measure][-max(1, len(run[measure]) // 4) :]) for run in record["runs"]]


def growth(record: dict, measure: str) -> list[float]:
    """The last quarter of a run over its beginning, of each run."""
    return [
        end / run[measure][0] if run[measure][0] else math.inf
        for run, end in zip(record["runs"], ends(record, measure))
    ]


def correlations(record: dict, measure: str) -> list[float]:
    """The rank correlation of a number with the residual along each run; 0 where the number is constant."""
    found = []
    for run in record["runs"]:
        constant = len(set(run[measure])) < 2 or len(set(run["residual"])) < 2
        found.append(0.0 if constant else float(spearmanr(run[measure], run["residual"]).statistic))
    return found


def at_refits(record: dict | None, measure: str) -> list[float]:
    """The number after over that before, of every accepted refit that has made the residual smaller by GROWS."""
    refits = [each for run in record["runs"] for each in run["refits"]] if record else []
    helped = [
        each for each in refits if each["accepted"] and each["before"]["residual"] > GROWS * each["after"]["residual"]
    ]
    return [each["after"][measure] / each["before"][measure] if each["before"][measure] else 1.0 for each in helped]


class Verdict(NamedTuple):
    """What speaks for a mechanism in a problem; None where it was not measured.

    Attributes:
        together: it grows with the residual in every run. falls: with refits that help. acts: its remedy does.
    """

    together: bool
    falls: bool | None
    acts: bool | None

    @property
    def explains(self) -> bool:
        return bool(self.together and self.falls and self.acts)

    @property
    def refuted(self) -> bool:
        return not self.together or False in (self.falls, self.acts)


def verdict(variants: dict[str, dict], mechanism: Mechanism) -> Verdict:
    """Of a mechanism in a problem, from the records of its variants."""
    base, remedy = variants[BASE], variants.get(mechanism.remedy or "")
    ratios = at_refits(variants.get(REFITS), mechanism.measure)
    falls = sum(ratio < 1 for ratio in ratios) >= OFTEN * len(ratios) if ratios else None
    acts = None if remedy is None else helps(base, remedy)
    return Verdict(min(correlations(base, mechanism.measure)) >= TOGETHER, falls, acts)


def change(base: dict, other: dict) -> Effect | None:
    """The effect of a variant on the residual at the end."""
    return effect(list(ends(base)), list(ends(other)))


def helps(base: dict, other: dict) -> bool:
    """Whether a variant makes the residual at the end smaller, by more than the seeds differ."""
    found = change(base, other)
    return found is not None and found.matters and found.factor < 1


def decays(record: dict) -> bool:
    """Whether the residual grows in every run."""
    return min(growth(record, "residual")) >= GROWS


# ---- tables ----


def _tables(records: Records) -> list[Table]:
    found = by_problem(records)
    tables = [_courses(name, variants) for name, variants in found.items()]
    return [*tables, *(_evidence(name, variants) for name, variants in found.items())]


def _courses(name: str, variants: dict[str, dict]) -> Table:
    shown = ("residual", "effective_dimension", "numerical_rank", "condition", "cg_iterations")
    titles = ("residual", "effective dimension", "rank above mu", "condition of M + mu", "CG iterations")
    rows = [["variant", "p", *(f"{title}, end (start)" for title in titles), "steps", "refits", "error at the end"]]
    for variant, record in variants.items():
        runs = record["runs"]
        cells = [
            f"{number(_middle(ends(record, each)))} ({number(_middle([run[each][0] for run in runs]))})"
            for each in shown
        ]
        steps, refits = ([run[each] for run in runs] for each in ("steps", "refits"))
        accepted = sum(refit["accepted"] for each in refits for refit in each)
        errors = median_and_range([run["error"] for run in runs])
        rows.append(
            [
                variant,
                number(record["parameters"]),
                *cells,
                number(_middle(steps)),
                str(accepted) if accepted else "",
                errors,
            ]
        )
    variants_of = PROBLEMS[name].variants
    texts = [f"{each}: {_settings(variants_of[each])}" for each in variants if variants_of[each]]
    return Table(
        f"{name} ({PROBLEMS[name].kind}), medians of {len(variants[BASE]['seeds'])} seeds; {'; '.join(texts)}", rows
    )


def _settings(settings: dict[str, str]) -> str:
    return " ".join(
        f"{key} {value}" for key, value in settings.items() if key not in ("restart.enabled", "restart.bound")
    )


def _middle(values) -> float:
    return float(f"{statistics.median(values):.3g}")


def _evidence(name: str, variants: dict[str, dict]) -> Table:
    rows = [
        ["mechanism", "its number", "growth in the run", "rank correlation", "at refits", "remedy alone", "verdict"]
    ]
    for mechanism in MECHANISMS:
        base, measure = variants[BASE], mechanism.measure
        grown, along = growth(base, measure), correlations(base, measure)
        ratios = at_refits(variants.get(REFITS), measure)
        remedy = variants.get(mechanism.remedy or "")
        found = change(base, remedy) if remedy else None
        rows.append(
            [
                mechanism.title,
                measure,
                f"x {number(_middle(grown))}",
                f"{min(along):.2f} to {max(along):.2f}",
                f"x {number(_middle(ratios))} ({len(ratios)})" if ratios else MISSING,
                f"{mechanism.remedy}: x {found.factor:.2g}{' *' if found.matters else ''}" if found else MISSING,
                _word(verdict(variants, mechanism)),
            ]
        )
    title = (
        f"{name}: what grows with the residual, what refits that help do to it, and what the remedy does to the residual"
        " (* by more than the seeds differ)"
    )
    return Table(title, rows)


def _word(found: Verdict) -> str:
    if found.explains:
        return "explains"
    return "refuted" if found.refuted else "open"


# ---- answer ----


def _answer(records: Records) -> list[str]:
    lines = [line for name, variants in by_problem(records).items() for line in _sentences(name, variants)]
    return lines or ["open: no base run was measured"]


def _sentences(name: str, variants: dict[str, dict]) -> list[str]:
    base, refits = variants[BASE], variants.get(REFITS)
    grown = median_and_range(growth(base, "residual"))
    if not decays(base):
        return [
            f"{name}: the residual does not grow by a factor {GROWS:g} in every run (x {grown}): nothing to explain."
        ]
    words = {mechanism.title: _word(verdict(variants, mechanism)) for mechanism in MECHANISMS}
    explaining = [title for title, word in words.items() if word == "explains"]
    if len(base["seeds"]) < len(SEEDS):
        explained = "one seed decides nothing: open"
    elif explaining:
        explained = f"explained by {' and '.join(explaining)}"
    else:
        candidates = [title for title, word in words.items() if word == "open"]
        rest = f"; not refuted: {', '.join(candidates)}" if candidates else "; all five mechanisms are refuted"
        explained = f"why is open{rest}"
    lines = [f"{name}: the residual grows (x {grown}); {explained}."]
    if refits is not None:
        lines.append(f"{name}: {_what_refits_say(base, refits)}")
    helping = [each for each in variants if each not in (BASE, REFITS) and helps(base, variants[each])]
    tried = [each for each in variants if each not in (BASE, REFITS)]
    if tried:
        lines.append(
            f"{name}: of the remedies {', '.join(tried)} these lower the residual at the end: {', '.join(helping) or 'none'}."
        )
    return lines


def _what_refits_say(base: dict, refits: dict) -> str:
    """Whether the decay is one of the parameters or of the solution."""
    ratios = [
        each["after"]["residual"] / each["before"]["residual"]
        for run in refits["runs"]
        for each in run["refits"]
        if each["accepted"]
    ]
    if not ratios:
        return "no refit was accepted, so that parameters and solution are not told apart."
    part = "lies in the parameters" if helps(base, refits) else "is not cured by other parameters of the same solution"
    return (
        f"a fresh network for the same solution has {scientific(statistics.median(ratios))} of the residual "
        f"({len(ratios)} refits), and at the end {number(_middle(ends(refits)))} against {number(_middle(ends(base)))}: the decay {part}."
    )


STUDY = Study(
    "conditioning",
    "Why do the linear systems become ill-conditioned along a run, and which remedy acts on the reason?",
    _cases,
    _tables,
    _answer,
    conditioning_picture.draw,
)
