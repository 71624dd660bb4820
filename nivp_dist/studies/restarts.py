"""What restarts do to a long run: none, by its state, or every so often, by Gauss-Newton or by Adam.

Every policy continues the same three runs of a wave that is reflected by the walls again and again. The first part of
a run, until a policy refits, is the same for all of them. Cost is counted in core seconds, without compiling.
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
CONFIGURATION = "wave_2d_long"
NONE = "none"
SETTINGS = {
    "network.width": "12",
    "network.depth": "2",
    "sampling.points": "1200",
    "sampling.adapt_points": "false",
    "solver.mu": "3e-12",
    "solver.equal_shares": "false",
    "integrator.rtol": "1e-3",
    "integrator.t_end": "8",
    "integrator.max_steps": "300",
    "fit.points": "1200",
    "fit.iterations": "60",
    "fit.on_miss": "continue",
    "restart.bound": "2e-2",
    "output.times": "[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]",
    "output.spectrum_every": "0",
    "output.evaluation_points": "4000",
    "devices": "1",
}
QUICK = {"integrator.t_end": "1", "output.times": "[0.5]", "fit.iterations": "20"}


class Policy(NamedTuple):
    """When and how to refit. title: in words. settings: of the section [restart]."""

    title: str
    settings: dict[str, str]


ADAM = {"fit.method": "adam", "fit.steps": "2000", "fit.batch": "1000"}
POLICIES = {
    NONE: Policy("none", {"enabled": "false"}),
    "state": Policy("by state, Gauss-Newton", {"max_age": "1e9"}),
    "often": Policy("after 1, Gauss-Newton", {"max_age": "1"}),
    "seldom": Policy("after 2, Gauss-Newton", {"max_age": "2"}),
    "adam": Policy("after 2, Adam", {"max_age": "2"} | ADAM),
}
QUICK_POLICIES = {NONE: POLICIES[NONE], "often": Policy("after 0.4, Gauss-Newton", {"max_age": "0.4"})}


def _cases(quick: bool) -> list[Case]:
    policies = QUICK_POLICIES if quick else POLICIES
    return [Case(name, partial(_measure, name, quick)) for name in policies]


def configuration(name: str, quick: bool) -> Config:
    """That of a policy."""
    policy = (QUICK_POLICIES if quick else POLICIES)[name]
    settings = SETTINGS | (QUICK if quick else {}) | {f"restart.{key}": value for key, value in policy.settings.items()}
    return read_config(shipped_configs()[CONFIGURATION], settings)


def _measure(name: str, quick: bool, folder: Path) -> dict:
    """The record of a policy, lists over the seeds. folder: is not used."""
    from nivp_dist.problems import registry
    from nivp_dist.run.simulation import Simulation
    from nivp_dist.studies.in_memory import evolve

    config, seeds = configuration(name, quick), SEEDS[:1] if quick else SEEDS
    run = Simulation(config, registry.load(config.problem))
    courses = [evolve(run, seed) for seed in seeds]
    title = (QUICK_POLICIES if quick else POLICIES)[name].title
    facts = {"policy": name, "title": title, "seeds": list(seeds), "parameters": run.network.size}
    return facts | {"runs": [_course(course) for course in courses]}


def _course(course) -> dict:
    """Of a run (``in_memory.Course``) what a record has."""
    return {
        "outputs": course.outputs,
        "t": [line["t"] for line in course.lines],
        "h": [line["h"] for line in course.lines],
        "residual": [line["residual_fresh"] for line in course.lines],
        "evaluations": sum(line["evaluations"] for line in course.lines),
        "refits": course.refits,
        "error": course.error,
        "seconds": course.seconds,
        "failure": course.failure,
    }


# ---- what the records say ----


def errors(record: dict) -> list[float | None]:
    """At the end of each run; None of a run that has not reached it."""
    return [run["error"] for run in record["runs"]]


def refit_errors(record: dict) -> list[float]:
    """Of all accepted refits."""
    return [each["error"] for run in record["runs"] for each in run["refits"] if each["accepted"]]


def last_steps(record: dict) -> list[float]:
    """The median step of the last quarter of the steps of each run."""
    return [statistics.median(run["h"][-max(1, len(run["h"]) // 4) :]) for run in record["runs"]]


def change(records: Records, policy: str) -> Effect | None:
    """Of a policy on the error at the end, against none. None where most runs without restarts have failed."""
    return effect(errors(records[NONE]), errors(records[policy]))


# ---- tables ----


def _tables(records: Records) -> list[Table]:
    titles = [
        "restarts",
        "refits",
        "refused",
        "their error",
        "error at the end",
        "last steps",
        "velocities",
        "core seconds",
    ]
    rows = [titles + ["failed"]]
    for record in records.values():
        runs = record["runs"]
        refits = [[refit["accepted"] for refit in run["refits"]] for run in runs]
        failed = sum(run["failure"] is not None for run in runs)
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
                f"{failed} of {len(runs)}" if failed else "",
            ]
        )
    seeds = len(next(iter(records.values()))["seeds"])
    end = f"medians of {seeds} seeds, least and largest in brackets"
    return [Table(f"a wave in a box; {end}", rows), _over_time(records)]


def _over_time(records: Records) -> Table:
    times = sorted({t for record in records.values() for run in record["runs"] for t, _ in run["outputs"]})
    rows = [["restarts", *(f"t = {number(t)}" for t in times)]]
    for record in records.values():
        at = [[dict(map(tuple, run["outputs"])).get(t) for run in record["runs"]] for t in times]
        rows.append([record["title"], *(_middle(each) for each in at)])
    return Table("relative L2 error over time, medians of the seeds that got so far", rows)


def _middle(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return scientific(statistics.median(known)) if known else MISSING


# ---- answer ----


def _answer(records: Records) -> list[str]:
    if NONE not in records or len(records) < 2:
        return ["open: nothing to compare was measured"]
    if len(records[NONE]["seeds"]) < len(SEEDS):
        return ["open: one seed decides nothing"]
    lines = [_sentence(records, name) for name in records if name != NONE]
    known = [(name, found) for name in records if name != NONE and (found := change(records, name)) is not None]
    better = [(name, found) for name, found in known if found.matters and found.factor < 1]
    if better:
        name, found = min(better, key=lambda each: each[1].factor)
        lines.insert(
            0, f"Restarts pay: {records[name]['title']} has x {found.factor:.2g} of the error of none at the end."
        )
    elif known:
        lines.insert(0, "No policy of restarts lowers the error at the end by more than the seeds differ: open.")
    else:
        lines.insert(0, "Most runs without restarts do not reach the end: their error there is not known.")
    return lines


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


# ---- picture ----


def _draw(records: Records, figure: Figure) -> None:
    error, step, cost = figure.subplots(1, 3)
    for i, record in enumerate(records.values()):
        for k, run in enumerate(record["runs"]):
            label = record["title"] if k == 0 else None
            known = [(t, value) for t, value in run["outputs"] if value is not None]
            error.plot(*zip(*known), ".-", color=f"C{i}", linewidth=1, markersize=3, label=label)
            step.plot(run["t"], run["h"], color=f"C{i}", linewidth=0.8)
            if run["error"] is not None:
                cost.plot(run["seconds"], run["error"], "o", color=f"C{i}", markersize=5)
    for axis, x, y in (
        (error, "t", "relative L2 error"),
        (step, "t", "step"),
        (cost, "core seconds", "error at the end"),
    ):
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.set_yscale("log")
    figure.legend(*error.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9, frameon=False)


STUDY = Study(
    "restarts",
    "What do restarts do to a long run: when, by Gauss-Newton or by Adam, and at what cost?",
    _cases,
    _tables,
    _answer,
    _draw,
)
