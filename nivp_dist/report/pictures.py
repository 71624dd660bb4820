"""The pictures of a run, drawn from its directory: health.png, error.png, callbacks.png, solution.png,
marginals.png."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem
from nivp_dist.report.course import read_course
from nivp_dist.report.health import error_figure, health_figure, recorded_figure
from nivp_dist.report.solution import marginals_figure, solution_figure
from nivp_dist.report.style import style as style_of
from nivp_dist.run.stored import Run, open_run
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import EVENTS, iterate

FOLDER = "pictures"
DOTS_PER_INCH = 130


def draw(
    directory: str | Path,
    problem: Problem | None = None,
    output: str | Path | None = None,
    style: str | None = None,
) -> list[Path]:
    """Draw the pictures of a run as far as it has come, and return their paths.

    health.png is always drawn; error.png if an error or an estimate is known; callbacks.png if callbacks have recorded
    numbers; solution.png and marginals.png, if there are snapshots, by the views of the problem
    (``problems.views.views_of``). A picture is replaced as a whole, never left half-written.

    problem: the instance, if the run was started from Python with one. output: the folder for the pictures; default:
    ``pictures`` in the run directory. style: the name of a style of matplotlib; default: ours.

    Raises InputError if the directory holds no run, if the style is not known, if the folder cannot be written, or if
    the problem cannot be loaded (after the pictures that do not need the problem).
    """
    run = open_run(directory, problem)
    folder = run.directory / FOLDER if output is None else Path(output)
    try:
        with style_of(style):
            return _draw_into(folder, run)
    except OSError as error:
        place = error.filename or folder
        raise InputError(f"{place}: cannot be written: {error.strerror}; draw elsewhere with --output") from None


def _draw_into(folder: Path, run: Run) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with damage_is_named():
        metrics, errors = read_course(run.directory), run.errors()
        refits = [event for event in iterate(run.directory / EVENTS) if event.get("kind") == "refit"]
    stored = len(run.times) > 0
    figures = {
        "health": lambda: health_figure(metrics, refits),
        "error": lambda: error_figure(errors, metrics),
        "callbacks": lambda: recorded_figure(metrics),
        "solution": lambda: solution_figure(run) if stored else None,
        "marginals": lambda: marginals_figure(run) if stored else None,
    }
    paths = []
    for name, make in figures.items():
        if (figure := make()) is not None:
            paths.append(_save(figure, folder / f"{name}.png"))
    return paths


@contextlib.contextmanager
def damage_is_named() -> Iterator[None]:
    """What cannot be read of a run directory raises InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{error}: it is damaged; move it away, and draw what is left") from None


def _save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    write_whole(path, buffer.getvalue())
    return path
