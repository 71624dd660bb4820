"""The movie of a run: the views of its problem at all stored times, with one range of axes and colours throughout."""

import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem
from nivp_dist.problems.views import views_of
from nivp_dist.report import panels
from nivp_dist.report.pictures import FOLDER, damage_is_named
from nivp_dist.report.sections import Bounds, Moment, Section
from nivp_dist.report.solution import kinds_of, subtitle
from nivp_dist.report.style import style as style_of
from nivp_dist.run.stored import Run, open_run
from nivp_dist.run.window import chosen_times
from nivp_dist.storage.files import write_whole

WRITERS = {".gif": PillowWriter, ".mp4": FFMpegWriter}
MOST_FRAMES = 300  # of more stored times so many are shown, evenly spread
SECONDS, SLOWEST, FASTEST = 10.0, 2.0, 20.0  # how long a movie is, within these numbers of frames per second
DOTS_PER_INCH = 100
IMAGE_POINTS = 101  # along each axis of an image
COLUMNS = 4  # the largest number of curves beside each other

Shown = tuple[Artist, list[Section], str]  # what is drawn, and the sections and the kind of values that it shows


def draw_movie(
    directory: str | Path,
    problem: Problem | None = None,
    output: str | Path | None = None,
    style: str | None = None,
) -> Path:
    """Draw the movie of a run as far as it has come into a file, .gif or .mp4, and return its path.

    output: the file; default: pictures/solution.gif in the run directory. problem, style: as for ``pictures.draw``.

    Raises InputError for another ending, without ffmpeg for .mp4, where no output is stored or one is damaged, for an
    unknown style, and if the file cannot be written.
    """
    run = open_run(directory, problem)
    path = run.directory / FOLDER / "solution.gif" if output is None else Path(output)
    writer = WRITERS.get(path.suffix)
    if writer is None:
        raise InputError(f"{path}: a movie is a .gif or a .mp4: name it so with --output")
    if not writer.isAvailable():
        raise InputError(f"{path}: needs the program ffmpeg, which is not found: install it, or name the movie .gif")
    with damage_is_named():
        times = chosen_times(run.times, MOST_FRAMES)
    if not len(times):
        raise InputError(f"{run.directory}: no output is stored yet, of which a movie could be made")
    with style_of(style), tempfile.TemporaryDirectory() as folder:
        figure, shown = _figure(run.problem, _sections(run, times))
        title = figure.suptitle("t = 0")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # so that nothing moves but the solution

        def show(number: int) -> list[Artist]:
            title.set_text(f"t = {times[number]:.4g}")
            for artist, sections, kind in shown:
                panels.show(artist, sections[number].kind(kind))
            return []

        whole = Path(folder) / f"movie{path.suffix}"
        speed = float(np.clip(len(times) / SECONDS, SLOWEST, FASTEST))
        FuncAnimation(figure, show, frames=len(times)).save(whole, writer(fps=speed), dpi=DOTS_PER_INCH)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, whole.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}; draw elsewhere with --output") from None
    return path


def _sections(run: Run, times: np.ndarray) -> list[list[Section]]:
    """For every view what it shows at each of these times, in one part of the domain."""
    views, frames, every = views_of(run.problem), [], []
    with damage_is_named():
        for t in times:
            moment = Moment(run, t)
            every.append([moment.bounds(view) for view in views])
    bounds = [_union(of_view) for of_view in zip(*every)]
    points = [None if len(view.axes) == 1 else IMAGE_POINTS for view in views]
    for t in times:
        moment = Moment(run, t)
        frames.append([moment.section(*arguments) for arguments in zip(views, bounds, points)])
    return [list(sections) for sections in zip(*frames)]


def _union(parts: Sequence[Bounds]) -> Bounds:
    """The bounds that hold all of these parts."""
    lower, upper = zip(*parts)
    return np.min(lower, axis=0), np.max(upper, axis=0)


def _figure(problem: Problem, views: list[list[Section]]) -> tuple[Figure, list[Shown]]:
    """The first frame. Curves of one kind share a row; every view of two axes has a row of its images."""
    rows = []
    for _, group in groupby(views, key=lambda sections: (len(sections[0].view.axes), sections[0].view.marginal)):
        every = [(sections, kind) for sections in group for kind in kinds_of(sections)]
        size = COLUMNS if every[0][1] == "" else len(kinds_of(every[0][0]))
        rows += [every[i : i + size] for i in range(0, len(every), size)]
    figure = Figure(figsize=(3.9 * max(map(len, rows)) + 0.4, 3.3 * len(rows) + 0.6), layout="constrained")
    shown = []
    for part, row in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows):
        for axis, (sections, kind) in zip(part.subplots(1, len(row), squeeze=False)[0], row):
            shown += _panel(problem, axis, sections, kind)
    curves = [axis for axis in figure.axes if axis.get_legend_handles_labels()[0]]
    for axis in curves[:1]:
        axis.legend(fontsize=9)
    figure.supxlabel(subtitle(problem, [sections[0].view for sections in views]), fontsize=9)
    return figure, shown


def _panel(problem: Problem, axis, sections: list[Section], kind: str) -> list[Shown]:
    """Draw the first of the sections, over the range of all."""
    view, name = sections[0].view, panels.view_name(problem, sections[0].view)
    axis.set_xlabel(panels.coordinate(problem, view.axes[0]))
    if kind:
        axis.set_ylabel(panels.coordinate(problem, view.axes[1]))
        axis.set_title(f"{kind}, {name}", fontsize=10)
        drawn = panels.image(axis, sections[0], kind, panels.colours_of(sections, kind))
        return [] if drawn is None else [(drawn, sections, kind)]
    axis.set_ylabel(name)
    artists = panels.curves(axis, sections[0])
    axis.set_ylim(*panels.range_of(sections))
    return [(artist, sections, name) for name, artist in artists.items()]
