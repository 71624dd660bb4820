"""Figures of the solution beside its reference, by the views of its problem: curves, images, lines and marginals."""

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from nivp_dist.problems.base import Problem
from nivp_dist.problems.views import View, views_of
from nivp_dist.report import panels
from nivp_dist.report.sections import Moment, Section
from nivp_dist.run.stored import Run
from nivp_dist.run.window import chosen_times

SHORT = 8  # characters of a name that is followed by the time on the same line


def solution_figure(run: Run) -> Figure | None:
    """The views that show values, of a run with at least one snapshot; None if its problem has no such view."""
    return _figure(run, [view for view in views_of(run.problem) if not view.marginal])


def marginals_figure(run: Run) -> Figure | None:
    """The views that show marginals, likewise."""
    return _figure(run, [view for view in views_of(run.problem) if view.marginal])


def _figure(run: Run, views: list[View]) -> Figure | None:
    """Curves of a problem in several dimensions stand beside each other, a row for each time; everything else has a
    column for each time."""
    if not views:
        return None
    moments = [Moment(run, t) for t in chosen_times(run.times)]
    rows = [[moment.section(view) for moment in moments] for view in views]
    if run.problem.domain.dimension > 1 and all(len(view.axes) == 1 for view in views):
        figure = _curves_figure(run.problem, list(zip(*rows)))
    else:
        figure = _rows_figure(run.problem, rows)
    title = subtitle(run.problem, views)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def subtitle(problem: Problem, views: list[View]) -> str:
    """What is to be said of the coordinates that views do not show."""
    if all(view.marginal for view in views):
        return "marginals: integrals over all other coordinates, by importance sampling"
    free = any(len(view.axes) + len(view.at) < problem.domain.dimension for view in views if not view.marginal)
    return "other coordinates: those of the mean of the density of points" if free else ""


def _curves_figure(problem: Problem, rows: list[tuple[Section, ...]]) -> Figure:
    """A row for each time, a column for each view."""
    views = [section.view for section in rows[0]]
    outputs = {(view.output, view.marginal) for view in views}
    layout = ConstrainedLayoutEngine(wspace=0.05)  # keeps the tick labels of neighbouring panels apart
    figure = Figure(figsize=(3.3 * len(views) + 0.8, 2.5 * len(rows) + 0.9), layout=layout)
    axes = figure.subplots(len(rows), len(views), squeeze=False, sharey="row" if len(outputs) == 1 else False)
    names = [panels.view_name(problem, view) for view in views]
    for row, sections in zip(axes, rows):
        for axis, section in zip(row, sections):
            panels.curves(axis, section)
        time = f"t = {sections[0].t:.4g}"
        between = "\n" if len(names[0]) > SHORT else " "
        row[0].set_ylabel(time if len(set(names)) > 1 else f"{names[0]}{between}at {time}")
    for axis, view in zip(axes[-1], views):
        axis.set_xlabel(panels.coordinate(problem, view.axes[0]))
    if len(set(names)) > 1:
        for axis, name in zip(axes[0], names):
            axis.set_title(name, fontsize=10)
    figure.align_ylabels(axes[:, 0])
    axes[0, 0].legend(fontsize=9)
    return figure


def _rows_figure(problem: Problem, rows: list[list[Section]]) -> Figure:
    """A column for each time; a row for each view of one axis, and for each image of a view of two."""
    kinds = [(sections, kind, kind == kinds_of(sections)[-1]) for sections in rows for kind in kinds_of(sections)]
    columns = len(rows[0])
    layout = ConstrainedLayoutEngine(wspace=0.08)  # keeps the labels of a colour bar off the panel to its right
    figure = Figure(figsize=(3.9 * columns + 0.6, 3.0 * len(kinds) + 0.4), layout=layout)
    axes = figure.subplots(len(kinds), columns, squeeze=False)
    for row, (sections, kind, last) in zip(axes, kinds):
        view = sections[0].view
        across = [panels.coordinate(problem, number) for number in view.axes]
        signed = panels.signed_at_some_time(sections, kind) if kind else False
        for axis, section in zip(row, sections):
            if kind:
                panels.image(axis, section, kind, panels.colours_of([section], kind, signed))
            else:
                panels.curves(axis, section)
        label = panels.view_name(problem, view)
        row[0].set_ylabel(f"{kind}, {label}\n{across[1]}" if kind else label)
        for axis in row if last else ():
            axis.set_xlabel(across[0])
    for axis, section in zip(axes[0], rows[0]):
        axis.set_title(f"t = {section.t:.4g}")
    curves = [row[0] for row, (_, kind, _) in zip(axes, kinds) if not kind]
    for axis in curves[:1]:
        axis.legend(fontsize=9)
    return figure


def kinds_of(sections: list[Section]) -> tuple[str, ...]:
    """The rows of a view: one of curves, ("",), or its images, of which one alone needs no reference."""
    if len(sections[0].view.axes) == 1:
        return ("",)
    return panels.KINDS if any(section.reference is not None for section in sections) else panels.KINDS[:1]
