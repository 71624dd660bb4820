"""Progress of a run on the screen, or in the log file of a batch job. Decides nothing."""

import atexit
import math
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Callable, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nivp_dist.formatting import count, describe_error, duration, number, scientific
from nivp_dist.report import tables
from nivp_dist.report.rate import Rate
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.storage.metrics import METRICS, read_lines

CONTENTS = {
    "config.toml": "the configuration, resolved, with versions",
    "summary.json": "the result in numbers",
    "metrics.jsonl": "a line for every accepted step",
    "events.jsonl": "fits, refits, outputs, warnings",
    "snapshots": "the network at the output times",
    "checkpoints": "what a resume starts from",
    "logs": "warnings and failures of each process",
    "pictures": "pictures",
}


class Reporter(SilentReporter):
    """Says what a run does: a live line on a terminal, plain lines anywhere else.

    Plain output holds no escape codes and no carriage returns: at most one line of progress every ``every``
    seconds, and one for every phase, note, warning and output. If the stream breaks (a closed pipe, a
    terminal that is gone) the reporter falls silent: all it says is also in the run directory.
    Can be used as a context manager; leaving it gives the terminal's last line back.

    Args:
        stream: default standard output.
        clock: seconds, monotonic.
        every: seconds between two plain lines of progress.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, every: float = 10.0):
        self._stream = sys.stdout if stream is None else stream
        self._clock, self._every = clock, every
        self._started, self._progress_at = clock(), -math.inf
        self._phase, self._detail = "start", ""
        self._fit_rate, self._step_rate = Rate(), Rate()
        terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._console = Console(file=self._stream, force_terminal=True, highlight=False) if terminal else None
        self._live: Live | None = None
        self._broken = False

    def phase(self, name: str) -> None:
        """What the run does from now on, such as "initial fit" or "evolve"."""
        if name == self._phase:
            return
        self._phase, self._detail = name, ""
        self._fit_rate = Rate()  # another fit counts from the beginning; t goes on where it was
        if self._console:
            self._refresh()
        else:
            self._write(f"{self._elapsed()} {name}")

    def fit(self, iteration: int, error: float, target: float, iterations: int) -> None:
        """One iteration of a fit: iteration of at most ``iterations``; relative L2 error, and the one aimed at."""
        left = self._fit_rate.left(self._clock(), iteration, iterations)
        parts = [f"iteration {iteration} of {iterations}", f"error {scientific(error)}"]
        parts += [f"target {scientific(target)}"]
        self._progress(parts + ([f"left at most {_clock_time(left)}"] if left is not None else []))

    def step(self, metrics: dict, t_end: float) -> None:
        """One accepted step, with its line of metrics.jsonl. The residual shown is the one on fresh points, if any."""
        t = metrics["t"]
        left = self._step_rate.left(self._clock(), t, t_end)
        residual = metrics.get("residual_fresh")
        residual = metrics.get("residual") if residual is None else residual
        parts = [f"t {number(t)} of {number(t_end)}", f"h {scientific(metrics.get('h'))}"]
        parts += [f"residual {scientific(residual)}", f"CG {number(metrics.get('cg_iterations'))}"]
        self._progress(parts + ([f"left {_clock_time(left)}"] if left is not None else []))

    def note(self, message: str) -> None:
        """Something worth a line."""
        self._write(f"{self._elapsed()} {message}")

    def warn(self, message: str) -> None:
        """Something that may need the user."""
        self._write(f"{self._elapsed()} warning: {message}", style="yellow")

    def output(self, t: float, relative_l2: float | None, estimate: float | None = None) -> None:
        """A snapshot was written: its relative L2 error, None or NaN without a reference, and its estimate."""
        self._write(f"{self._elapsed()} output at t = {number(t)}: {describe_error(relative_l2, estimate)}")

    def finish(self, summary: dict, directory: str | Path) -> None:
        """The end of a run: errors against time, where everything is, and the commands that go on from there."""
        self.close()
        directory = Path(directory)
        metrics = [] if tables.has_errors(summary) else read_lines(directory / METRICS)
        self._write("")
        self._write(_headline(summary))
        self._write("")
        if self._console:
            title, columns, rows = tables.error_rows(summary, metrics)
            table = Table(title=title, title_justify="left", title_style="bold")
            for column in columns:
                table.add_column(column, justify="right")
            for row in rows:
                table.add_row(*row)
            self._guard(lambda: self._console.print(table))
        else:
            for line in tables.error_lines(summary, metrics):
                self._write(line)
        self._write("")
        self._write(f"written to {directory}")
        for name, what in CONTENTS.items():
            if (directory / name).exists():
                self._write(f"  {name:<14} {what}")
        self._write("")
        quoted = shlex.quote(str(directory))
        self._write(f"pictures: nivp plot {quoted}")
        further = " --integrator.t_end T" if summary.get("status") == "finished" else ""
        self._write(f"go on:    nivp resume {quoted}{further}")

    def close(self) -> None:
        """Take the live line away and give the terminal back. What follows starts a new one."""
        live, self._live = self._live, None
        if live:
            atexit.unregister(self.close)
            self._guard(live.stop)

    # ----------------------------------------------------------------------------------------------

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
                # Refreshed by a thread: the elapsed time goes on during a long step or a compilation.
                live = Live(console=self._console, get_renderable=render, refresh_per_second=2, transient=True)
                live.start()
                self._live = live
                atexit.register(self.close)  # an error may end the program without us: the cursor must come back
            else:
                self._live.refresh()

        self._guard(show)

    def _write(self, line: str, style: str = "") -> None:
        line = " ".join(line.splitlines())

        def show():
            if self._console:
                self._console.print(Text(line, style=style), soft_wrap=True)
            else:
                self._stream.write(f"{line}\n")  # in one piece: standard error may end in the same file
                self._stream.flush()

        self._guard(show)

    def _guard(self, action: Callable[[], None]) -> None:
        """A broken stream must not end a computation of hours."""
        if self._broken:
            return
        try:
            action()
        except (OSError, ValueError):  # ValueError: a stream that was closed
            self._broken = True


def _clock_time(seconds: float) -> str:
    seconds = int(round(seconds))
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def _headline(summary: dict) -> str:
    message = f" ({summary['message']})" if summary.get("message") else ""
    parts = [f"{summary.get('problem', 'run')} {summary.get('status', 'ended')}{message}"]
    parts += [f"t = {number(summary.get('t'))} of {number(summary.get('t_end'))}"]
    for key, noun in (("steps", "step"), ("rejected", "rejected step"), ("refits", "refit")):
        if summary.get(key) is not None:
            parts.append(count(summary[key], noun))
    if summary.get("wall_seconds") is not None:
        compiled = summary.get("compile_seconds")
        share = "" if compiled is None else f" ({duration(compiled)} of them compiling)"
        parts.append(duration(summary["wall_seconds"]) + share)
    return ", ".join(parts)
