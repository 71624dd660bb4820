"""The picture of a family of runs: error and time against the setting that takes most values."""

import io
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nivp_dist.storage.files import write_whole
from nivp_dist.studies.family import Result

PICTURE = "sweep.png"
SEED = "seed"  # runs that differ in it alone are one point: their median, with a bar from the least to the largest
WIDE = 20.0  # the ratio of the largest to the smallest value from which on an axis is logarithmic
DOTS_PER_INCH = 130


def draw(directory: Path, results: list[Result]) -> Path | None:
    """sweep.png in the directory of the family; None, and no picture, if no run of it has an error or an estimate."""
    figure = figure_of(results)
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DOTS_PER_INCH)
    write_whole(directory / PICTURE, buffer.getvalue())
    return directory / PICTURE


def figure_of(results: list[Result]) -> Figure | None:
    """Panels of the error (or, where no run has a reference, of the estimate) and of the wall time.

    There is a curve for each combination of the other settings. Values that are not numbers stand side by side.
    """
    known = [name for name in ("error", "estimate") if any(result.numbers.get(name) for result in results)]
    if not known:
        return None
    measure = known[0]
    keys = [key for key in results[0].values if key != SEED] or [SEED]
    along = max(keys, key=lambda key: len({result.values[key] for result in results}))
    others = [key for key in keys if key != along]
    values = list(dict.fromkeys(result.values[along] for result in results))
    places = _places(values)
    figure = Figure(figsize=(11, 4), layout="constrained")
    titles = {measure: f"relative L2 {measure}" if measure == "error" else "estimated relative error"}
    for axis, (name, title) in zip(figure.subplots(1, 2), {**titles, "wall_seconds": "wall time in s"}.items()):
        _panel(axis, results, along, others, places, name)
        axis.set_title(title)
        axis.set_xlabel(along)
        _scale_axis(axis, values, places)
    return figure


def _panel(axis: Axes, results: list[Result], along: str, others: list[str], places: dict[str, float], name: str):
    curves = defaultdict(lambda: defaultdict(list))
    for result in results:
        if (value := result.numbers.get(name)) is not None:
            label = ", ".join(f"{key} = {result.values[key]}" for key in others)
            curves[label][places[result.values[along]]].append(value)
    for label, points in curves.items():
        x = sorted(points)
        middle = np.array([np.median(points[place]) for place in x])
        spread = np.array([[np.min(points[place]), np.max(points[place])] for place in x]).T
        bars = np.abs(spread - middle) if any(len(points[place]) > 1 for place in x) else None
        axis.errorbar(x, middle, yerr=bars, marker="o", capsize=3, label=label or None)
    drawn = [value for points in curves.values() for values in points.values() for value in values]
    if drawn and min(drawn) > 0 and max(drawn) > WIDE * min(drawn):
        axis.set_yscale("log")
    if others and curves:
        axis.legend(fontsize=9, frameon=False)


def _places(values: list[str]) -> dict[str, float]:
    """Where each value stands on the axis: at itself if all are numbers, otherwise one after the other."""
    try:
        return {value: float(value) for value in values}
    except ValueError:
        return {value: float(place) for place, value in enumerate(values)}


def _scale_axis(axis: Axes, values: list[str], places: dict[str, float]) -> None:
    at = list(places.values())
    if min(at) > 0 and max(at) > WIDE * min(at):
        axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xticks(at, values)
