"""Figures of the solution beside its reference: curves (d = 1), images (d = 2), slices (d >= 3)."""

import numpy as np
from matplotlib.figure import Figure

from nivp_dist.report.health import BLUE, ORANGE

SLICED = 3  # from this dimension on: slices and marginals
PANELS = 4  # output times, and coordinates, at most
WIDTHS = 4.0  # standard deviations either side of the mean that are shown on the whole space
CURVE_POINTS, IMAGE_POINTS = 401, 161


def solution_figure(run) -> Figure:
    """The figure that suits the dimension. run: ``run.Run`` with at least one snapshot."""
    d = run.problem.domain.dimension
    return curves_figure(run) if d == 1 else images_figure(run) if d == 2 else slices_figure(run)


def chosen_times(times: np.ndarray) -> np.ndarray:
    """At most four, evenly spread among the stored ones, the first and the last included."""
    return times[np.unique(np.linspace(0, len(times) - 1, min(PANELS, len(times))).round().astype(int))]


def mixture_moments(snapshot: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of the density of points that was stored with a snapshot."""
    weights, means = snapshot["density_weights"], snapshot["density_means"]
    weights = weights / weights.sum()
    mean = weights @ means
    centred = means - mean
    covariance = np.einsum("k,kij->ij", weights, snapshot["density_covariances"]) + (weights * centred.T) @ centred
    return mean, covariance


def window(run, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper bounds of what is shown at time t, and the centre of slices: three of shape (d,)."""
    domain = run.problem.domain
    mean, covariance = mixture_moments(run.snapshot(t))
    if domain.bounded:
        return domain.lower, domain.upper, np.clip(mean, domain.lower, domain.upper)
    reach = WIDTHS * np.sqrt(np.diag(covariance))
    return mean - reach, mean + reach, mean


def curves_figure(run) -> Figure:
    """d = 1: network and reference over x, a column each output time, a row each of the first two outputs."""
    times, outputs = chosen_times(run.times), min(run.problem.outputs, 2)
    figure = Figure(figsize=(3.4 * len(times) + 0.8, 2.9 * outputs + 0.7), layout="constrained")
    axes = figure.subplots(outputs, len(times), squeeze=False, sharex=run.problem.domain.bounded)
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
        axes[-1, column].set_xlabel(coordinate(0))
    axes[0, 0].legend(fontsize=9)
    return figure


def images_figure(run) -> Figure:
    """d = 2: network, reference and their difference as images, a column each output time.

    Network and reference share a colour scale; that of the difference is its own, symmetric about zero.
    """
    times, outputs = chosen_times(run.times), min(run.problem.outputs, 2)
    fields = []
    for t in times:
        lower, upper, _ = window(run, t)
        grid = np.stack(np.meshgrid(*(np.linspace(lower[i], upper[i], IMAGE_POINTS) for i in range(2))), axis=-1)
        extent = (lower[0], upper[0], lower[1], upper[1])
        fields.append((t, extent, *values(run, t, grid.reshape(-1, 2))))
    rows = []
    for k in range(outputs):
        compared = any(_output(reference, k) is not None for *_, reference in fields)
        rows += [(k, kind) for kind in (("network", "reference", "difference") if compared else ("network",))]

    figure = Figure(figsize=(3.6 * len(times) + 0.6, 3.0 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(times), squeeze=False)
    for column, (t, extent, network, reference) in enumerate(fields):
        for row, (k, kind) in enumerate(rows):
            axis, u, exact = axes[row, column], network[:, k], _output(reference, k)
            image = {"network": u, "reference": exact, "difference": None if exact is None else u - exact}[kind]
            if row == 0:
                axis.set_title(f"t = {t:.4g}")
            if image is None:  # past the time to which the reference holds
                axis.set_axis_off()
                continue
            both = image if kind == "difference" else u if exact is None else np.concatenate([u, exact])
            scale = _colours(both, symmetric=kind == "difference")
            shape = (IMAGE_POINTS, IMAGE_POINTS)
            drawn = axis.imshow(image.reshape(shape), origin="lower", extent=extent, aspect="auto", **scale)
            bar = figure.colorbar(drawn, ax=axis, pad=0.02)
            bar.formatter.set_powerlimits((-2, 3))
            bar.ax.tick_params(labelsize=8)
            axis.tick_params(labelsize=8)
            axis.set_box_aspect(1)
            if column == 0:
                name = output_name(run, k)
                axis.set_ylabel(f"{kind}, {name}\n{coordinate(1)}")
            if row == len(rows) - 1:
                axis.set_xlabel(coordinate(0))
    return figure


def slices_figure(run) -> Figure:
    """d >= 3: the first output along the first four axes through the mean of the density of points.

    A row each output time, a column each coordinate.
    """
    times, d = chosen_times(run.times), run.problem.domain.dimension
    columns = min(d, PANELS)
    figure = Figure(figsize=(3.3 * columns + 0.8, 2.5 * len(times) + 0.9), layout="constrained")
    axes = figure.subplots(len(times), columns, squeeze=False, sharey="row")
    for row, t in enumerate(times):
        lower, upper, centre = window(run, t)
        for i in range(columns):
            axis = axes[row, i]
            x = np.tile(centre, (CURVE_POINTS, 1))
            x[:, i] = np.linspace(lower[i], upper[i], CURVE_POINTS)
            network, reference = values(run, t, x)
            _curves(axis, x[:, i], network[:, 0], _output(reference, 0))
            if row == len(times) - 1:
                axis.set_xlabel(coordinate(i))
        axes[row, 0].set_ylabel(f"{output_name(run, 0)} at t = {t:.4g}")
    figure.align_ylabels(axes[:, 0])
    axes[0, 0].legend(fontsize=9)
    figure.suptitle("slices through the mean of the density of points, parallel to the axes", fontsize=11)
    return figure


def values(run, t: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Network (n, m) and reference (n, k), or None without one, at points x (n, d)."""
    reference = run.reference(t)
    return run.solution(t)(x), None if reference is None else reference(x)


def coordinate(i: int) -> str:
    """The label of coordinate i, counted from 0."""
    return f"$x_{{{i + 1}}}$"


def output_name(run, k: int) -> str:
    """The label of output k, counted from 0."""
    names = run.problem.output_names
    name = names[k] if k < len(names) else f"u_{k + 1}"
    base, _, index = name.partition("_")
    return f"${base}_{{{index}}}$" if index and base.isalnum() and index.isalnum() else name


def _output(reference: np.ndarray | None, k: int) -> np.ndarray | None:
    return None if reference is None or k >= reference.shape[1] else reference[:, k]


def _curves(axis, x, network, reference) -> None:
    axis.plot(x, network, color=BLUE, linewidth=1.6, label="network")
    if reference is not None:
        axis.plot(x, reference, color=ORANGE, linewidth=1.4, linestyle="--", label="reference")
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axis.grid(True, alpha=0.25)
    axis.margins(x=0)


def _colours(image: np.ndarray, symmetric: bool) -> dict:
    finite = image[np.isfinite(image)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    # A field of one sign with a trace of the other, such as a density's undershoot, is not shown as signed.
    if symmetric or (low < 0 < high and min(-low, high) > 0.05 * max(-low, high)):
        limit = max(-low, high) or 1.0
        return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    return {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1.0}
