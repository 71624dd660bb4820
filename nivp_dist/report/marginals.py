"""One-dimensional marginals of the solution in many dimensions, by importance sampling."""

import numpy as np
from matplotlib.figure import Figure

from nivp_dist.points.densities import draw_points, marginal
from nivp_dist.report.health import BLUE, ORANGE
from nivp_dist.report.solution import PANELS, WIDTHS, chosen_times, coordinate, mixture_moments, output_name, values

POINTS, BINS = 40_000, 40


def marginals_figure(run) -> Figure:
    """The first output integrated over all coordinates but one, for the first four; network and reference on the
    same points, so that their difference is not that of two samples. A row each output time."""
    times, domain = chosen_times(run.times), run.problem.domain
    columns = min(domain.dimension, PANELS)
    figure = Figure(figsize=(3.3 * columns + 0.8, 2.5 * len(times) + 0.9), layout="constrained")
    axes = figure.subplots(len(times), columns, squeeze=False, sharey="row")
    for row, t in enumerate(times):
        snapshot = run.snapshot(t)
        mean, covariance = mixture_moments(snapshot)
        reach = WIDTHS * np.sqrt(np.diag(covariance))
        low, high = np.maximum(mean - reach, domain.lower), np.minimum(mean + reach, domain.upper)
        x, inverse = draw_points(snapshot, POINTS)
        inside = domain.contains(x)  # u is zero outside a box
        masses = np.zeros((2, len(x)))
        network, reference = values(run, t, x[inside])
        masses[0, inside] = network[:, 0] * inverse[inside]
        if reference is not None:
            masses[1, inside] = reference[:, 0] * inverse[inside]
        for i in range(columns):
            edges, axis = np.linspace(low[i], high[i], BINS + 1), axes[row, i]
            axis.stairs(marginal(x[:, i], masses[0], edges), edges, color=BLUE, fill=True, alpha=0.35, label="network")
            if reference is not None:
                exact = marginal(x[:, i], masses[1], edges)
                axis.stairs(exact, edges, color=ORANGE, linestyle="--", linewidth=1.4, label="reference")
            axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
            axis.grid(True, alpha=0.25)
            axis.margins(x=0)
            if row == len(times) - 1:
                axis.set_xlabel(coordinate(i))
        axes[row, 0].set_ylabel(f"marginal of {output_name(run, 0)} at t = {t:.4g}", fontsize=9)
    figure.align_ylabels(axes[:, 0])
    axes[0, 0].legend(fontsize=9)
    figure.suptitle("marginals: integrals over all other coordinates (importance sampling, same points)", fontsize=11)
    return figure
