"""One panel of a picture of the solution: a curve or an image, its labels and its colours."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from nivp_dist.problems.base import Problem, output_names
from nivp_dist.problems.views import View
from nivp_dist.report.health import FIRST, SECOND
from nivp_dist.report.sections import Section

SIGNED = 0.05  # a field is shown as signed if the smaller of its extremes exceeds this part of the larger
MOST_TICKS = 6  # intervals of the x axis: the numbers of more would touch each other
KINDS = ("network", "reference", "difference")  # of images


def coordinate(problem: Problem, axis: int) -> str:
    """The label of a coordinate, counted from 0."""
    return "$x$" if problem.domain.dimension == 1 else f"$x_{{{axis + 1}}}$"


def output_name(problem: Problem, k: int) -> str:
    """The label of output k, counted from 0."""
    name = output_names(problem)[k]
    base, _, index = name.partition("_")
    return f"${base}_{{{index}}}$" if index and base.isalnum() and index.isalnum() else name


def view_name(problem: Problem, view: View) -> str:
    """What a view shows, in words: the output, and the coordinates that are given."""
    name = output_name(problem, view.output)
    given = ", ".join(f"{coordinate(problem, axis)} = {value:g}" for axis, value in sorted(view.at.items()))
    return f"marginal of {name}" if view.marginal else f"{name} at {given}" if given else name


def curves(axis: Axes, section: Section) -> dict[str, Artist]:
    """Network and reference along one axis, lines of values or bins of marginals: what is drawn, by these names."""
    (side,) = section.sides
    styles = {"network": (FIRST, "-", 1.6), "reference": (SECOND, "--", 1.4)}
    drawn: dict[str, Artist] = {}
    for kind, (colour, line, width) in styles.items():
        values = section.kind(kind)
        if values is None:
            continue
        if not section.view.marginal:
            (drawn[kind],) = axis.plot(side, values, color=colour, linestyle=line, linewidth=width, label=kind)
        elif kind == "network":
            drawn[kind] = axis.stairs(values, side, color=colour, fill=True, alpha=0.35, label=kind)
        else:
            drawn[kind] = axis.stairs(values, side, color=colour, linestyle=line, linewidth=width, label=kind)
    # Powers of ten on the y axis where its numbers need them, a faint grid, and no margin along x.
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axis.grid(True, alpha=0.25)
    axis.margins(x=0)
    axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, steps=(1, 2, 5, 10)))
    return drawn


def image(axis: Axes, section: Section, kind: str, colours: dict) -> AxesImage | None:
    """Network, reference or difference over two axes, with a colour bar; nothing where it is not known."""
    values = section.kind(kind)
    if values is None:
        axis.set_axis_off()
        return None
    formatter = ScalarFormatter(useMathText=True)
    formatter.set_powerlimits((-2, 3))
    x, y = section.sides
    drawn = axis.imshow(values, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), aspect="auto", **colours)
    assert axis.figure is not None
    bar = axis.figure.colorbar(drawn, cax=axis.inset_axes((1.03, 0.0, 0.05, 1.0)), format=formatter)  # of equal height
    bar.ax.tick_params(labelsize=8)
    axis.tick_params(labelsize=8)
    axis.set_box_aspect(1)
    axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, steps=(1, 2, 5, 10)))
    return drawn


def show(artist: Artist, values: np.ndarray | None) -> None:
    """Give a line, bins or an image new values; hide it without any."""
    artist.set_visible(values is not None)
    if values is not None:
        artist.set(**{"ydata" if isinstance(artist, Line2D) else "data": values})


def range_of(sections: Sequence[Section]) -> tuple[float, float]:
    """The limits of the y axis for the curves of all these sections."""
    low, high = _extremes(sections, "network")
    low = min(low, 0.0) if sections[0].view.marginal else low  # bins stand on zero
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def colours_of(sections: Iterable[Section], kind: str, signed: bool | None = None) -> dict:
    """Colour map and limits for images of one kind: network and reference share them, and those of the difference are
    symmetric about zero. signed: whether the others are symmetric too; default: where they have both signs.

    A density with a small negative undershoot is not shown as a signed field.
    """
    low, high = _extremes(sections, kind)
    if _is_signed(low, high, kind) if signed is None else signed:
        limit = max(-low, high) or 1.0
        return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    return {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1.0}


def signed_at_some_time(sections: Iterable[Section], kind: str) -> bool:
    """Whether one of these images has both signs. All times of a view have one colour map."""
    return any(_is_signed(*_extremes([section], kind), kind) for section in sections)


def _is_signed(low: float, high: float, kind: str) -> bool:
    return kind == "difference" or (low < 0 < high and min(-low, high) > SIGNED * max(-low, high))


def _extremes(sections: Iterable[Section], kind: str) -> tuple[float, float]:
    shared = ("difference",) if kind == "difference" else ("network", "reference")
    every = [section.kind(name) for section in sections for name in shared]
    present = np.concatenate([np.zeros(0), *(values.ravel() for values in every if values is not None)])
    finite = present[np.isfinite(present)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
