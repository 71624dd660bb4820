"""`nivp watch`: status, solution and course of a run in the terminal. It reads files only, and starts jax on a CPU."""

import time
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.text import Text

from nivp_dist.errors import InputError
from nivp_dist.formatting import number, scientific
from nivp_dist.problems.views import View, views_of
from nivp_dist.report import panels, sketch
from nivp_dist.report.follow import Facts, Screen, Sleep, follow, room
from nivp_dist.report.sections import Moment, Section
from nivp_dist.run.stored import Run, open_run
from nivp_dist.storage import snapshots
from nivp_dist.storage.metrics import METRICS, read_tail

PANEL_WIDTH = 38  # columns that a panel has at least
PANEL_HEIGHTS = 6, 14  # lines that a panel has at least and at most
OTHER_LINES = 18  # of a screen, for the course of the run and the first lines of its status
LOG_WIDTH = 80  # columns of what is written into a log
NAME_WIDTH, COURSE_WIDTH = 16, 30
# metric -> its name
COURSES = {
    "h": "step size h",
    "residual_fresh": "residual, fresh",
    "residual": "residual",
    "estimate": "estimated error",
    "cg_iterations": "CG iterations",
}
LINEAR = "cg_iterations"  # of which the numbers are shown, not their logarithms


def watch(directory: str | Path, stream: TextIO, every: float = 2.0, sleep: Sleep = time.sleep) -> None:
    """Show status, solution and course of a run every `every` seconds until the run ends, as ``follow``."""
    follow(directory, stream, every, sleep=sleep, screen=Watched(Path(directory)))


class Watched(Screen):
    """The solution at the last stored time, by the views of the problem as far as there is room, and the course of the
    numbers that tell of a run's health, beside its status."""

    def __init__(self, directory: Path):
        super().__init__()
        self._directory, self._run = directory, None
        self._drawn: tuple[tuple, list[Text]] = (), []  # which file was drawn last, and how large; the lines
        self._told: tuple | None = None  # which was written last into a log

    def parts(self, facts: Facts, width: int, height: int) -> list[Text]:
        lines = self._solution(room(width), int(np.clip(height - OTHER_LINES, *PANEL_HEIGHTS)), coloured=True)
        return [Text("\n").join([*lines, *self._courses(facts), Text()]), *super().parts(facts, width, height)]

    def news(self, facts: Facts) -> list[str]:
        rows, lines = super().news(facts), self._solution(LOG_WIDTH, PANEL_HEIGHTS[1], coloured=False)
        if self._told != self._drawn[0]:
            self._told = self._drawn[0]
            rows.append("\n".join(line.plain.rstrip() for line in [*lines, *self._courses(facts)]))
        return rows

    def _solution(self, width: int, height: int, coloured: bool) -> list[Text]:
        """Panels beside each other, or a line that says why there are none; drawn anew when there is a new output."""
        try:
            newest = snapshots.newest(self._directory)
            if newest is None:
                self._drawn = (), [Text("solution: no output is stored yet")]
            elif self._drawn[0] != (key := (newest, newest.path.stat().st_mtime_ns, width, height)):
                self._drawn = key, self._panels(newest.t, width, height, coloured)
        except (InputError, OSError, ValueError) as error:
            self._drawn = (str(error),), [Text(f"solution: cannot be shown: {error}")]
        return self._drawn[1]

    def _panels(self, t: float, width: int, height: int, coloured: bool) -> list[Text]:
        run = self._run = self._run or _opened(self._directory)
        moment, views = Moment(run, t, compared=False), views_of(run.problem)
        number = max(1, min(len(views), width // (PANEL_WIDTH + 2)))
        size = min(width // number - 2, 2 * PANEL_WIDTH)
        sections = [moment.section(view, points=2 * size) for view in views[:number]]
        each = [_panel(run, section, size, height, coloured) for section in sections]
        return [Text(f"solution at t = {t:.6g}"), *(Text("  ").join(row) for row in zip(*each))]

    def _courses(self, facts: Facts) -> list[Text]:
        """A sparkline for each number, with its last value and its range."""
        steps = read_tail(self._directory / METRICS)
        series = {name: (key, [step.get(key) for step in steps]) for key, name in COURSES.items()}
        errors = [entry.get("relative_l2") for entry in facts["summary"].get("errors") or []]
        lines = [_course(name, values, key != LINEAR) for name, (key, values) in series.items()]
        lines.append(_course("error at outputs", errors, log=True))
        title = f"steps {steps[0].get('step')} to {steps[-1].get('step')}" if steps else "no step yet"
        return [Text(title), *(line for line in lines if line is not None)]


def _opened(directory: Path) -> Run:
    """The run, with jax on a CPU: the GPUs of this host may be those of the run."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    return open_run(directory)


def _panel(run: Run, section: Section, width: int, height: int, coloured: bool) -> list[Text]:
    """A view as lines of equal width: its name and range, the curve or image, and the parts of its axes."""
    view, values = section.view, section.network
    if len(view.axes) == 1:
        drawn = sketch.curve(values, width, height)
    else:
        scale = panels.colours_of([section], "network") if coloured else {}
        drawn = sketch.image(values, width, height, **scale)
    name = _plain(panels.view_name(run.problem, view))
    head = f"{name}: {scientific(float(values.min()))} to {scientific(float(values.max()))}"
    lines = [Text(head), *drawn, Text(_axes(run, view, section.sides))]
    for line in lines:
        line.truncate(width, overflow="ellipsis", pad=True)
    return lines


def _axes(run: Run, view: View, sides: tuple[np.ndarray, ...]) -> str:
    """The parts of the axes that are shown."""
    names = [_plain(panels.coordinate(run.problem, axis)) for axis in view.axes]
    return ", ".join(f"{name} {side[0]:.3g} to {side[-1]:.3g}" for name, side in zip(names, sides))


def _plain(label: str) -> str:
    """A label of a picture without the marks of mathematics."""
    return label.translate(str.maketrans("", "", "${}"))


def _course(name: str, values: list, log: bool) -> Text | None:
    """A number's sparkline, last value and range; None where it was not measured, or is a count of nothing."""
    known = np.array([value for value in values if value is not None], np.float64)
    known = known[np.isfinite(known)]
    if not known.size or not (log or known.any()):
        return None
    line = sketch.sparkline(known, COURSE_WIDTH, log).ljust(COURSE_WIDTH)
    last, least, most = map(scientific if log else number, (float(known[-1]), float(known.min()), float(known.max())))
    return Text(f"{name.ljust(NAME_WIDTH)} {line} {last} ({least} to {most})")
