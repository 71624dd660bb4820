"""Figures of the solution beside its reference: curves (d = 1), images (d = 2), slices (d >= 3)."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import ScalarFormatter

from nivp_dist.problems.base import output_names
from nivp_dist.report.health import BLUE, ORANGE
from nivp_dist.run.stored import Run
from nivp_dist.run.window import chosen_times, window

SLICES_FROM = 3  # the smallest dimension that is shown by slices and marginals
MAX_COLUMNS = 4  # the largest number of coordinates in a row of panels
MAX_OUTPUTS = 2  # the largest number of outputs of a system that are shown
CURVE_POINTS, IMAGE_POINTS = 401, 161  # along each axis
SIGNED = 0.05  # a field is shown as signed if the smaller of its extremes exceeds this part of the larger


def solution_figure(run: Run) -> Figure:
    """The figure that suits the dimension, of a run with at least one snapshot."""
    d = run.problem.domain.dimension
    return curves_figure(run) if d == 1 else images_figure(run) if d == 2 else slices_figure(run)


def curves_figure(run: Run) -> Figure:
    """d = 1: network and reference over x, a column for each time, a row for each of the first two outputs."""
    times, outputs = chosen_times(run.times), min(run.problem.outputs, MAX_OUTPUTS)
    figure = Figure(figsize=(3.4 * len(times) + 0.8, 2.9 * outputs + 0.7), layout="constrained")
    axes = figure.subplots(outputs, len(times), squeeze=False, sharex="col")
    for column, t in enumerate(times):
        lower, upper, _ = window(run, t)
        x = np.linspace(lower[0], upper[0], CURVE_POINTS)
        network, reference = values(run, t, x[:, None])
        for k in range(outputs):
            axis = axes[k, column]
            _curves(axis, x, network[:, k], _output(reference, k))
            if k == 0:
                axis.set_title(f"t = {t:.4g}")
            if column == 0:
                axis.set_ylabel(output_name(run, k))
        axes[-1, column].set_xlabel("$x$")
    axes[0, 0].legend(fontsize=9)
    return figure


# Images (d = 2) ---------------------------------------------------------------------------------


class _Fields(NamedTuple):
    """Network (n, m) and reference (n, k) on a regular grid at time t. extent: of the image, as matplotlib wants it."""

    t: float
    extent: tuple[float, float, float, float]
    network: np.ndarray
    reference: np.ndarray | None

    def image(self, kind: str, k: int) -> np.ndarray | None:
        """The network, the reference or the difference of the two for output k (n,); None if there is none."""
        u, exact = self.network[:, k], _output(self.reference, k)
        if kind == "network":
            return u
        return exact if kind == "reference" or exact is None else u - exact

    def colours(self, kind: str, k: int) -> dict:
        """The colour scale: network and reference share one, that of the difference is symmetric about zero."""
        shared = ("difference",) if kind == "difference" else ("network", "reference")
        images = [self.image(name, k) for name in shared]
        present = np.concatenate([image for image in images if image is not None])
        return _colours(present, symmetric=kind == "difference")


def images_figure(run: Run) -> Figure:
    """d = 2: network, reference and their difference as images, a column for each time."""
    fields = [_fields(run, t) for t in chosen_times(run.times)]
    rows = []
    for k in range(min(run.problem.outputs, MAX_OUTPUTS)):
        compared = any(field.image("reference", k) is not None for field in fields)
        rows += [(k, kind) for kind in (("network", "reference", "difference") if compared else ("network",))]
    layout = ConstrainedLayoutEngine(wspace=0.08)  # keeps the labels of a colour bar off the panel to its right
    figure = Figure(figsize=(3.9 * len(fields) + 0.6, 3.0 * len(rows) + 0.4), layout=layout)
    axes = figure.subplots(len(rows), len(fields), squeeze=False)
    for column, field in enumerate(fields):
        axes[0, column].set_title(f"t = {field.t:.4g}")
        for row, (k, kind) in enumerate(rows):
            axis, image = axes[row, column], field.image(kind, k)
            if image is None:  # the reference does not hold at this time
                axis.set_axis_off()
                continue
            _draw_image(figure, axis, image, field.extent, field.colours(kind, k))
            if column == 0:
                axis.set_ylabel(f"{kind}, {output_name(run, k)}\n{coordinate(1)}")
            if row == len(rows) - 1:
                axis.set_xlabel(coordinate(0))
    return figure


def _fields(run: Run, t: float) -> _Fields:
    lower, upper, _ = window(run, t)
    grid = np.stack(np.meshgrid(*(np.linspace(lower[i], upper[i], IMAGE_POINTS) for i in range(2))), axis=-1)
    extent = (lower[0], upper[0], lower[1], upper[1])
    return _Fields(t, extent, *values(run, t, grid.reshape(-1, 2)))


def _draw_image(figure: Figure, axis: Axes, image: np.ndarray, extent, scale: dict) -> None:
    square = image.reshape(IMAGE_POINTS, IMAGE_POINTS)
    formatter = ScalarFormatter(useMathText=True)
    formatter.set_powerlimits((-2, 3))
    drawn = axis.imshow(square, origin="lower", extent=extent, aspect="auto", **scale)
    bar = figure.colorbar(drawn, cax=axis.inset_axes((1.03, 0.0, 0.05, 1.0)), format=formatter)  # as high as the image
    bar.ax.tick_params(labelsize=8)
    axis.tick_params(labelsize=8)
    axis.set_box_aspect(1)


def _colours(image: np.ndarray, symmetric: bool) -> dict:
    """Colour map and limits. A density with a small negative undershoot is not shown as a signed field."""
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if symmetric or (low < 0 < high and min(-low, high) > SIGNED * max(-low, high)):
        limit = max(-low, high) or 1.0
        return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    return {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1.0}


# Slices (d >= 3) --------------------------------------------------------------------------------


def slices_figure(run: Run) -> Figure:
    """d >= 3: the first output along lines parallel to the first four axes, a row for each time.

    The lines pass through the mean of the density of the collocation points.
    """
    times = chosen_times(run.times)
    figure, axes = panel_grid(run, times)
    for row, t in zip(axes, times):
        lower, upper, centre = window(run, t)
        for i, axis in enumerate(row):
            x = np.tile(centre, (CURVE_POINTS, 1))
            x[:, i] = np.linspace(lower[i], upper[i], CURVE_POINTS)
            network, reference = values(run, t, x)
            _curves(axis, x[:, i], network[:, 0], _output(reference, 0))
        row[0].set_ylabel(f"{output_name(run, 0)} at t = {t:.4g}")
    axes[0, 0].legend(fontsize=9)
    figure.suptitle("slices parallel to the axes, through the mean of the density of points", fontsize=11)
    return figure


def panel_grid(run: Run, times: np.ndarray) -> tuple[Figure, np.ndarray]:
    """A figure of panels (times, coordinates) for the first coordinates, with their names below the last row."""
    columns = min(run.problem.domain.dimension, MAX_COLUMNS)
    layout = ConstrainedLayoutEngine(wspace=0.05)  # keeps the tick labels of neighbouring panels apart
    figure = Figure(figsize=(3.3 * columns + 0.8, 2.5 * len(times) + 0.9), layout=layout)
    axes = figure.subplots(len(times), columns, squeeze=False, sharey="row")
    for i, axis in enumerate(axes[-1]):
        axis.set_xlabel(coordinate(i))
    figure.align_ylabels(axes[:, 0])
    return figure, axes


# Common parts -----------------------------------------------------------------------------------


def values(run: Run, t: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Network (n, m) and reference (n, k), or None without one, at points x (n, d)."""
    reference = run.reference(t)
    return run.solution(t)(x), None if reference is None else reference(x)


def coordinate(i: int) -> str:
    """The label of coordinate i, counted from 0."""
    return f"$x_{{{i + 1}}}$"


def output_name(run: Run, k: int) -> str:
    """The label of output k, counted from 0."""
    name = output_names(run.problem)[k]
    base, _, index = name.partition("_")
    return f"${base}_{{{index}}}$" if index and base.isalnum() and index.isalnum() else name


def format_axis(axis: Axes) -> None:
    """Powers of ten on the y axis where its numbers need them, a faint grid, and no margin along x."""
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axis.grid(True, alpha=0.25)
    axis.margins(x=0)


def _output(reference: np.ndarray | None, k: int) -> np.ndarray | None:
    """Output k of a reference, which may have fewer outputs than the network."""
    return None if reference is None or k >= reference.shape[1] else reference[:, k]


def _curves(axis: Axes, x: np.ndarray, network: np.ndarray, reference: np.ndarray | None) -> None:
    axis.plot(x, network, color=BLUE, linewidth=1.6, label="network")
    if reference is not None:
        axis.plot(x, reference, color=ORANGE, linewidth=1.4, linestyle="--", label="reference")
    format_axis(axis)
