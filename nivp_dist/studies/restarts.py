"""What restarts do to a long run: none, by its state, or every so often, by Gauss-Newton or by Adam.

Every policy has the same three runs of a problem, which are the same until the first refit. Cost is counted in core
seconds, without compiling.
"""

import math
import statistics
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from nivp_dist.formatting import MISSING, number, scientific
from nivp_dist.settings.files import read_config, shipped_configs
from nivp_dist.settings.model import Config
from nivp_dist.studies.effects import Effect, effect
from nivp_dist.studies.study import Case, Records, Study, Table, median_and_range

SEEDS = (0, 1, 2)
NONE = "none"
SETTINGS = {
    "sampling.adapt_points": "false",
    "integrator.max_steps": "300",
    "fit.points": "1200",
    "fit.iterations": "60",
    "fit.on_miss": "continue",
    "restart.bound": "2e-2",
    "network.depth": "2",
    "network.frequencies": "4",
    "solver.equal_shares": "false",
    "output.spectrum_every": "0",
    "output.evaluation_points": "4000",
    "devices": "1",
}


class Problem(NamedTuple):
    """A problem of the study. settings: those that differ from the configuration. age: of networks at seldom refits."""

    configuration: str
    settings: dict[str, str]
    age: float


PROBLEMS = {
    "advection": Problem(
        "advection_2d",
        {
            "problem.parameters.width": "0.07",
            "network.width": "10",
            "sampling.points": "1000",
            "solver.mu": "1e-12",
            "integrator.rtol": "1e-4",
            "integrator.t_end": "0.5",
            "output.times": "[0.1, 0.2, 0.3, 0.4]",
        },
        0.1,
    ),
    "wave": Problem(
        "wave_2d_long",
        {
            "network.width": "12",
            "sampling.points": "1200",
            "solver.mu": "3e-12",
            "integrator.rtol": "1e-3",
            "integrator.t_end": "8",
            "output.times": "[2.0, 4.0, 6.0]",
        },
        2.0,
    ),
}
QUICK = {"integrator.t_end": "0.1", "output.times": "[0.05]", "fit.iterations": "20"}
QUICK_AGE = 0.05


class Policy(NamedTuple):
    """When and how to refit. title: in words. settings: of the section [restart]. share: of the problem's age at which
    a network is replaced; 0: only where the state of the run asks for it."""

    title: str
    settings: dict[str, str]
    share: float = 0.0


ADAM = {"fit.method": "adam", "fit.steps": "2000", "fit.batch": "1000"}
POLICIES = {
    NONE: Policy("none", {"enabled": "false"}),
    "seldom": Policy("seldom, Gauss-Newton", {}, 1.0),
    "adam": Policy("seldom, Adam", ADAM, 1.0),
    "often": Policy("often, Gauss-Newton", {}, 0.5),
    "state": Policy("by state, Gauss-Newton", {}),
}
NEVER = 1e9  # an age that no network reaches


def _cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(f"advection-{name}", partial(_measure, "advection", name, True)) for name in (NONE, "seldom")]
    return [
        Case(f"{problem}-{name}", partial(_measure, problem, name, False)) for problem in PROBLEMS for name in POLICIES
    ]


def configuration(problem: str, name: str, quick: bool) -> Config:
    """That of a policy for a problem."""
    it, policy = PROBLEMS[problem], POLICIES[name]
    age = policy.share * (QUICK_AGE if quick else it.age) or NEVER
    settings = SETTINGS | it.settings | (QUICK if quick else {}) | {"restart.max_age": f"{age:g}"}
    settings |= {f"restart.{key}": value for key, value in policy.settings.items()}
    return read_config(shipped_configs()[it.configuration], settings)


def _measure(problem: str, name: str, quick: bool, folder: Path) -> dict:
    """The record of a policy for a problem, lists over the seeds. folder: is not used."""
    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.studies.in_memory import evolve

    config, seeds = configuration(problem, name, quick), SEEDS[:1] if quick else SEEDS
    run = Simulation(config, registry.load(config.problem))
    courses = [evolve(run, seed) for seed in seeds]
    facts = {"problem": problem, "policy": name, "title": POLICIES[name].title, "age": config.restart.max_age}
    facts |= {"seeds": list(seeds), "parameters": run.network.size}
    return facts | {"runs": [_course(course) for course in courses]}


def _course(course) -> dict:
    """Of a run (``in_memory.Course``) what a record has."""
    return {
        "outputs": course.outputs,
        "t": [line["t"] for line in course.lines],
        "h": [line["h"] for line in course.lines],
        "evaluations": sum(line["evaluations"] for line in course.lines),
        "refits": course.refits,
        "error": course.error,
        "seconds": course.seconds,
        "failure": course.failure,
    }


def by_problem(records: Records) -> dict[str, Records]:
    """problem -> policy -> record."""
    found: dict[str, Records] = {}
    for record in records.values():
        found.setdefault(record["problem"], {})[record["policy"]] = record
    return found


def errors(record: dict) -> list[float | None]:
    """At the end of each run; None of a run that has not reached it."""
    return [run["error"] for run in record["runs"]]


def failed(record: dict) -> int:
    """The number of runs that have not reached the end."""
    return sum(run["failure"] is not None for run in record["runs"])


def refit_errors(record: dict) -> list[float]:
    """Of all accepted refits."""
    return [each["error"] for run in record["runs"] for each in run["refits"] if each["accepted"]]


def last_steps(record: dict) -> list[float]:
    """The median step of the last quarter of the steps of each run."""
    return [statistics.median(run["h"][-max(1, len(run["h"]) // 4) :]) for run in record["runs"]]


def change(records: Records, policy: str) -> Effect | None:
    """Of a policy on the error at the end, against none. None where most runs without restarts have failed."""
    return effect(errors(records[NONE]), errors(records[policy]))


def _tables(records: Records) -> list[Table]:
    found = by_problem(records).items()
    return [table for name, policies in found for table in (_totals(name, policies), _over_time(name, policies))]


def _totals(name: str, records: Records) -> Table:
    head = "restarts, refits, refused, their error, error at the end, last steps, velocities, core seconds, failed"
    rows: list[list[str]] = [list(head.split(", "))]
    for record in records.values():
        runs = record["runs"]
        refits = [[refit["accepted"] for refit in run["refits"]] for run in runs]
        rows.append(
            [
                record["title"],
                number(statistics.median(sum(each) for each in refits)),
                number(statistics.median(len(each) - sum(each) for each in refits)),
                median_and_range(refit_errors(record)),
                median_and_range(errors(record)),
                median_and_range(last_steps(record)),
                number(statistics.median(run["evaluations"] for run in runs)),
                f"{statistics.median(run['seconds'] for run in runs):.0f}",
                f"{failed(record)} of {len(runs)}" if failed(record) else "",
            ]
        )
    seeds = len(next(iter(records.values()))["seeds"])
    title = f"{name}, {_ages(records)}medians of {seeds} seeds (errors: of those that reach the end), range in brackets"
    return Table(title, rows)


def _ages(records: Records) -> str:
    """What seldom and often are."""
    ages = {name: record["age"] for name, record in records.items() if record["age"] < NEVER}
    return "".join(f"{name}: restart.max_age = {number(age)}; " for name, age in ages.items() if name != "adam")


def _over_time(name: str, records: Records) -> Table:
    times = sorted({t for record in records.values() for run in record["runs"] for t, _ in run["outputs"]})
    rows = [["restarts", *(f"t = {number(t)}" for t in times)]]
    for record in records.values():
        at = [[dict(map(tuple, run["outputs"])).get(t) for run in record["runs"]] for t in times]
        rows.append([record["title"], *(_middle(each) for each in at)])
    return Table(f"{name}: relative L2 error over time, medians of the seeds that got so far", rows)


def _middle(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return scientific(statistics.median(known)) if known else MISSING


def _answer(records: Records) -> list[str]:
    said = [f"{name}: {line}" for name, policies in by_problem(records).items() for line in _sentences(policies)]
    return said or ["open: nothing was measured"]


def _sentences(records: Records) -> list[str]:
    if NONE not in records or len(records) < 2:
        return ["open: nothing to compare was measured"]
    if len(records[NONE]["seeds"]) < len(SEEDS):
        return ["open: one seed decides nothing"]
    known = [(name, found) for name in records if name != NONE and (found := change(records, name)) is not None]
    better = [(name, found) for name, found in known if found.matters and found.factor < 1]
    first = "no policy of restarts lowers the error at the end by more than the seeds differ: open."
    if better:
        name, found = min(better, key=lambda each: each[1].factor)
        first = f"restarts pay: {records[name]['title']} has x {found.factor:.2g} of the error of none at the end."
    elif not known:
        first = "most runs without restarts do not reach the end: their error there is not known."
    counts = {record["title"]: failed(record) for record in records.values()}
    failures = [f"{title}: {count} of {len(SEEDS)} runs fail." for title, count in counts.items() if count]
    return [first, *(_sentence(records, name) for name in records if name != NONE), *failures]


def _sentence(records: Records, name: str) -> str:
    found, record = change(records, name), records[name]
    seconds = [statistics.median(run["seconds"] for run in each["runs"]) for each in (record, records[NONE])]
    cost = f"at x {seconds[0] / seconds[1]:.2g} of the core seconds" if seconds[1] else "at an unknown cost"
    if found is None:
        return f"{record['title']}: error {median_and_range(errors(record))}, {cost}."
    if math.isinf(found.factor):
        return f"{record['title']}: most runs fail."
    verdict = "" if found.matters else ", which is within the spread of the seeds"
    return f"{record['title']}: x {found.factor:.2g} of the error of none{verdict}, {cost}."


def _draw(records: Records, figure: Figure) -> None:
    found = by_problem(records)
    figure.set_size_inches(11, 3.6 * len(found) + 0.5)
    axes = figure.subplots(len(found), 3, squeeze=False)
    for row, (name, policies) in zip(axes, found.items()):
        _panels(row, policies)
        row[0].set_title(name, fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)


def _panels(axes, records: Records) -> None:
    """Error over time, step over time, and error against cost; each run a line or a point."""
    error, step, cost = axes
    for i, record in enumerate(records.values()):
        for k, run in enumerate(record["runs"]):
            label = record["title"] if k == 0 else None
            known = [(t, value) for t, value in run["outputs"] if value is not None]
            width = 3 if record["policy"] == NONE else 1  # runs without an accepted refit lie on those without restarts
            error.plot(*zip(*known), ".-", color=f"C{i}", linewidth=width, markersize=4, label=label)
            step.plot(run["t"], run["h"], color=f"C{i}", linewidth=width)
            if run["error"] is not None:
                cost.plot(run["seconds"], run["error"], "o", color=f"C{i}", markersize=5)
    labels = ("t", "relative L2 error"), ("t", "step"), ("core seconds of a run", "relative L2 error at the end")
    for axis, (x, y) in zip(axes, labels):
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.set_yscale("log")


STUDY = Study(
    "restarts",
    "What do restarts do to a long run: when, by Gauss-Newton or by Adam, and at what cost?",
    _cases,
    _tables,
    _answer,
    _draw,
)
