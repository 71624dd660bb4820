"""The progress of a run on the screen or in the log file of a batch job. Nothing here influences the run."""

import atexit
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nivp_dist.formatting import count, describe_error, duration, number, scientific
from nivp_dist.report import tables
from nivp_dist.report.rate import RemainingTime
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.run.state import FINISHED, PHASE_NAMES
from nivp_dist.storage.metrics import METRICS, iterate
from nivp_dist.storage.run_directory import resume_command

# The files and folders of a run directory that the end of a run lists, where they exist.
CONTENTS = {
    "config.toml": "the complete configuration, with versions",
    "summary.json": "the result in numbers",
    "metrics.jsonl": "a line for every accepted step",
    "events.jsonl": "fits, refits, outputs, warnings",
    "snapshots": "the network at the output times",
    "checkpoints": "the states from which a run can be resumed",
    "logs": "warnings and failures of each process",
    "pictures": "PNG files: the solution, its error, the course of the run",
}


class Reporter(SilentReporter):
    """Shows the progress of a run: a line that is redrawn on a terminal, plain lines anywhere else.

    Plain output contains no escape codes and no carriage returns. It has at most one line of progress every ``every``
    seconds, and a line for every phase, note, warning and output. If the stream breaks (a closed pipe, a terminal that
    was closed) the reporter writes nothing more; the run goes on, and its directory holds the same information.
    A reporter is a context manager; leaving it removes the redrawn line and shows the cursor again.

    Args:
        stream: where to write; standard output by default.
        clock: a monotonic clock in seconds.
        every: seconds between two plain lines of progress.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, every: float = 10.0):
        self._stream = sys.stdout if stream is None else stream
        self._clock, self._every = clock, every
        self._started, self._progress_at = clock(), -math.inf
        self._phase, self._detail = "start", ""
        self._compiled: set[str] = set()  # the phases whose programs this process has compiled
        self._fit_left, self._steps_left = RemainingTime(), RemainingTime()
        terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._console = Console(file=self._stream, force_terminal=True, highlight=False) if terminal else None
        self._live: Live | None = None
        self._broken = False

    def phase(self, name: str) -> None:
        """A new phase begins, such as "initial fit" or "evolve"."""
        if name == self._phase:
            return
        # The first part of a phase compiles its programs, which takes up to a minute without a line of progress.
        self._phase, self._detail = name, "" if name in self._compiled | {PHASE_NAMES[FINISHED]} else "compiling"
        self._compiled.add(name)
        self._fit_left = RemainingTime()  # every fit counts its iterations from 1
        if self._console:
            self._refresh()
        else:
            self._write(self._line())

    def fit(self, iteration: int, error: float, target: float, iterations: int, stop_at: float = 0.0) -> None:
        """Iteration number `iteration` of at most `iterations` of a fit, and its relative L2 error.

        target: the largest error with which the run goes on. stop_at: the error below which the fit stops early.
        """
        left = self._fit_left.update(self._clock(), iteration, iterations)
        parts = [f"iteration {iteration} of {iterations}", f"error {scientific(error)}"]
        parts += [f"target {scientific(target)}"] + ([f"stops below {scientific(stop_at)}"] if stop_at else [])
        self._progress(parts + ([f"left at most {_clock_time(left)}"] if left is not None else []))

    def step(self, metrics: dict, t_end: float) -> None:
        """An accepted step, given as its line of metrics.jsonl.

        The residual shown is that on fresh points, or that on the step's own points where it was not measured.
        """
        t = metrics["t"]
        left = self._steps_left.update(self._clock(), t, t_end)
        residual = metrics.get("residual_fresh")
        residual = metrics.get("residual") if residual is None else residual
        parts = [f"t {number(t)} of {number(t_end)}", f"h {scientific(metrics.get('h'))}"]
        parts += [f"residual {scientific(residual)}", f"CG {number(metrics.get('cg_iterations'))}"]
        self._progress(parts + ([f"left {_clock_time(left)}"] if left is not None else []))

    def note(self, message: str) -> None:
        """A message that gets a line of its own."""
        self._write(f"{self._elapsed()} {message}")

    def warn(self, message: str) -> None:
        """A message about which the user may have to do something."""
        self._write(f"{self._elapsed()} warning: {message}", style="yellow")

    def output(self, t: float, relative_l2: float | None, estimate: float | None = None) -> None:
        """A snapshot was written: its relative L2 error (None or NaN without a reference), and the run's estimate."""
        self._write(f"{self._elapsed()} output at t = {number(t)}: {describe_error(relative_l2, estimate)}")

    def finish(self, summary: dict, directory: str | Path) -> None:
        """The end of a run: the table of errors, the files written, and the commands for what may follow."""
        self.close()
        directory = Path(directory)
        self._write("")
        self._write(_headline(summary))
        self._write("")
        self._write_errors(summary, iterate(directory / METRICS))
        self._write("")
        self._write(f"written to {directory}")
        for name, meaning in CONTENTS.items():
            if (directory / name).exists():
                self._write(f"  {name:<14} {meaning}")
        self._write("")
        if (session_class := summary.get("session_class")) is None:
            self._write(f"pictures: nivp plot {shlex.quote(str(directory))}")
        command = resume_command(directory, session_class)
        further = " --integrator.t_end T" if summary.get("status") == "finished" and session_class is None else ""
        self._write(f"go on:    {command}{further}")

    def close(self) -> None:
        """Remove the redrawn line and show the cursor again. Further progress starts a new line."""
        live, self._live = self._live, None
        if live:
            atexit.unregister(self.close)
            self._guard(live.stop)

    # ----------------------------------------------------------------------------------------------

    def _write_errors(self, summary: dict, metrics: Iterable[dict]) -> None:
        console = self._console
        if console is None:
            for line in tables.error_lines(summary, metrics):
                self._write(line)
            return
        title, columns, rows = tables.error_rows(summary, metrics)
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row)
        self._guard(lambda: console.print(table))

    def _progress(self, parts: list[str]) -> None:
        self._detail = "  ".join(parts)
        if self._console:
            self._refresh()
        elif self._clock() - self._progress_at >= self._every:
            self._progress_at = self._clock()
            self._write(self._line())

    def _line(self) -> str:
        return f"{self._elapsed()} {self._phase}  {self._detail}".rstrip()

    def _elapsed(self) -> str:
        return _clock_time(self._clock() - self._started)

    def _refresh(self) -> None:
        def render():
            return Text(self._line(), style="cyan", no_wrap=True, overflow="ellipsis")

        def show():
            if self._live is None:
                # A thread refreshes the line, so that the elapsed time advances during a long step or a compilation.
                live = Live(console=self._console, get_renderable=render, refresh_per_second=2, transient=True)
                live.start()
                self._live = live
                atexit.register(self.close)  # shows the cursor again if an error ends the program
            else:
                self._live.refresh()

        self._guard(show)

    def _write(self, line: str, style: str = "") -> None:
        line = " ".join(line.splitlines())

        def show():
            if self._console:
                self._console.print(Text(line, style=style), soft_wrap=True)
            else:
                self._stream.write(f"{line}\n")  # one call, so that no text of standard error can cut the line
                self._stream.flush()

        self._guard(show)

    def _guard(self, action: Callable[[], None]) -> None:
        """Run an action that writes. If the stream is broken, write nothing from now on, and let the run continue."""
        if self._broken:
            return
        try:
            action()
        except (OSError, ValueError):  # a closed stream raises ValueError
            self._broken = True


def _clock_time(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def _headline(summary: dict) -> str:
    message = f" ({summary['message']})" if summary.get("message") else ""
    status = {"event": "stopped by a callback"}.get(summary.get("status", ""), summary.get("status", "ended"))
    parts = [f"{summary.get('problem', 'run')} {status}{message}"]
    parts += [f"t = {number(summary.get('t'))} of {number(summary.get('t_end'))}"]
    for key, noun in (("steps", "step"), ("rejected", "rejected step"), ("refits", "refit")):
        if summary.get(key) is not None:
            parts.append(count(summary[key], noun))
    if summary.get("wall_seconds") is not None:
        compiled = summary.get("compile_seconds")
        share = "" if compiled is None else f" ({duration(compiled)} of them compiling)"
        parts.append(duration(summary["wall_seconds"]) + share)
    return ", ".join(parts)
