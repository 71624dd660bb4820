"""Marginals of the solution in many dimensions: its integrals over all coordinates but one, by importance sampling."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nivp_dist.points.densities import draw_points, marginal
from nivp_dist.report.health import BLUE, ORANGE
from nivp_dist.report.solution import format_axis, output_name, panel_grid, values
from nivp_dist.run.stored import Run
from nivp_dist.run.window import chosen_times, mixture_window

# With 40,000 points the statistical error of each of 40 bins is a few percent (seen for fokker_planck_trap_5d).
POINTS, BINS = 40_000, 40


def marginals_figure(run: Run) -> Figure:
    """The marginals of the first output in the first four coordinates, a row for each time.

    Network and reference are evaluated on the same points, so that the difference of their marginals has little
    statistical error.
    """
    times = chosen_times(run.times)
    figure, axes = panel_grid(run, times)
    for row, t in zip(axes, times):
        x, network, reference = _sampled(run, t)
        lower, upper = _bounds(run, t)
        for i, axis in enumerate(row):
            edges = np.linspace(lower[i], upper[i], BINS + 1)
            _draw_marginals(axis, x[:, i], network, reference, edges)
        row[0].set_ylabel(f"marginal of {output_name(run, 0)}\nat t = {t:.4g}")
    axes[0, 0].legend(fontsize=9)
    figure.suptitle("marginals: integrals over all other coordinates, by importance sampling", fontsize=11)
    return figure


def _bounds(run: Run, t: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of the domain that is shown, within the box if there is one: two arrays (d,)."""
    lower, upper = mixture_window(run.snapshot(t))
    domain = run.problem.domain
    return np.maximum(lower, domain.lower), np.minimum(upper, domain.upper)


def _sampled(run: Run, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Points (n, d), and there the first output of network and reference (n,) over the density of the points.

    Both are zero outside a box.
    """
    x, inverse = draw_points(run.snapshot(t), POINTS, domain=run.problem.domain)
    inside = run.problem.domain.contains(x)

    def weighted(u: np.ndarray) -> np.ndarray:
        whole = np.zeros(len(x))
        whole[inside] = u[:, 0] * inverse[inside]
        return whole

    network, reference = values(run, t, x[inside])
    return x, weighted(network), None if reference is None else weighted(reference)


def _draw_marginals(axis: Axes, x: np.ndarray, network: np.ndarray, reference: np.ndarray | None, edges) -> None:
    """Histograms of the weighted points along one coordinate x (n,)."""
    axis.stairs(marginal(x, network, edges), edges, color=BLUE, fill=True, alpha=0.35, label="network")
    if reference is not None:
        exact = marginal(x, reference, edges)
        axis.stairs(exact, edges, color=ORANGE, linestyle="--", linewidth=1.4, label="reference")
    format_axis(axis)
