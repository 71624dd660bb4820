"""`nivp bench accuracy`: runs the rows of the score sheet, each in a process of its own, and compares their errors
with the bounds."""

import dataclasses
import fnmatch
import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

from nivp_dist.bench import machine
from nivp_dist.bench.child_process import evolve, sampled_error
from nivp_dist.bench.rows import ROWS, Row
from nivp_dist.bench.score_sheet import in_words, verdict
from nivp_dist.errors import InputError
from nivp_dist.report.tables import drift
from nivp_dist.settings.files import RECORD, config_hash, read_config
from nivp_dist.settings.keys import nearest
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import plain

SHEET = "accuracy.json"
# A run is stopped, with a checkpoint, when it has taken this many times the minutes of its row, if that has no limit.
TIME_FACTOR = 3.0
# The entries of summary.json that are copied into the sheet.
COPIED = (
    "status wall_seconds compile_seconds velocity_evaluations steps rejected refits cg_iterations parameters points "
    "devices device versions"
).split()


def run(
    names: tuple[str, ...],
    output: str | Path,
    write: Callable[[str], None],
    rows: tuple[Row, ...] = ROWS,
    seeds: int = 1,
    words: Callable[[dict], str] = in_words,
) -> dict:
    """Run the rows of these names (patterns with * and ?; none: all rows), and keep OUTPUT/accuracy.json up to date.

    The run directory of a row is OUTPUT/NAME, and OUTPUT/NAME-seed-K for the K-th further seed. A finished run
    there is only read, an unfinished one is resumed. Rows that were measured before and are not selected stay in the
    file. write: takes lines of progress. seeds: runs of every row; its error is their median (``with_seeds``). words:
    an entry in one of these lines.

    Returns the sheet of the selected rows: the machine, the versions, and an entry for each row.
    Raises InputError for an unknown name, and for a folder that cannot be written.
    """
    selected, folder = select(names, rows), sheet_folder(output)
    entries = {entry["name"]: entry for entry in _earlier_entries(folder)}
    head = {"machine": machine.describe(), "versions": run_directory.versions()}
    for row in selected:
        found = []
        for further in range(seeds):
            one, directory = row, folder / (run_name(row, rows) + (f"-seed-{further}" if further else ""))
            try:
                one = with_further_seed(row, further)
                write(f"{row.name}: {command(one, directory)}")
                found.append(measure(one, directory))
            except (InputError, OSError, ValueError) as error:  # concerns this row only; the others are still run
                found.append(describe(one, directory) | {"failed": " ".join(str(error).split())})
        entry = with_seeds(row, found)
        entries[row.name] = plain(entry)
        write(f"  {words(entry)}")
        names_in_order = dict.fromkeys([other.name for other in rows if other.name in entries] + list(entries))
        ordered = [entries[name] for name in names_in_order]
        write_whole(folder / SHEET, json.dumps(head | {"rows": ordered}, indent=1, allow_nan=False) + "\n")
    return head | {"rows": [entries[row.name] for row in selected]}


def select(names: tuple[str, ...], rows: tuple[Row, ...] = ROWS) -> list[Row]:
    """The rows whose names match, in the order of the sheet. Raises InputError for a name that matches no row."""
    every = [row.name for row in rows]
    for name in names:
        if not fnmatch.filter(every, name):
            close = nearest(name, every)
            hint = f"did you mean {close}?" if close else f"there are {', '.join(every)}"
            raise InputError(f"bench accuracy: there is no row '{name}'; {hint}")
    return [row for row in rows if not names or any(fnmatch.fnmatchcase(row.name, name) for name in names)]


def run_name(row: Row, rows: tuple[Row, ...] = ROWS) -> str:
    """The name of the run directory of a row: that of the first row with the same settings."""
    settings = (row.configuration, row.overrides)
    return next((other.name for other in rows if (other.configuration, other.overrides) == settings), row.name)


def command(row: Row, directory: str | Path | None = None) -> str:
    """The command that reproduces a row."""
    words = ["nivp", "run", row.configuration] + (["--output", str(directory)] if directory else [])
    return shlex.join(words + [word for key, value in row.overrides.items() for word in (f"--{key}", value)])


def sheet_folder(output: str | Path) -> Path:
    """The folder of a sheet, which is made if it does not exist. Raises InputError if it cannot be."""
    folder = Path(output).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; choose another with --output") from None
    return folder


def _earlier_entries(folder: Path) -> list[dict]:
    """The entries of the sheet in a folder."""
    try:
        return json.loads((folder / SHEET).read_bytes())["rows"] if (folder / SHEET).exists() else []
    except OSError as error:
        raise InputError(f"{folder / SHEET}: cannot be read: {error.strerror}; choose another --output") from None
    except (ValueError, KeyError):
        raise InputError(f"{folder / SHEET}: damaged, or not a score sheet: move it away") from None


# One row ----------------------------------------------------------------------------------------


def measure(row: Row, directory: Path) -> dict:
    """The entry of a row, after its run has been started or resumed if it is not finished.

    Raises InputError: a configuration that is missing or wrong, a directory with another run.
    """
    config = read_config(row.configuration, row.overrides)
    summary = _summary(directory)
    if summary is not None or (directory / RECORD).exists():
        _require_same_settings(config, directory)
    reason = None
    if (summary or {}).get("status") != "finished":
        reason = _run_to_the_end(row, directory, float((summary or {}).get("wall_seconds") or 0.0))
        summary = _summary(directory)
    entry = describe(row, directory) | read(directory, summary or {}, config.integrator.t_end)
    if reason is None and row.score == "sampled":
        entry["error"] = sampled_error(directory, entry["t"])
    if reason is None and row.score == "largest":
        entry["error"] = max(filter(None, (output.get("relative_l2") for output in entry["outputs"])), default=None)
    return entry | {"failed": reason, "met": verdict(row, entry)}


def with_further_seed(row: Row, further: int) -> Row:
    """The row with the seed of its configuration raised by so many; the row itself for none."""
    if further == 0:
        return row
    seed = read_config(row.configuration, row.overrides).seed + further
    return dataclasses.replace(row, settings=row.settings | {"seed": str(seed)})


def with_seeds(row: Row, found: list[dict]) -> dict:
    """The entry of a row from those of its seeds: that with the median error, and of two the larger.

    It has the largest error as "worst", and "seeds", the errors in the order of the seeds; None for a run that failed,
    which counts as the worst. The row meets its goal if the median does and the worst meets the must.
    """
    if len(found) == 1:
        return found[0]

    def error(entry: dict) -> float:
        return math.inf if entry["failed"] or entry["error"] is None else entry["error"]

    ordered = sorted(found, key=error)
    entry = ordered[len(found) // 2] | {"command": command(row), "failed": ordered[-1]["failed"]}
    entry |= {"worst": ordered[-1]["error"], "seeds": [None if each["failed"] else each["error"] for each in found]}
    return entry | {"met": "no" if entry["failed"] else verdict(row, entry)}


def describe(row: Row, directory: str | Path) -> dict:
    """The part of an entry that is known before the run."""
    facts = {"name": row.name, "problem": row.problem, "command": command(row), "directory": str(directory)}
    bounds = {"must": row.must, "goal": row.goal, "minutes": row.minutes}
    return (
        facts | bounds | {"score": row.score, "t": row.t, "error": None, "estimate": None, "bound": None, "met": "no"}
    )


def read(directory: Path, summary: dict, t_end: float) -> dict:
    """The part of an entry that the run directory holds; errors and bounds only if the run has reached t_end."""
    entry = {name: summary.get(name) for name in COPIED} | {"t": t_end}
    outputs = summary.get("errors") or []
    if not outputs:
        return entry
    first, last = outputs[0], outputs[-1]
    drifts = {name: drift(first, last, name) for name in last.get("invariants") or {}}
    entry |= {"outputs": outputs, "drift": drifts, "config": str(directory / RECORD)}
    if last["t"] >= t_end * (1 - 1e-9):
        newest = snapshots.load(snapshots.list_snapshots(directory)[-1].path)
        parts = {name: float(value) for name, value in newest.items() if name.startswith("estimate_")}
        estimates = {"estimate": last.get("estimate"), "bound": parts.pop("estimate_bound", None)}
        entry |= {"error": last.get("relative_l2"), "estimate_parts": parts} | estimates
    return entry


def _run_to_the_end(row: Row, directory: Path, spent: float) -> str | None:
    """Start or resume the run of a row, which has taken `spent` seconds so far. The reason of a failure, or None."""
    words = ["resume", str(directory)] if (directory / RECORD).exists() else shlex.split(command(row, directory))[1:]
    limit = TIME_FACTOR * row.minutes if row.limit is None else row.limit
    left = 60 * limit - spent
    reason = evolve(words, directory.with_name(f"{directory.name}.log"), left) if left > 0 else None
    if (_summary(directory) or {}).get("status") == "finished":
        return reason
    return reason or f"not finished within {limit:g} minutes"


def _require_same_settings(config: Config, directory: Path) -> None:
    def facts(config: Config) -> tuple:
        return config_hash(config), config.integrator.t_end, config.output.times, config.output.evaluation_points

    if facts(read_config(directory / RECORD)) != facts(config):
        raise InputError(f"{directory} holds a run of other settings: remove it, or choose another --output")


def _summary(directory: Path) -> dict | None:
    """summary.json of a run directory; None if there is no run or no summary yet."""
    try:
        return run_directory.read_summary(directory)
    except InputError:
        return None
