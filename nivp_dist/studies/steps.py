"""What bounds the step size of every shipped problem, and when.

Each row of the score sheet is carried out as it is shipped, in a run directory in the folder of its case, for MINUTES
at most; what it has done by then counts. The bounds of its steps are read from its metrics (``studies.step_bounds``),
in thirds of its steps.
"""

import dataclasses
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nivp_dist.bench import accuracy
from nivp_dist.bench.rows import ROWS, Row
from nivp_dist.errors import RunFailed
from nivp_dist.formatting import MISSING, count, number
from nivp_dist.storage.metrics import METRICS, read_lines
from nivp_dist.studies.step_bounds import BOUNDS, NOTHING, bounds, cut, relative
from nivp_dist.studies.study import Case, Records, Study, Table

MINUTES = 30.0  # of wall time for a run
THIRDS = ("first", "middle", "last")
NAMES_HEIGHT = 170.0  # of the picture's column of names, in points: their letters shrink where rows are many
ENOUGH = 9  # steps of a run, three in each third: of fewer nothing is said

_TINY = {"network.width": "6", "network.depth": "1", "sampling.points": "400", "fit.points": "400"}
_TINY |= {"fit.iterations": "20", "fit.on_miss": "continue"}
_IMPLICIT = {"integrator.method": "bdf", "output.times": "[0.2]", "network.frequencies": "2"}
QUICK = (
    Row("explicit", "heat 2d, tiny", "heat_2d", None, None, 1, t=0.1, settings=_TINY | {"output.times": "[0.05]"}),
    Row("implicit", "Allen-Cahn 1d, tiny", "allen_cahn_1d", None, None, 1, t=0.4, settings=_TINY | _IMPLICIT),
)


def cases(quick: bool) -> list[Case]:
    """A run for each row, those to which the sheet allows the shortest time first."""
    rows = QUICK if quick else [row for row in ROWS if accuracy.run_name(row) == row.name]
    ordered = sorted(rows, key=lambda row: row.minutes)
    return [Case(row.name.replace("_", "-"), partial(measure, row)) for row in ordered]


def measure(row: Row, folder: Path) -> dict:
    """The record of a row: what the run is, how far it came, and the numbers of its thirds (``third``).

    Raises RunFailed if it has taken fewer than ENOUGH steps, InputError as ``bench.accuracy.measure``.
    """
    from nivp_dist.run.stored import Run
    from nivp_dist.settings.output_times import output_times

    limited = dataclasses.replace(row, limit=MINUTES)
    directory = folder / "run"
    entry = accuracy.measure(limited, directory)
    steps = len(read_lines(directory / METRICS))
    if steps < ENOUGH:
        raise RunFailed(f"{count(steps, 'step')}, fewer than {ENOUGH}: {entry['failed'] or 'the run is finished'}")
    run = Run(directory)
    metrics, integrator = run.metrics(), run.config.integrator
    short = cut(metrics, output_times(run.config), integrator.max_step)
    numbers = relative(metrics, integrator.rtol, short)
    found = bounds(numbers, short)
    numbers |= {name: metrics[name] for name in ("t", "h", "rejected")}
    facts = {"problem": row.problem, "command": accuracy.command(row), "method": integrator.method}
    facts |= {"t_end": integrator.t_end, "error": entry["error"], "stopped": entry["failed"]}
    parts = np.array_split(np.arange(len(found)), len(THIRDS))
    return facts | {"thirds": [third(found, numbers, part) for part in parts]}


def third(found: list[str], numbers: dict[str, np.ndarray], part: np.ndarray) -> dict:
    """Of the steps with these indices: the times of the first and the last, how many of them each bound has, the
    rejected attempts, the medians of h and of the numbers that the bounds are read from, the mean of the share of J."""
    of = {name: values[part] for name, values in numbers.items()}
    begin = float(of["t"][0] - of["h"][0])
    counts = Counter(found[step] for step in part)
    facts = {"from": begin, "to": float(of["t"][-1]), "steps": len(part), "rejected": int(of["rejected"].sum())}
    medians = {name: _median(of[name]) for name in ("h", "stability", "motion", "error", "growth")}
    share = of["jacobian_share"][~np.isnan(of["jacobian_share"])]
    medians["jacobian_share"] = float(share.mean()) if len(share) else None
    return facts | medians | {"bounds": {bound: counts[bound] for bound in BOUNDS}}


def _median(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


# Shown ------------------------------------------------------------------------------------------------


def tables(records: Records) -> list[Table]:
    shares = [["problem", "method", "steps", *(f"{name} third" for name in THIRDS)]]
    numbers = [["problem", "t", "steps", "rejected", "h", "h rho / limit", "theta_step", "share of J", "error / rtol"]]
    numbers[0] += ["growth"]
    for record in records.values():
        thirds = record["thirds"]
        steps = str(sum(each["steps"] for each in thirds))
        shares.append([record["problem"], record["method"], steps, *map(_shares, thirds)])
        for each in thirds:
            medians = ("h", "stability", "motion", "jacobian_share", "error", "growth")
            row = [record["problem"], _times(each), str(each["steps"]), str(each["rejected"])]
            numbers.append(row + [MISSING if each[name] is None else f"{each[name]:.3g}" for name in medians])
    return [
        Table("What bounds the steps, in thirds of the steps of each run", shares),
        Table("Medians in the same thirds; theta_step is relative to theta, the share of J a mean", numbers),
    ]


def _shares(third: dict) -> str:
    """The bounds of a third with their parts of its steps, the largest first."""
    ordered = sorted(third["bounds"].items(), key=lambda item: -item[1])
    parts = [f"{bound} {100 * count / third['steps']:.0f} %" for bound, count in ordered if count]
    return f"{', '.join(parts)} (to t = {number(third['to'])})"


def _times(third: dict) -> str:
    return f"{number(third['from'])} to {number(third['to'])}"


def answer(records: Records) -> list[str]:
    """Where each bound is the commonest of a third, and of how many steps in all."""
    total = sum((Counter(each["bounds"]) for record in records.values() for each in record["thirds"]), Counter())
    shares = ", ".join(f"{bound} of {100 * total[bound] / total.total():.0f} %" for bound in BOUNDS)
    said = [f"Of the {total.total()} steps of {len(records)} runs the bound is: {shares}."]
    for bound in BOUNDS:
        where = [place for record in records.values() if (place := _where(record, bound))]
        subject = "Nothing (the steps grow)" if bound == NOTHING else bound.capitalize()
        said.append(f"{subject} is the commonest in {'; '.join(where) or 'none'}.")
    stopped = [
        f"{record['problem']} at t = {number(record['thirds'][-1]['to'])} of {record['t_end']:g}"
        for record in records.values()
        if record["stopped"]
    ]
    return said + ([f"Not carried to the end: {'; '.join(stopped)}."] if stopped else [])


def _where(record: dict, bound: str) -> str | None:
    """The problem with the times of the thirds in which the bound is the commonest; None if there are none."""
    thirds = [each for each in record["thirds"] if commonest(each) == bound]
    if len(thirds) == len(THIRDS):
        return f"{record['problem']} (always)"
    return f"{record['problem']} (t = {', '.join(map(_times, thirds))})" if thirds else None


def commonest(third: dict) -> str:
    """The bound of most steps of a third; of equal ones the first in BOUNDS."""
    return max(BOUNDS, key=third["bounds"].__getitem__)


def draw(records: Records, figure: Figure) -> None:
    """A bar for each third: the parts of its steps by their bounds."""
    names = [record["problem"] for record in records.values()]
    for axis, name, place in zip(figure.subplots(1, 3, sharey=True), THIRDS, range(len(THIRDS))):
        left = np.zeros(len(names))
        for colour, bound in enumerate(BOUNDS):
            thirds = [record["thirds"][place] for record in records.values()]
            parts = np.array([100 * each["bounds"][bound] / each["steps"] for each in thirds])
            axis.barh(names, parts, left=left, color=f"C{colour}", label=bound)
            left += parts
        axis.set_title(f"{name} third of the steps", fontsize=10)
        axis.set(xlabel="%", xlim=(0, 100))
        axis.tick_params(axis="y", labelsize=min(6.0, NAMES_HEIGHT / max(len(names), 1)))
    figure.axes[0].invert_yaxis()
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(BOUNDS), frameon=False)


STUDY = Study(
    "steps",
    "What bounds the step size of each shipped problem, and when?",
    cases,
    tables,
    answer,
    draw,
)
