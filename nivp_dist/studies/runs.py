"""Runs as cases of a study: a configuration with settings of its own, and what came of it."""

from pathlib import Path

from nivp_dist.bench.child_process import evolve
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.settings.files import RECORD
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import METRICS, iterate

RUN = "run"  # the run directory, in the folder of its case
# Entries of summary.json that a record has.
COPIED = (
    "status message t steps rejected velocity_evaluations refits cg_iterations parameters points wall_seconds "
    "compile_seconds"
).split()
WITHOUT_PICTURES = {"output.plots": "false"}


def carry_out(folder: Path, configuration: str, settings: dict[str, str]) -> dict:
    """Start the run of a case, or continue it where it was interrupted, and return its record (``record_of``).

    folder: of the case. configuration: a shipped one, or a file. A run that gives up has a record too, with status
    "failed" and its message. Raises RunFailed where it has written no summary.
    """
    directory = folder / RUN
    words = ["resume", str(directory)]
    if not (directory / RECORD).exists():
        overrides = [word for key, value in settings.items() for word in (f"--{key}", value)]
        words = ["run", configuration, "--output", str(directory), *overrides]
    failure = evolve(words, folder / "run.log")
    try:
        return record_of(directory)
    except InputError:
        raise RunFailed(failure or f"{directory}: the run has left no summary") from None


def record_of(directory: Path) -> dict:
    """Of a run directory: entries of its summary (COPIED); "errors", of every output {t, error, estimate}; and "error",
    "estimate" at the last one. An error is None where no reference is known. Raises InputError without a summary."""
    if (summary := run_directory.read_summary(directory)) is None:
        raise InputError(f"{directory}: the run has not begun")
    found = {key: summary[key] for key in COPIED if key in summary}
    names = {"t": "t", "error": "relative_l2", "estimate": "estimate"}
    errors = [{name: entry.get(key) for name, key in names.items()} for entry in summary.get("errors") or []]
    last = errors[-1] if errors else dict.fromkeys(names)
    return found | {"errors": errors, "error": last["error"], "estimate": last["estimate"]}


def series(directory: Path, *names: str) -> dict[str, list]:
    """The columns of metrics.jsonl with these names, over the accepted steps; None where a step has no such entry."""
    lines = list(iterate(directory / METRICS))
    return {name: [line.get(name) for line in lines] for name in names}
