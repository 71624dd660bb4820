"""The stages of `nivp bench speed gpu`, one after another within a given time. Does not import jax.

Every stage is a process of its own, which ``worker`` runs. A program that takes too long, fails or needs more memory
than there is therefore ends its own stage alone, and the peak of the memory is that of one stage. This process leaves
the GPU to the stages. They share a cache of compiled programs, which is new for each command: a program that an earlier
stage has compiled takes no time, and every other one its whole time.
"""

import contextlib
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nivp_dist.bench import child_process
from nivp_dist.errors import InputError
from nivp_dist.formatting import number
from nivp_dist.storage.metrics import Lines

WORKER = "nivp_dist.bench.gpu.worker"
MINUTES = 13.0  # of a quarter of an hour: a borrowed machine needs the rest to start and to send the files back
TEXT_LENGTH = 160  # characters of a measurement on the screen
LOG_LINES = 15  # of the error output of a stage that has failed

Plan = list[tuple[str, Callable[[], dict]]]  # the measurements of a stage in order: name, call


class Stage(NamedTuple):
    """A group of measurements. seconds: its part of the time, of the sum over all stages."""

    name: str
    seconds: float


STAGES = (
    Stage("machine", 45),  # the first process also loads the libraries of the GPU from a cold disk
    Stage("accuracy", 45),
    Stage("same bits", 75),
    Stage("rates", 60),
    Stage("products", 150),
    Stage("evaluation float64", 60),
    Stage("evaluation float32", 60),
    Stage("evaluation tensorfloat32", 60),
    Stage("trace", 30),
)


class Request(NamedTuple):
    """What the process of a stage is asked for. folder: for its files, shared by all stages. trace: the folder for the
    profile. quick: small sizes on a GPU too."""

    stage: str
    folder: str
    trace: str
    quick: bool


class Options(NamedTuple):
    """minutes: for all stages together. trace, quick: as in ``Request``. output: a new file for the lines."""

    minutes: float
    trace: Path
    quick: bool
    output: Path | None = None


class Screen(NamedTuple):
    """write: takes lines of JSON. say: takes lines about the progress."""

    write: Callable[[str], None]
    say: Callable[[str], None]


def run(options: Options, screen: Screen) -> bool:
    """Run the stages, and write one line of JSON for each measurement as soon as it is known.

    A stage gets its part of the time that is left, so that later stages have what earlier ones did not need. The last
    line lists the measurements that failed and those that were left out. Returns whether there are none of either.

    Raises InputError if the output exists.
    """
    if options.output is not None and options.output.exists():
        raise InputError(f"{options.output} exists and is not overwritten: name another file with --output")
    report, started = _Report(screen, options.output), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="nivp-gpu-", ignore_cleanup_errors=True) as folder,
        _interrupted_by_sigterm(),
    ):
        for i, stage in enumerate(STAGES):
            left = max(started + 60 * options.minutes - time.monotonic(), 0.0)
            limit = left * stage.seconds / sum(later.seconds for later in STAGES[i:])
            request = Request(stage.name, folder, str(options.trace.resolve()), options.quick)
            report.say(f"{time.monotonic() - started:4.0f} s  {stage.name}, at most {limit:.0f} s")
            _run_stage(request, limit, report)
    seconds = round(time.monotonic() - started, 1)
    report.write({"stage": "all", "seconds": seconds, "failed": report.failed, "left_out": report.left_out})
    report.say(f"{seconds:4.0f} s  end")
    for what, names in (("failed", report.failed), ("left out", report.left_out)):
        for name in names:
            report.say(f"{what}: {name}")
    return not report.failed and not report.left_out


class _Report:
    """Writes records, and remembers the measurements that failed and those that were left out."""

    def __init__(self, screen: Screen, output: Path | None):
        self.say = screen.say
        self._write, self._lines = screen.write, Lines(output) if output else None
        self.failed: list[str] = []
        self.left_out: list[str] = []

    def write(self, record: dict) -> None:
        self._write(json.dumps(record))
        if self._lines is not None:
            self._lines.append(record)

    def measured(self, stage: str, found: dict) -> None:
        """A measurement. It has failed if it has an "error", or if its result has not "passed" its test."""
        self.write({"stage": stage} | found)
        self.say(f"        {found['measurement']}: {_text(found)}")
        if "error" in found or found.get("passed") is False:
            self.failed.append(f"{stage}: {found['measurement']}")


def _run_stage(request: Request, limit: float, report: _Report) -> None:
    planned, done, started = [], set(), time.monotonic()

    def take(line: str) -> None:
        found = json.loads(line)
        if "planned" in found:
            planned.extend(found["planned"])
        else:
            done.add(found["measurement"])
            report.measured(request.stage, found)

    log = Path(request.folder) / f"{request.stage}.log"
    reason = child_process.follow([WORKER, json.dumps(request._asdict())], log, limit, take)
    left_out = [f"{request.stage}: {name}" for name in planned if name not in done]
    if reason is not None and not planned:
        left_out = [request.stage]
    outcome = reason or "finished"
    seconds = {"seconds": round(time.monotonic() - started, 1), "limit": round(limit, 1)}
    report.write({"stage": request.stage, "outcome": outcome, "left_out": left_out} | seconds)
    report.left_out += left_out
    if reason is None:
        return
    report.say(f"        {outcome}")
    if reason != child_process.TIME_LIMIT:
        report.failed.append(f"{request.stage}: {reason}")
        for line in log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]:
            report.say(f"        {line}")


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM, with which a time limit of the machine begins, ends the running stage as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _text(found: dict) -> str:
    """The results of a measurement as one short line."""
    results = {key: value for key, value in found.items() if key != "measurement"}
    text = ", ".join(_entries("", results))
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 3] + "..."


def _entries(prefix: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _entries(f"{prefix} {key}".strip(), entry)
    else:
        yield f"{prefix} {' '.join(number(value).split())}"
