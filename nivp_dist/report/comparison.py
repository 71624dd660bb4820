"""Several runs beside each other: a table of errors, residuals and times, and a figure of them against t."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nivp_dist.errors import InputError
from nivp_dist.formatting import duration, number, scientific
from nivp_dist.report.course import read_course
from nivp_dist.report.status import read_status
from nivp_dist.report.tables import aligned
from nivp_dist.settings.files import RECORD, all_settings, changed_keys, read_config, value_of
from nivp_dist.storage.files import write_whole

LINE_STYLES = ("-", "--", ":", "-.")
CLOSE = 1e-9  # relative difference of two output times up to which they are one
# Keys that say where a run is computed and written: they differ between any two runs and explain nothing.
PLACE = ("output.directory", "cluster.", "checkpoint.")


class Compared(NamedTuple):
    """One of the runs.

    Attributes:
        name: in table and figure. status: as ``read_status`` has it. summary: the content of summary.json.
        settings: the tree of all settings. course: its metrics, as ``read_course`` has them. outputs: the entries of
            the summary's "errors", in the order of t.
    """

    name: str
    status: str
    summary: dict
    settings: dict
    course: dict[str, np.ndarray]
    outputs: list[dict]

    def output(self, t: float | None) -> dict:
        """The output at a time, or the last one for None; {} where there is none."""
        if t is None:
            return self.outputs[-1] if self.outputs else {}
        return next((entry for entry in self.outputs if math.isclose(entry["t"], t, rel_tol=CLOSE)), {})

    def residual(self) -> float | None:
        """The median over the steps of the relative residual on fresh points; None before the first."""
        known = self.course["residual_fresh"][np.isfinite(self.course["residual_fresh"])]
        return float(np.median(known)) if len(known) else None


def read(directories: Sequence[str | Path]) -> list[Compared]:
    """The runs in these directories. Raises InputError if one holds none, or is damaged."""
    paths = [Path(directory) for directory in directories]
    alone = len({path.resolve().name for path in paths}) == len(paths)
    found = []
    for path in paths:
        status = read_status(path)
        try:
            course = read_course(path)
        except ValueError as error:
            raise InputError(f"{error}: it is damaged; move it away, and compare what is left") from None
        summary, settings = status["summary"], all_settings(read_config(path / RECORD))
        outputs = sorted(summary.get("errors") or [], key=lambda entry: entry["t"])
        name = path.resolve().name if alone else str(path)
        found.append(Compared(name, status["status"], summary, settings, course, outputs))
    return found


def last_common_time(runs: Sequence[Compared]) -> float | None:
    """The last output time of all runs that have an output; None if there is none."""
    begun = [run for run in runs if run.outputs]
    times = [entry["t"] for run in begun[:1] for entry in run.outputs]
    return max((t for t in times if all(run.output(t) for run in begun)), default=None)


def facts(runs: Sequence[Compared]) -> list[dict]:
    """What the table shows of each run, ready for JSON. Unknown ones are None.

    error and estimate are those at the last output time that all runs have, t, so that they can be compared; if there
    is none, those at the last output of each. residual is the median over all steps.
    """
    t, rows = last_common_time(runs), []
    for run in runs:
        output = run.output(t)
        copied = ("problem", "steps", "rejected", "refits", "parameters", "points", "solver", "wall_seconds")
        rows.append(
            {"run": run.name, "status": run.status, "t": output.get("t")}
            | {"error": output.get("relative_l2"), "estimate": output.get("estimate"), "residual": run.residual()}
            | {name: run.summary.get(name) for name in copied}
        )
    return rows


def lines(runs: Sequence[Compared]) -> list[str]:
    """The table of ``facts`` as aligned text, with the settings in which the runs differ below it."""
    shown = {
        "run": str,
        "status": str,
        "t": number,
        "error": scientific,
        "estimate": scientific,
        "residual": scientific,
        "steps": number,
        "rejected": number,
        "refits": number,
        "parameters": number,
        "points": number,
        "solver": number,
        "wall_seconds": duration,
    }
    heads = ["wall time" if name == "wall_seconds" else name for name in shown]
    rows = [heads, *([write(row[name]) for name, write in shown.items()] for row in facts(runs))]
    table = aligned(rows)
    t = last_common_time(runs)
    where = "at the last output of each, as no time is common to all" if t is None else f"at t = {number(t)}"
    head = f"relative L2 error, and its estimate, {where}; relative residual: median over the steps"
    return [head, *(f"  {line}" for line in table), *_differences(runs)]


def _differences(runs: Sequence[Compared]) -> list[str]:
    """A row for every setting in which the runs differ, with its value in each."""
    keys: dict[str, None] = {}
    for run in runs[1:]:
        keys |= dict.fromkeys(changed_keys(runs[0].settings, run.settings))
    rows = [[key, *(value_of(run.settings, key) for run in runs)] for key in keys if not key.startswith(PLACE)]
    if not rows:
        return ["", "the settings are the same"]
    head = ["setting", *(run.name for run in runs)]
    shortened = [[text if len(text) <= 40 else f"{text[:37]}..." for text in row] for row in rows]
    return ["", "settings that differ", *(f"  {line}" for line in aligned([head, *shortened]))]


def figure(runs: Sequence[Compared]):
    """Panels against t, a colour for each run: errors and estimates, residuals, step sizes, wall time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    # matplotlib has ten colours, C0 to C9, and repeats them.
    styles = [{"color": f"C{i}", "linestyle": LINE_STYLES[i // 10 % len(LINE_STYLES)]} for i in range(len(runs))]
    panels = {
        "relative L2 error (dots), its estimate (lines)": ("estimate", True),
        "relative residual on fresh points": ("residual_fresh", True),
        "step size h": ("h", True),
        "wall time in minutes": ("wall_seconds", False),
    }
    for axis, (title, (name, log)) in zip(axes.flat, panels.items()):
        for run, style in zip(runs, styles):
            _curve(axis, run, name, style)
        axis.set_title(title, loc="left", fontsize=11)
        axis.grid(True, which="both", alpha=0.25)
        if log:
            axis.set_yscale("log")
    axes[1, 1].set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel("time t")
    handles = [axes[0, 0].plot([], [], label=run.name, **style)[0] for run, style in zip(runs, styles)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(runs), 4), fontsize=10, frameon=False)
    return figure


def draw(runs: Sequence[Compared], output: str | Path) -> Path:
    """Draw ``figure`` into a file, whose ending says the format, and return its path. Raises InputError."""
    path, buffer = Path(output), io.BytesIO()
    try:
        figure(runs).savefig(buffer, format=path.suffix[1:] or "png", dpi=130)
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; draw elsewhere with --output") from None
    except ValueError as error:  # an ending that matplotlib does not know
        raise InputError(f"{path}: {error}") from None
    return path


def _curve(axis, run: Compared, name: str, style: dict) -> None:
    values = run.course[name] / (60.0 if name == "wall_seconds" else 1.0)
    seen = np.isfinite(values) & ((values > 0) | (name == "wall_seconds"))
    axis.plot(run.course["t"][seen], values[seen], linewidth=1.3, **style)
    if name == "estimate":
        known = [(entry["t"], entry["relative_l2"]) for entry in run.outputs if entry.get("relative_l2")]
        axis.plot(*zip(*known) if known else ((), ()), color=style["color"], marker="o", markersize=5, linestyle="")
