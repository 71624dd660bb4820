"""Figures of the course of a run: step size, residuals, solver, conditioning, and error against time."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nivp_dist.formatting import duration
from nivp_dist.storage.metrics import RECORDED

COLOURS = FIRST, SECOND, *_ = tuple(f"C{i}" for i in range(5))  # of the style that is chosen (report.style)
GREY = "#888888"
SMALL_SHARE = "small_share_"  # the beginning of the metrics with the shares of the layers
SHOWN_LAYERS = 4  # those with the largest shares; the sum of the others is one more curve
MARKED_STEPS = 200  # a curve of at most so many steps gets a marker at each of them
# metric -> (label, style): the estimate of the error, the bound, and the parts that this is the sum of
PARTS = {"initial": ":", "residual": "--", "steps": "-.", "refits": (0, (5, 1, 1, 1, 1, 1))}
ESTIMATES = {
    "estimate": ("estimate", {"color": SECOND, "linewidth": 1.6}),
    "estimate_bound": ("bound", {"color": SECOND, "linewidth": 1.2, "linestyle": "--"}),
} | {
    f"estimate_{part}": (f"of which {part}", {"color": GREY, "linewidth": 1.2, "linestyle": style})
    for part, style in PARTS.items()
}

MOST_RECORDED = 12  # panels of numbers that callbacks have recorded

Metrics = dict[str, np.ndarray]  # name -> (steps,), as ``report.course`` reads them


def health_figure(metrics: Metrics, events: list[dict]) -> Figure:
    """Panels against t in two columns; refits are vertical lines.

    The panel of conjugate gradients, and with it a row, is left out where every system was solved directly. Implicit
    steps form no M and have no stages: their order takes the place of the panels about these, and that of conjugate
    gradients is the last one.

    metrics: name -> (steps,), as ``report.course`` reads them. events: lines of events.jsonl.
    """
    implicit, direct = _implicit(metrics), _solved_directly(metrics)
    rows = (2 if implicit else 4) + (not direct)
    figure = Figure(figsize=(11, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True)
    if implicit:
        _step_panels(axes.flat[[0, 2, 3]], metrics)
        t, order = _series(metrics, "t", "order")
        _panel(axes[0, 1], t, [(order, "")], "order of the method", "order")
    else:
        _step_panels(axes[:3, 0], metrics)
        _bounds_panel(axes[3, 0], metrics)
        _spectrum_panels(axes[-4:-1, 1], metrics)
        _layers_panel(axes[-1, 1], metrics)
    if not direct:
        shown, empty, of = ((-1, 0), (-1, 1), "correction") if implicit else ((0, 1), (-1, 0), "velocity")
        axes[empty].set_visible(False)
        _iterations_panel(axes[shown], metrics, of)
    # A refit writes two events, its reason and its outcome.
    refits = sorted({event["t"] for event in events if event.get("kind") == "refit" and event.get("t") is not None})
    for axis in axes.flat:
        for number, time in enumerate(refits):
            label = "refit" if axis is axes[0, 0] and number == 0 else None
            axis.axvline(time, color=GREY, linestyle="--", linewidth=1, label=label)
        if axis.get_legend_handles_labels()[0]:  # beside the title, because inside it would cover the curves
            style = {"fontsize": 9, "frameon": False, "borderaxespad": 0.1, "columnspacing": 1.0, "handlelength": 1.2}
            axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=SHOWN_LAYERS + 1, **style)
    for column in axes.T:
        axis = [axis for axis in column if axis.get_visible()][-1]
        axis.set_xlabel("time t")
        axis.tick_params(labelbottom=True)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
    return figure


def error_figure(errors: Metrics, metrics: Metrics | None = None) -> Figure | None:
    """Relative L2 error against t, and the run's own estimate and bound with its parts; None where neither is known.

    errors: as ``Run.errors`` returns them. metrics: as ``report.course`` reads them, for the estimate.
    """
    dots = {"color": FIRST, "marker": "o", "markersize": 5}
    series = [("against the reference", errors["t"], errors["relative_l2"], dots)]
    for name, (label, style) in ESTIMATES.items():
        if metrics and name in metrics:
            series.append((label, *_from_the_start(errors, metrics, name), style))
    visible = [np.isfinite(values) & (values > 0) for _, _, values, _ in series]
    series = [(label, t[seen], values[seen], style) for (label, t, values, style), seen in zip(series, visible)]
    series = [entry for entry in series if len(entry[1])]
    if not series:
        return None
    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for label, t, values, style in series:
        axis.plot(t, values, label=label, **style)
    _log_scale(axis, _relevant(series))
    axis.set(title="relative L2 error, and its estimate by the run", xlabel="time t", ylabel="relative L2 error")
    figure.legend(loc="outside right upper", fontsize=9)  # outside, because inside it would cover the curves
    return figure


def recorded_figure(metrics: Metrics) -> Figure | None:
    """The numbers that callbacks have recorded against t, a panel for each of the first MOST_RECORDED; None if none."""
    recorded = {name.removeprefix(RECORDED): metrics[name] for name in sorted(metrics) if name.startswith(RECORDED)}
    if not recorded:
        return None
    rows = min(len(recorded), MOST_RECORDED)
    figure = Figure(figsize=(8.5, 1 + 1.8 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, values) in zip(axes, recorded.items()):
        seen = np.isfinite(values)
        axis.plot(metrics["t"][seen], values[seen], color=FIRST, linewidth=1.3, marker="." if seen.sum() < 50 else "")
        axis.set_title(name, loc="left", fontsize=11)
        axis.grid(True, alpha=0.25)
    axes[-1].set_xlabel("time t")
    return figure


def _from_the_start(errors: Metrics, metrics: Metrics, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of an estimate: those of the steps and, before them, that of the initial fit."""
    t, values = metrics["t"], metrics[name]
    start = errors["t"] < np.min(t, initial=np.inf)  # the first step ends at the next output at the latest
    if name in ("estimate", "estimate_bound", "estimate_initial") and "estimate" in errors and start.any():
        t, values = np.append(errors["t"][start][0], t), np.append(errors["estimate"][start][0], values)
    return t, values


def _relevant(series: list) -> np.ndarray:
    """The values that the axis shows: the error, the estimate, and of the parts those above a tenth of the least of
    these. The first steps' share is many decades smaller, and would squeeze the other curves."""
    main = [values for label, _, values, _ in series if not label.startswith("of which")]
    every = np.concatenate([values for _, _, values, _ in series])
    return every if not main else every[every >= 0.1 * np.concatenate(main).min()]


def _series(metrics: Metrics, *names: str) -> list[np.ndarray]:
    """The metrics of these names, each (steps,); NaN where one was not logged."""
    missing = np.full(len(metrics.get("t", ())), np.nan)
    return [metrics.get(name, missing) for name in names]


def _step_panels(axes: np.ndarray, metrics: Metrics) -> None:
    """Step size, relative residual and rejected steps, in three axes (3,)."""
    t = metrics.get("t", np.zeros(0))
    h, residual, fresh, rejected = _series(metrics, "h", "residual", "residual_fresh", "rejected_so_far")
    _panel(axes[0], t, [(h, "")], "step size", "h", log=True)
    both = [(fresh, "fresh points"), (residual, "points of the step")]
    _panel(axes[1], t, both, "relative residual", "|J v - f| / |f|", log=True)
    _panel(axes[2], t, [(rejected, "")], "rejected steps, cumulative", "count")


def _implicit(metrics: Metrics) -> bool:
    """Whether it is known that all steps were implicit ones, in which no J changes between stages."""
    order, share = _series(metrics, "order", "jacobian_share")
    return bool(np.isfinite(order).any() and not np.isfinite(share).any())


def _solved_directly(metrics: Metrics) -> bool:
    """Whether it is known that no system was solved by conjugate gradients."""
    (iterations,) = _series(metrics, "cg_iterations")
    return bool(np.isfinite(iterations).any() and np.nansum(iterations) == 0)


def _iterations_panel(axis: Axes, metrics: Metrics, of: str) -> None:
    """Iterations of a velocity or a correction, and for the first velocity of a step the most that its condition number
    allows. of: which of the two."""
    names = ("t", "cg_iterations", "cg_wasted", "evaluations", "cg_iterations_bound", "cg_iterations_first")
    t, iterations, wasted, evaluations, bound, first = _series(metrics, *names)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = (iterations - np.nan_to_num(wasted)) / evaluations
    lines = [(each, "mean"), (bound, "bound of first"), (first, "first")]
    _panel(axis, t, lines, "conjugate gradients", f"iterations of a {of}")


def _spectrum_panels(axes: np.ndarray, metrics: Metrics) -> None:
    """Condition numbers, effective dimension with numerical rank, and the share of F below mu, in three axes (3,)."""
    t, system, preconditioned = _series(metrics, "t", "condition", "condition_preconditioned")
    both = [(system, r"$M + \mu$"), (preconditioned, "preconditioned")]
    errors = _series(metrics, "condition_error", "condition_preconditioned_error")
    _panel(axes[0], t, both, "condition number", "largest / least", log=True, errors=errors)
    dimension, rank, share = _series(metrics, "effective_dimension", "numerical_rank", "rhs_below_mu")
    both = [(dimension, "effective"), (rank, r"eigenvalues above $\mu$")]
    errors = _series(metrics, "effective_dimension_error")
    _panel(axes[1], t, both, "dimension of M", r"tr $M (M + \mu)^{-1}$", errors=errors)
    errors = _series(metrics, "rhs_below_mu_error")
    title = rf"share of F below $\mu${_cost(metrics)}"
    _panel(axes[2], t, [(share, "")], title, r"share of $|F|^2$", log=True, errors=errors)


def _layers_panel(axis: Axes, metrics: Metrics) -> None:
    """The layers' shares in the eigenvectors below mu."""
    shares = {name.removeprefix(SMALL_SHARE): values for name, values in metrics.items() if _is_share(name)}
    order = sorted(shares, key=lambda name: -np.nansum(shares[name]))
    lines = [(shares[name], name.removeprefix("trunk_").replace("_", " ")) for name in order[:SHOWN_LAYERS]]
    if others := order[SHOWN_LAYERS:]:
        lines.append((np.sum([shares[name] for name in others], axis=0), "others"))
    t = metrics.get("t", np.zeros(0))
    _panel(axis, t, lines, "layers", r"share of those below $\mu$", integer=False)


def _is_share(name: str) -> bool:
    return name.startswith(SMALL_SHARE) and name != f"{SMALL_SHARE}error"


def _cost(metrics: Metrics) -> str:
    """The time of all measurements of the spectrum, and that of the run, in words; '' if they are not known."""
    seconds, wall = _series(metrics, "spectrum_seconds_so_far", "wall_seconds")
    if not (len(seconds) and seconds[-1] > 0 and wall[-1] > 0):
        return ""
    return f"; spectra took {duration(seconds[-1])} of {duration(wall[-1])}"


def _bounds_panel(axis: Axes, metrics: Metrics) -> None:
    """What bounds the step size: stability, where the first curve is near one, or the change of J."""
    t, h_rho, limit, share = _series(metrics, "t", "h_rho", "h_rho_limit", "jacobian_share")
    both = [(h_rho / limit, r"$h \rho$ / stable"), (share, "change of J / error")]
    _panel(axis, t, both, "what bounds steps", "ratio", integer=False)


def _panel(
    axis: Axes,
    t,
    lines: list[tuple[np.ndarray, str]],
    title: str,
    label: str,
    log: bool = False,
    integer: bool = True,
    errors: Sequence[np.ndarray] = (),
) -> None:
    """Curves [(values (steps,), name)] against t, or a message where there is nothing to draw; the axis is logarithmic,
    or begins at zero and is marked at whole numbers or not. errors: of the first curves, (steps,) each."""
    drawn = []
    for number, ((values, name), colour) in enumerate(zip(lines, COLOURS)):
        seen = np.isfinite(values) & (values > 0 if log else True)
        if seen.any():
            marker = "." if seen.sum() <= MARKED_STEPS else ""
            axis.plot(t[seen], values[seen], color=colour, linewidth=1.3, marker=marker, label=name or None)
            drawn.append(values[seen])
            if number < len(errors):
                width = errors[number][seen]
                axis.fill_between(t[seen], values[seen] - width, values[seen] + width, color=colour, alpha=0.2, lw=0)
    if not drawn:
        return _message(axis, title, "no steps yet" if not len(t) else "not measured in this run")
    if log:
        _log_scale(axis, np.concatenate(drawn))
    else:
        axis.set_ylim(bottom=0, top=max(1, 1.08 * max(values.max() for values in drawn)))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=integer))
        axis.grid(True, alpha=0.25)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_ylabel(label)


def _log_scale(axis: Axes, values: np.ndarray) -> None:
    """A logarithmic axis over at least a decade: a nearly constant series would fill it with meaningless ticks."""
    low, high = values.min(), values.max()
    stretch = max((high / low) ** 0.08, np.sqrt(10 / (high / low)))
    axis.set_yscale("log")
    axis.set_ylim(low / stretch, high * stretch)
    axis.grid(True, which="both", alpha=0.25)


def _message(axis: Axes, title: str, text: str) -> None:
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_yticks([])
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY, fontsize=11)
