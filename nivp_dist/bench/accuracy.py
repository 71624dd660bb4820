"""`nivp bench accuracy`: run the rows of the score sheet, each in a process of its own, and judge their errors."""

import contextlib
import fnmatch
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable

import nivp_dist
from nivp_dist.bench.rows import ROWS, Row
from nivp_dist.cluster import topology
from nivp_dist.errors import InputError
from nivp_dist.formatting import MISSING, duration, scientific
from nivp_dist.report.tables import aligned, drift
from nivp_dist.settings.files import RECORD, config_hash, read_config
from nivp_dist.settings.keys import nearest
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import plain

SHEET = "accuracy.json"
PATIENCE = 3.0  # times its minutes that a row may take before it is stopped, with a checkpoint
GRACE = 60.0  # seconds in which a stopped run writes its checkpoint
COLUMNS = ("problem", "t", "error", "time", "evaluations", "must", "goal", "met", "estimate")


def run(names: tuple[str, ...], output: str | Path, say: Callable[[str], None], rows: tuple[Row, ...] = ROWS) -> dict:
    """Run the rows of these names (patterns with * and ?; none: all), and keep OUTPUT/accuracy.json up to date.

    A row's run directory is OUTPUT/NAME. What is finished there is read, what was begun is resumed; rows that were
    measured before and are not asked for stay in the file. Returns the sheet of those asked for: the machine, the
    versions, and an entry for every row. Raises InputError: an unknown name, a folder that cannot be written.
    """
    chosen, folder = select(names, rows), Path(output).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = json.loads((folder / SHEET).read_bytes())["rows"] if (folder / SHEET).exists() else []
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; choose another with --output") from None
    except (ValueError, KeyError):
        raise InputError(f"{folder / SHEET}: damaged, or not a score sheet: move it away") from None
    entries = {entry["name"]: entry for entry in earlier}
    head = {"machine": machine(), "versions": run_directory.versions()}
    for row in chosen:
        directory = folder / run_name(row, rows)
        say(f"{row.name}: {command(row, directory)}")
        try:
            entry = measure(row, directory)
        except (InputError, OSError, ValueError) as error:  # of this row; the rest go on
            entry = describe(row, directory) | {"failed": " ".join(str(error).split())}
        entries[row.name] = plain(entry)
        say(f"  {in_words(entry)}")
        ordered = [entries[other.name] for other in rows if other.name in entries]
        write_whole(folder / SHEET, json.dumps(head | {"rows": ordered}, indent=1, allow_nan=False) + "\n")
    return head | {"rows": [entries[row.name] for row in chosen]}


def select(names: tuple[str, ...], rows: tuple[Row, ...] = ROWS) -> list[Row]:
    """The rows that match, in the order of the sheet. Raises InputError for a name that matches none."""
    every = [row.name for row in rows]
    for name in names:
        if not fnmatch.filter(every, name):
            close = nearest(name, every)
            mend = f"did you mean {close}?" if close else f"there are {', '.join(every)}"
            raise InputError(f"bench accuracy: there is no row '{name}'; {mend}")
    return [row for row in rows if not names or any(fnmatch.fnmatchcase(row.name, name) for name in names)]


def run_name(row: Row, rows: tuple[Row, ...] = ROWS) -> str:
    """That of the first row with the same run."""
    same = lambda other: (other.configuration, other.overrides) == (row.configuration, row.overrides)  # noqa: E731
    return next((other.name for other in rows if same(other)), row.name)


def command(row: Row, directory: str | Path | None = None) -> str:
    """The one that reproduces a row."""
    words = ["nivp", "run", row.configuration] + (["--output", str(directory)] if directory else [])
    return shlex.join(words + [word for key, value in row.overrides.items() for word in (f"--{key}", value)])


# One row ----------------------------------------------------------------------------------------


def measure(row: Row, directory: Path) -> dict:
    """The row's entry, after as much of its run as is left to do. Raises InputError: a configuration that is missing or
    wrong, a directory with another run."""
    config = read_config(row.configuration, row.overrides)
    log, limit = directory.with_suffix(".log"), PATIENCE * 60 * row.minutes
    reason = None
    summary = _summary(directory)
    if summary is not None or (directory / RECORD).exists():
        _require_same(config, directory)
    if (summary or {}).get("status") != "finished":
        begun = (directory / RECORD).exists()
        words = ["resume", str(directory)] if begun else shlex.split(command(row, directory))[1:]
        left = limit - float((summary or {}).get("wall_seconds") or 0.0)
        if left > 0:
            reason = _evolve(words, log, left)
        summary = _summary(directory) or {}
        if summary.get("status") != "finished":
            reason = reason or f"not finished within {PATIENCE:g} times its {row.minutes:g} minutes"
    entry = describe(row, directory) | read(row, directory, summary, config.integrator.t_end)
    if reason is None and row.score == "sampled":
        entry["error"] = _score(row, directory, entry["t"])
    return entry | {"failed": reason, "met": verdict(row, entry)}


def describe(row: Row, directory: Path) -> dict:
    """What is known of a row before its run."""
    facts = {"name": row.name, "problem": row.problem, "command": command(row), "directory": str(directory)}
    bounds = {"must": row.must, "goal": row.goal, "minutes": row.minutes}
    return facts | bounds | {"score": row.score, "t": row.t, "error": None, "estimate": None, "met": "no"}


def read(row: Row, directory: Path, summary: dict, t_end: float) -> dict:
    """What a run directory says of its last output so far."""
    counts = "velocity_evaluations steps rejected refits cg_iterations parameters points devices".split()
    names = ["status", "wall_seconds", "compile_seconds", *counts, "device", "versions"]
    entry = {name: summary.get(name) for name in names} | {"t": t_end}
    outputs = summary.get("errors") or []
    if not outputs:
        return entry
    first, last = outputs[0], outputs[-1]
    reached = last["t"] >= t_end * (1 - 1e-9)
    entry |= {"outputs": outputs, "drift": {name: drift(first, last, name) for name in last.get("invariants") or {}}}
    entry["config"] = str(directory / RECORD)
    if reached:
        stored = snapshots.list_snapshots(directory)[-1]
        parts = {
            name: float(value) for name, value in snapshots.load(stored.path).items() if name.startswith("estimate_")
        }
        entry |= {"error": last.get("relative_l2"), "estimate": last.get("estimate"), "estimate_parts": parts}
    return entry


def verdict(row: Row, entry: dict) -> str:
    """goal, must or no, or that nothing was asked; and whether it took too long."""
    error = entry.get("error")
    below = lambda bound: error is not None and bound is not None and error <= bound  # noqa: E731
    met = "goal" if below(row.goal) else "must" if below(row.must) else "no"
    met = MISSING if row.must is None and row.goal is None else met
    late = (entry.get("wall_seconds") or 0.0) > 60 * row.minutes
    return met + (", late" if late else "")


def _require_same(config, directory: Path) -> None:
    record = read_config(directory / RECORD)
    facts = lambda c: (config_hash(c), c.integrator.t_end, c.output.times, c.output.evaluation_points)  # noqa: E731
    if facts(record) != facts(config):
        raise InputError(f"{directory} holds a run of other settings: remove it, or choose another --output")


def _summary(directory: Path) -> dict | None:
    with contextlib.suppress(InputError):  # no run there yet
        return run_directory.read_summary(directory)
    return None


def _evolve(words: list[str], log: Path, limit: float) -> str | None:
    """`nivp WORDS`, its output appended to a log; after `limit` seconds it is asked to stop. Why it failed, or None."""
    with log.open("a+") as file:
        start = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(_python("nivp_dist.cli", *words), env=_environment(), stdout=file, stderr=file)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        file.seek(start)
        said = [line.strip() for line in file if line.strip()]
    if process.returncode == 0:
        return None
    return (said or [f"exit code {process.returncode}"])[-1].removeprefix("nivp: ")


def _score(row: Row, directory: Path, t: float) -> float:
    """An error that the run itself does not report. Raises InputError with the last line of what went wrong."""
    words = _python("nivp_dist.bench.scores", str(directory), repr(t))
    done = subprocess.run(words, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{row.score}: {(done.stderr.strip().splitlines() or ['no number'])[-1]}")
    return float(done.stdout)


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def _environment() -> dict[str, str]:
    """A run of its own, not a part of this process's group, and of this very package."""
    environment = {name: value for name, value in os.environ.items() if name not in topology.VARIABLES}
    root = str(Path(nivp_dist.__file__).resolve().parent.parent)
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


# The sheet --------------------------------------------------------------------------------------


def machine() -> dict:
    """Where this is measured. Does not load jax: the device of every run is in its entry."""
    model, path = "", Path("/proc/cpuinfo")
    if path.exists():
        model = next((line.split(":", 1)[1].strip() for line in path.open() if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": cores,
        "memory_bytes": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def cells(entry: dict) -> list[str]:
    """COLUMNS of an entry, as text."""
    bound = lambda value: MISSING if value is None else f"{value:g}"  # noqa: E731
    evaluations = entry.get("velocity_evaluations")
    return [
        entry["problem"],
        bound(entry.get("t")),
        scientific(entry.get("error")),
        duration(entry.get("wall_seconds")),
        MISSING if evaluations is None else str(evaluations),
        bound(entry["must"]),
        bound(entry["goal"]),
        f"failed: {entry['failed']}" if entry.get("failed") else entry["met"],
        scientific(entry.get("estimate")),
    ]


def lines(sheet: dict) -> list[str]:
    """The table for the screen, and below it what failed, and how many bounds were met."""
    rows = [[text if not text.startswith("failed") else "failed" for text in cells(row)] for row in sheet["rows"]]
    failed = [f"{row['name']} failed: {row['failed']}" for row in sheet["rows"] if row.get("failed")]
    return aligned([list(COLUMNS), *rows]) + failed + [tally(sheet)]


def tally(sheet: dict) -> str:
    """How many bounds were met, in time."""
    musts, goals = ([row["met"] for row in sheet["rows"] if row[bound] is not None] for bound in ("must", "goal"))
    met = sum(verdict in ("must", "goal") for verdict in musts)
    return f"{met} of {len(musts)} must, {goals.count('goal')} of {len(goals)} goals"


def markdown(sheet: dict) -> list[str]:
    """The table of the README."""
    head = ["problem", "t", "error", "estimate", "time", "evaluations", "must", "goal", "met"]
    rows = []
    for row in sheet["rows"]:
        named = dict(zip(COLUMNS, cells(row)))
        rows.append([f"{row['problem']} (`{row['command'].removeprefix('nivp run ')}`)"] + [named[c] for c in head[1:]])
    return [f"| {' | '.join(cells_)} |" for cells_ in [head, ["---"] * len(head), *rows]]


def in_words(entry: dict) -> str:
    """An entry in one line."""
    if entry.get("failed"):
        return f"failed: {entry['failed']}"
    error, estimate = scientific(entry["error"]), scientific(entry["estimate"])
    return f"error {error}, estimated {estimate}, {duration(entry['wall_seconds'])}: {entry['met']}"
