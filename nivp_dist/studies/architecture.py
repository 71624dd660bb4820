"""What the choices of a network do, each varied alone: for the fit, for the tangent space, and for the whole run.

A base network is compared with networks that differ from it in one setting, on a hyperbolic, a parabolic and a density
problem. Three numbers are told apart, each from runs with three seeds (``studies.in_memory``): the error of the fit at
t = 0 after a fixed number of rounds of Gauss-Newton, the residual of the first velocity on fresh points, and the error
at the end. A number of a choice differs from that of the base if the ratio of the medians is larger than the range of
either over the seeds.
"""

import math
import statistics
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from nivp_dist.formatting import MISSING, number
from nivp_dist.settings.files import read_config, shipped_configs
from nivp_dist.settings.model import Config
from nivp_dist.studies.effects import (
    FALSE_ALARMS,
    NUMBERS,
    Effect,
    Family,
    by_problem,
    correlations,
    effects_on,
    largest,
)
from nivp_dist.studies.study import Case, Records, Study, Table, median_and_range

SEEDS = (0, 1, 2)
BASE = "base"
# Fixed rounds of the fit, the same points for a network in all its steps, and no refit.
SETTINGS = {
    "fit.iterations": "30",
    "fit.points": "2000",
    "fit.stop_at": "1e-12",
    "fit.line_search": "true",
    "fit.on_miss": "continue",
    "sampling.points": "auto",
    "sampling.adapt_points": "false",
    "restart.enabled": "false",
    "output.times": "[]",
    "output.spectrum_every": "0",
    "output.evaluation_points": "4000",
    "integrator.max_steps": "150",
    "devices": "1",
}


class Problem(NamedTuple):
    """A problem of the study.

    Attributes:
        kind: of equation. configuration: a shipped one. settings: of it that differ. base: key of [network] -> value.
        others: key of [network] -> the values that are compared with the base.
    """

    kind: str
    configuration: str
    settings: dict[str, str]
    base: dict[str, str]
    others: dict[str, tuple[str, ...]]


PERCEPTRON = {"width": ("6", "18"), "depth": ("1", "3"), "activation": ("tanh", "sin")}
PROBLEMS = {
    "wave": Problem(
        "hyperbolic",
        "wave_2d",
        {"problem.parameters.width": "0.12", "solver.mu": "1e-10", "integrator.rtol": "1e-3", "integrator.t_end": "1"},
        {"width": "12", "depth": "2", "activation": "swish", "frequencies": "4", "alpha": "0.0", "trunk": "shared"},
        PERCEPTRON | {"frequencies": ("3", "5"), "alpha": ("1.0",), "trunk": ("separate",)},
    ),
    "heat": Problem(
        "parabolic",
        "heat_periodic_2d",
        {"solver.mu": "1e-11", "integrator.rtol": "1e-4", "integrator.t_end": "1"},
        {"width": "12", "depth": "2", "activation": "swish", "frequencies": "2", "alpha": "0.0"},
        PERCEPTRON | {"frequencies": ("1", "3"), "alpha": ("1.0",)},
    ),
    "trap": Problem(
        "density",
        "fokker_planck_trap_5d",
        {"problem.parameters.dimension": "3", "solver.mu": "1e-9", "integrator.t_end": "0.5"},
        {"width": "12", "depth": "2", "activation": "swish", "frequencies": "1", "alpha": "0.0", "form": "exponential"},
        PERCEPTRON | {"frequencies": ("0", "2"), "alpha": ("1.0",), "form": ("direct",)},
    ),
}
QUICK = {"heat": PROBLEMS["heat"]._replace(others={"width": ("6",), "frequencies": ("1",)})}


def _cases(quick: bool) -> list[Case]:
    return [
        Case(f"{name}-{'-'.join(change) or BASE}", partial(_measure, name, change))
        for name, problem in (QUICK if quick else PROBLEMS).items()
        for change in [(), *((choice, value) for choice, values in problem.others.items() for value in values)]
    ]


def configuration(name: str, change: tuple[str, ...]) -> Config:
    """That of a network of a problem. change: (key of [network], its value), or () for the base."""
    problem = PROBLEMS[name]
    network = problem.base | dict(zip(change[::2], change[1::2]))
    settings = SETTINGS | problem.settings | {f"network.{key}": text for key, text in network.items()}
    return read_config(shipped_configs()[problem.configuration], settings)


def _measure(name: str, change: tuple[str, ...], folder: Path) -> dict:
    """The record of a network of a problem, lists over the seeds. change: as above. folder: is not used."""
    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.studies.in_memory import evolve

    choice, value = change or ("", "")
    config = configuration(name, change)
    run = Simulation(config, registry.load(config.problem))
    runs = [_numbers(evolve(run, seed)) for seed in SEEDS]
    facts = {"problem": name, "choice": choice, "value": value, "seeds": list(SEEDS)}
    facts |= {"parameters": run.network.size, "points": run.config.sampling.points}
    return facts | {key: [each[key] for each in runs] for key in runs[0]}


def _numbers(course) -> dict:
    """Of a run (``in_memory.Course``) what a record has; None where a failed run does not reach it."""
    return {
        "fit": course.fit,
        "tangent": course.first("residual_fresh"),
        "error": course.error,
        "steps": len(course.lines),
        "residual": course.last("residual_fresh"),
        "failure": course.failure,
    }


def _tables(records: Records) -> list[Table]:
    return [*(_table(name, networks) for name, networks in by_problem(records).items()), _summary(records)]


def _table(name: str, networks: Family) -> Table:
    problem = PROBLEMS[name]
    rows = [["network", "p", "n", *NUMBERS.values(), "steps", "residual of the last step", "failed"]]
    marks = {measure: effects_on(networks, measure) for measure in NUMBERS}
    for key, record in networks.items():
        numbers = []
        for measure in NUMBERS:
            found = marks[measure].get(key)
            numbers.append(median_and_range(record[measure]) + (" *" if found and found.matters else ""))
        failed = sum(failure is not None for failure in record["failure"])
        rows.append(
            [
                " ".join(key).strip() or BASE,
                *(number(record[fact]) for fact in ("parameters", "points")),
                *numbers,
                number(statistics.median(record["steps"])),
                median_and_range(record["residual"]),
                f"{failed} of {len(SEEDS)}" if failed else "",
            ]
        )
    base = ", ".join(f"{key} {value}" for key, value in problem.base.items())
    return Table(f"{name} ({problem.kind}); base: {base}; * differs from it by more than the seeds do", rows)


def _summary(records: Records) -> Table:
    rows = [["problem", "choice", *NUMBERS.values()]]
    for name, networks in by_problem(records).items():
        for choice in _choices(networks):
            found = [largest(networks, measure, choice) for measure in NUMBERS]
            rows.append([name, choice, *(_as_text(*each) if each else MISSING for each in found)])
    return Table("the largest factor on the number of the base, where it is more than the spread of the seeds", rows)


def _choices(networks: Family) -> list[str]:
    return list(dict.fromkeys(choice for choice, _ in networks if choice))


def _as_text(value: str, found: Effect) -> str:
    return f"{'fails' if math.isinf(found.factor) else f'x {found.factor:.2g}'} ({value})"


def _answer(records: Records) -> list[str]:
    lines = []
    for name, networks in by_problem(records).items():
        parts = [_ranking(networks, measure, title) for measure, title in NUMBERS.items()]
        lines.append(f"{name} ({PROBLEMS[name].kind}): {'; '.join(parts)}.")
        if (line := correlations(networks)) is not None:
            lines.append(f"{name}: {line}")
    found = [
        each
        for family in by_problem(records).values()
        for measure in NUMBERS
        for each in effects_on(family, measure).values()
    ]
    if not found:
        return lines or ["open: no base network was measured"]
    larger, chance = sum(each.matters for each in found), FALSE_ALARMS * len(found)
    return [
        *lines,
        f"{larger} of {len(found)} effects exceed the spread of the seeds; by chance alone it would be {chance:.0f}.",
    ]


def _ranking(networks: Family, measure: str, title: str) -> str:
    if not effects_on(networks, measure):
        return f"the {title} is open"
    found = {choice: each for choice in _choices(networks) if (each := largest(networks, measure, choice))}
    ranked = sorted(found, key=lambda choice: -found[choice][1].size)
    named = ", ".join(f"{choice} {_as_text(*found[choice])}" for choice in ranked)
    return f"the {title} depends on {named}" if named else f"no choice changes the {title} by more than the seeds do"


def _draw(records: Records, figure: Figure) -> None:
    found = by_problem(records)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (name, networks) in zip(axes, found.items()):
        _panel(axis, name, networks)
    figure.supxlabel(
        "factor on the number of the base network (line: least to largest of the seeds; filled: more than they differ)",
        fontsize=9,
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(NUMBERS), frameon=False)


LEAST_SHOWN = 1e-3  # of the factors: a network that contains the initial condition fits it to rounding


def _panel(axis: Axes, name: str, networks: Family) -> None:
    """A row for each network, with the three numbers over the medians of the base."""
    keys = list(networks)
    axis.axvline(1.0, color="0.7", linewidth=1)
    for i, (measure, title) in enumerate(NUMBERS.items()):
        base = [value for value in networks["", ""][measure] if value is not None]
        if not base:
            continue
        middle, effects = statistics.median(base), effects_on(networks, measure)
        for row, key in enumerate(keys):
            values = [value / middle for value in networks[key][measure] if value is not None]
            y = row + 0.25 * (i - 1)
            if not values:
                continue
            filled = key in effects and effects[key].matters
            axis.plot([min(values), max(values)], [y, y], color=f"C{i}", linewidth=1.5)
            face = f"C{i}" if filled else "white"
            label = title if row == 0 else None
            axis.plot(statistics.median(values), y, "o", color=f"C{i}", markerfacecolor=face, markersize=5, label=label)
    axis.set_xscale("log")
    left, right = axis.get_xlim()
    axis.set_xlim(left=max(left, LEAST_SHOWN))
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if right < 1000 * left else (1.0,)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set_yticks(range(len(keys)), [" ".join(key).strip() or BASE for key in keys], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(f"{name} ({PROBLEMS[name].kind})", fontsize=10)


STUDY = Study(
    "architecture",
    "Which choices of the network matter: for the fit, for the tangent space, and for the error at the end?",
    _cases,
    _tables,
    _answer,
    _draw,
)
