"""How error, time and the linear systems change with the dimension, and what ends it.

Four Fokker-Planck equations with known densities, each in more and more dimensions with the same small network and the
same tolerance; the mixture also with its steps by conjugate gradients alone. A run is given up after ``LIMIT`` core
seconds (``studies.in_memory``). Runs that fail stay in the table: the question is where, and by what.
"""

import statistics
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nivp_dist.formatting import MISSING, number
from nivp_dist.settings.files import read_config, shipped_configs
from nivp_dist.settings.model import Config
from nivp_dist.studies.endings import PARTS, ended_by, said
from nivp_dist.studies.study import Case, Records, Study, Table, median_and_range

ACCURACY = 1e-2
SEEDS = (0, 1, 2)
LIMIT = 40.0  # core seconds of a run
FIRST = 8.0  # core seconds: of a run that takes longer no other seeds are tried
SETTINGS = {
    "accuracy": str(ACCURACY),
    "network.width": "8",
    "network.depth": "1",
    "sampling.points": "auto",
    "fit.iterations": "30",
    "fit.points": "3000",
    "fit.on_miss": "continue",
    "solver.mu": "1e-9",
    "integrator.rtol": "5e-4",
    "integrator.t_end": "0.5",
    "integrator.initial_step": "auto",
    "integrator.max_steps": "400",
    "restart.enabled": "false",
    "output.times": "[]",
    "output.evaluation_points": "10000",
    "output.spectrum_every": "100000",  # at t = 0 and at the end
    "devices": "1",
}


class Problem(NamedTuple):
    """A problem of the study. configuration: a shipped one. settings: that differ. dimensions: d, from small to
    large."""

    configuration: str
    settings: dict[str, str]
    dimensions: tuple[int, ...]


PROBLEMS = {
    "moving trap": Problem("moving_trap_8d", {}, (2, 8, 20, 50)),
    "mixture": Problem("linear_fokker_planck_8d", {}, (2, 8, 20, 30)),
    "mixture by CG": Problem("linear_fokker_planck_8d", {"solver.method": "pcg"}, (2, 8, 20, 30)),
    "trap": Problem(
        "fokker_planck_trap_20d",
        {"network.depth": "2", "network.additive": "8"},
        (2, 5, 10, 20),
    ),
    "double well": Problem("double_well_5d", {"network.width": "24", "integrator.t_end": "0.3"}, (2, 5, 10)),
}
QUICK = {"moving trap": PROBLEMS["moving trap"]._replace(dimensions=(2, 4))}


def _cases(quick: bool) -> list[Case]:
    return [
        Case(f"{name.replace(' ', '-')}-{d}", partial(_measure, name, d))
        for name, problem in (QUICK if quick else PROBLEMS).items()
        for d in problem.dimensions
    ]


def configuration(name: str, dimension: int) -> Config:
    """That of a problem in so many dimensions."""
    problem = PROBLEMS[name]
    settings = SETTINGS | problem.settings | {"problem.parameters.dimension": str(dimension)}
    return read_config(shipped_configs()[problem.configuration], settings)


def _measure(name: str, dimension: int, folder: Path) -> dict:
    """The record of a problem in so many dimensions: numbers of the network, and lists over the seeds.

    folder: is not used.
    """
    from nivp_dist.cluster.compile_clock import CompileClock
    from nivp_dist.galerkin.methods import decomposes
    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.studies.in_memory import evolve

    config = configuration(name, dimension)
    automatic = config.model_copy(update={"solver": config.solver.model_copy(update={"method": "auto"})})
    with CompileClock() as compiling:
        fitting = Simulation(automatic, registry.load(config.problem))
        if not decomposes(fitting.network):  # the measurement would take longer than the steps
            config = config.model_copy(update={"output": config.output.model_copy(update={"spectrum_every": 0})})
        run = Simulation(config, registry.load(config.problem))
        courses = [evolve(run, SEEDS[0], LIMIT, fitting)]
        if courses[0].seconds < FIRST:
            courses += [evolve(run, seed, LIMIT, fitting) for seed in SEEDS[1:]]
    numbers = [_numbers(course) for course in courses]
    facts = {"problem": name, "dimension": dimension, "seeds": list(SEEDS[: len(courses)])}
    facts |= {"parameters": run.network.size, "points": run.config.sampling.points, "solver": run.galerkin.method}
    facts |= {"t_end": config.integrator.t_end, "compile_seconds": compiling.seconds}
    return facts | {key: [each[key] for each in numbers] for key in numbers[0]}


def _numbers(course) -> dict:
    """Of a run (``in_memory.Course``) what a record has; None where a run did not get so far."""
    costs = [line["seconds"] / line["evaluations"] for line in course.lines if line["seconds"] is not None]
    velocities = sum(line["evaluations"] for line in course.lines)
    return {
        "fit": course.fit,
        "error": course.error,
        "estimate": course.last("estimate"),
        "parts": [course.last(f"estimate_{part}") for part in PARTS],
        "residual": course.first("residual"),
        "residual_fresh": course.first("residual_fresh"),
        "last_residual": course.last("residual"),
        "last_residual_fresh": course.last("residual_fresh"),
        "effective_dimension": course.lines[0].get("effective_dimension") if course.lines else None,
        "condition": course.lines[0].get("condition") if course.lines else None,
        "iterations": sum(line["cg_iterations"] for line in course.lines) / max(velocities, 1),
        "steps": len(course.lines),
        "velocities": velocities,
        "last_points": course.last("points"),
        "seconds_a_velocity": statistics.median(costs) if costs else None,
        "fit_seconds": course.fit_seconds,
        "seconds": course.seconds,
        "t": course.t,
        "messages": course.messages,
        "failure": course.failure,
    }


def _by_problem(records: Records) -> dict[str, list[dict]]:
    """problem -> its records in the order of d."""
    found: dict[str, list[dict]] = {}
    for record in records.values():
        found.setdefault(record["problem"], []).append(record)
    return {name: sorted(each, key=lambda record: record["dimension"]) for name, each in found.items()}


def _median(values: list) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _tables(records: Records) -> list[Table]:
    errors = [
        [
            "problem",
            "d",
            "p",
            "n",
            "fit",
            "error",
            "estimate",
            "first residual",
            "steps",
            "t",
            "warnings, findings",
            "ended by",
        ]
    ]
    costs = [["problem", "d", "p", "solver", "effective dimension", "of p", "condition", "CG iterations"]]
    costs[0] += ["s a velocity", "s of the fit", "s", "s of compiling", "seeds"]
    for name, family in _by_problem(records).items():
        for record in family:
            p, effective = record["parameters"], _median(record["effective_dimension"])
            begin = [name, str(record["dimension"]), str(p)]
            points = _median(record["last_points"])
            errors.append(
                [
                    *begin,
                    number(record["points"] if points is None else int(points)),
                    *(median_and_range(record[key]) for key in ("fit", "error", "estimate", "residual_fresh")),
                    *(number(_median(record[key])) for key in ("steps", "t")),
                    said(record),
                    ended_by(record, ACCURACY) or "",
                ]
            )
            costs.append(
                [
                    *begin,
                    record["solver"],
                    number(None if effective is None else round(effective)),
                    MISSING if effective is None else f"{100 * effective / p:.0f} %",
                    _rounded(_median(record["condition"]), ".0e"),
                    _rounded(_median(record["iterations"]), ".0f") if "cg" in record["solver"] else MISSING,
                    *(
                        _rounded(_median(record[key]), ".2g")
                        for key in ("seconds_a_velocity", "fit_seconds", "seconds")
                    ),
                    _rounded(record["compile_seconds"], ".0f"),
                    str(len(record["seeds"])),
                ]
            )
    title = f"errors (relative L2, {ACCURACY:g} asked for) and what ended the runs"
    return [Table(title, errors), Table("the linear systems at t = 0, and the seconds of a run", costs)]


def _rounded(value: float | None, form: str) -> str:
    return MISSING if value is None else f"{value:{form}}"


def _answer(records: Records) -> list[str]:
    return [line for name, family in _by_problem(records).items() for line in _answer_of(name, family)]


def _answer_of(name: str, family: list[dict]) -> list[str]:
    ends = {record["dimension"]: ended_by(record, ACCURACY) for record in family}
    good = [d for d, end in ends.items() if end is None]
    bad = {d: end for d, end in ends.items() if end is not None}
    reach = f"{name}: within {ACCURACY:g} at d = {', '.join(map(str, good))}" if good else f"{name}: at no d"
    lines = [reach + (f"; nothing ends it up to d = {max(good)}, open beyond" if not bad else "")]
    lines += [f"{name}, d = {d}: {end}" for d, end in bad.items()]
    known = [record for record in family if _median(record["seconds_a_velocity"])]
    if len(known) >= 2:
        lines.append(f"{name}: {_growth(known[0], known[-1])}")
    return lines


def _growth(first: dict, last: dict) -> str:
    """How the numbers change from the least to the largest d that has velocities."""
    names = {"p": "parameters", "seconds a velocity": "seconds_a_velocity", "steps": "steps"}
    names["effective dimension"] = "effective_dimension"
    if "cg" in first["solver"] and "cg" in last["solver"]:
        names["CG iterations a velocity"] = "iterations"
    parts = []
    for title, key in names.items():
        pair = [record[key] if key == "parameters" else _median(record[key]) for record in (first, last)]
        if None not in pair:
            parts.append(f"{title} {pair[0]:.2g} to {pair[1]:.2g}")
    return f"from d = {first['dimension']} to {last['dimension']}: {', '.join(parts)}"


def _draw(records: Records, figure: Figure) -> None:
    found = _by_problem(records)
    titles = {"error": "relative L2 error at the end", "seconds_a_velocity": "core seconds of a velocity"}
    titles["effective_dimension"] = "effective dimension at t = 0 (dotted: p)"
    for axis, (key, title) in zip(figure.subplots(1, 3), titles.items()):
        for i, (name, family) in enumerate(found.items()):
            _curve(axis, name, f"C{i}", family, key)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("dimension d")
        axis.set_xscale("log")
        axis.set_yscale("log")
        ticks = sorted({record["dimension"] for family in found.values() for record in family})
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
    figure.axes[0].axhline(ACCURACY, color="0.6", linewidth=1, linestyle="--")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(found), frameon=False
    )


def _curve(axis: Axes, name: str, colour: str, family: list[dict], key: str) -> None:
    """The medians against d with bars over the seeds; a cross at the upper edge where no run reached the number."""
    known = [(record["dimension"], [value for value in record[key] if value is not None]) for record in family]
    present = [(d, values) for d, values in known if values]
    x, middle = [d for d, _ in present], [statistics.median(values) for _, values in present]
    bars = [
        [centre - min(values) for centre, (_, values) in zip(middle, present)],
        [max(values) - centre for centre, (_, values) in zip(middle, present)],
    ]
    axis.errorbar(x, middle, yerr=bars, marker="o", markersize=4, capsize=2, color=colour, label=name)
    missing = [d for d, values in known if not values]
    if missing:
        crosses = axis.plot(missing, [0.97] * len(missing), "x", color=colour, transform=axis.get_xaxis_transform())
        crosses[0].set_in_layout(False)
    if key == "effective_dimension":
        axis.plot(x, [r["parameters"] for r in family if r["dimension"] in x], ":", color=colour, linewidth=1)


STUDY = Study(
    "dimension",
    "How do error, time and the linear systems change with the dimension, and what ends it?",
    _cases,
    _tables,
    _answer,
    _draw,
)
