"""Figures of how a run went: step size, residuals, solver, conditioning, and error against time."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREY = "#1f5fa8", "#d9781e", "#888888"
ESTIMATES = {"estimate": {"color": ORANGE, "linewidth": 1.6}} | {
    f"estimate_{part}": {"color": GREY, "linewidth": 1.2, "linestyle": style}
    for part, style in {"initial": ":", "residual": "--", "steps": "-.", "refits": (0, (5, 1, 1, 1, 1, 1))}.items()
}


def health_figure(metrics: dict[str, np.ndarray], events: list[dict]) -> Figure:
    """Six panels over t, one below the other in two columns; refits as vertical lines.

    metrics: name -> (steps,), as ``Run.metrics`` gives. events: of events.jsonl.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(3, 2, sharex=True)
    t = metrics.get("t", np.zeros(0))
    series = lambda *names: [metrics.get(name, np.full(len(t), np.nan)) for name in names]  # noqa: E731
    h, residual, fresh, iterations, rejected = series("h", "residual", "residual_fresh", "cg_iterations", "rejected")
    largest, mu, dimension, rank = series("lambda_max", "mu", "effective_dimension", "rank")

    _panel(axes[0, 0], t, [(h, "")], "step size", "h", log=True)
    both = [(fresh, "fresh points"), (residual, "points of the step")]
    _panel(axes[1, 0], t, both, "relative residual", "|J v - f| / |f|", log=True)
    _panel(axes[2, 0], t, [(np.nancumsum(rejected), "")] if len(t) else [], "rejected steps, cumulative", "count")
    if len(t) and np.nansum(iterations) == 0 and np.isfinite(iterations).any():
        _say(axes[0, 1], "conjugate gradients", "no CG iterations: solved directly")
    else:
        _panel(axes[0, 1], t, [(iterations, "")], "conjugate gradients", "iterations in a step")
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = largest / mu
    _panel(axes[1, 1], t, [(condition, "")], "condition number", r"$\lambda_{\max}(M)\,/\,\mu$", log=True)
    _panel(axes[2, 1], t, [(dimension, "")], _dimension_title(dimension, rank), r"tr $M (M + \mu)^{-1}$")

    # A refit leaves two events, its reason and its outcome.
    refits = sorted({event["t"] for event in events if event.get("kind") == "refit" and event.get("t") is not None})
    for axis in axes.flat:
        for number, time in enumerate(refits):
            named = axis is axes[0, 0] and number == 0
            axis.axvline(time, color=GREY, linestyle="--", linewidth=1, label="refit" if named else None)
        if axis.get_legend_handles_labels()[0]:  # beside the title: inside it would hide some of the curves
            axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=9, frameon=False, borderaxespad=0.1)
    for axis in axes[-1]:
        axis.set_xlabel("time t")
    return figure


def error_figure(errors: dict[str, np.ndarray], metrics: dict[str, np.ndarray] | None = None) -> Figure | None:
    """Relative L2 error against t, and the run's own estimate with its parts; None where nothing was measured.

    errors: as ``Run.errors`` gives. metrics: as ``Run.metrics`` gives, for the estimate.
    """
    dots = {"color": BLUE, "marker": "o", "markersize": 5}
    series = [("against the reference", errors["t"], errors["relative_l2"], dots)]
    for name, style in ESTIMATES.items():
        if metrics and name in metrics:
            series.append((name.replace("_", ": "), metrics["t"], metrics[name], style))
    visible = [np.isfinite(values) & (values > 0) for _, _, values, _ in series]
    series = [(label, t[seen], values[seen], style) for (label, t, values, style), seen in zip(series, visible)]
    series = [entry for entry in series if len(entry[1])]
    if not series:
        return None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for label, t, values, style in series:
        axis.plot(t, values, label=label, **style)
    axis.set_yscale("log")
    _room(axis, np.concatenate([values for _, _, values, _ in series]))
    axis.set(title="error against the reference and as estimated", xlabel="time t", ylabel="relative L2 error")
    axis.grid(True, which="both", alpha=0.25)
    axis.legend(fontsize=9)
    return figure


def _panel(axis: Axes, t, lines: list[tuple[np.ndarray, str]], title: str, label: str, log: bool = False) -> None:
    drawn = []
    for (values, name), colour in zip(lines, (BLUE, ORANGE)):
        seen = np.isfinite(values) & (values > 0 if log else True)
        if seen.any():
            marker = "." if seen.sum() <= 200 else ""
            axis.plot(t[seen], values[seen], color=colour, linewidth=1.3, marker=marker, label=name or None)
            drawn.append(values[seen])
    if not drawn:
        return _say(axis, title, "no steps yet" if not len(t) else "not measured in this run")
    if log:
        axis.set_yscale("log")
        _room(axis, np.concatenate(drawn))
    else:
        axis.set_ylim(bottom=0, top=max(1, 1.08 * max(values.max() for values in drawn)))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_ylabel(label)
    axis.grid(True, which="both", alpha=0.25)


def _dimension_title(dimension: np.ndarray, rank: np.ndarray) -> str:
    """A sketch sees no more dimensions than its rank: one that is nearly used up gives a lower bound only."""
    full = dimension > 0.9 * rank
    if not full.any():
        return "effective dimension"
    least, most = rank[full].min(), rank[full].max()  # direct solves are watched by a smaller sketch than CG is given
    return f"effective dimension: more than the sketch's rank {f'{least:g} to ' if least < most else ''}{most:g} tells"


def _room(axis: Axes, values: np.ndarray) -> None:
    """At least a decade: a nearly constant series on a log axis else fills it with meaningless ticks."""
    low, high = values.min(), values.max()
    stretch = max((high / low) ** 0.08, np.sqrt(10 / (high / low)))
    axis.set_ylim(low / stretch, high * stretch)


def _say(axis: Axes, title: str, text: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_yticks([])
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY, fontsize=11)
