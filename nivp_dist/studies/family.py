"""A family of runs, those of a sweep, one after another on this machine; a family that was interrupted goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nivp_dist.batch import jobs, sweeps
from nivp_dist.batch.sweeps import SWEEP
from nivp_dist.bench.child_process import evolve
from nivp_dist.errors import InputError
from nivp_dist.formatting import describe_error, duration
from nivp_dist.settings.files import name_of
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import read_lines

LOG = "sweep.log"  # the output of a run, in its folder of logs
OVER = ("finished", "failed", "event")  # statuses of runs that are not carried out again
# Entries of summary.json that a result has.
COPIED = "status message t steps rejected velocity_evaluations refits parameters points wall_seconds".split()


class Result(NamedTuple):
    """What became of one run of a family.

    Attributes:
        task: its number. directory: of the run. values: key -> value as text, where the runs differ.
        numbers: entries of its summary, and "error" and "estimate" at its last output; missing or None if not known.
    """

    task: int
    directory: Path
    values: dict[str, str]
    numbers: dict


def begin(source: str, overrides: dict[str, str], axes: tuple[str, ...], place: str | None, note) -> Path:
    """The directory of a new family: a run directory for each combination of the values, none of them begun.

    Arguments as for ``batch.sweeps.combinations``; place: None for runs/NAME-sweep-NUMBER. Raises InputError.
    """
    runs = sweeps.combinations(source, overrides, axes, note)
    configs = [config for _, config in runs]
    return sweeps.make_sweep(runs, place or configs[0].output.directory, name_of(source), jobs.check_problems(configs))


def carry_out(directory: Path, write: Callable[[str], None]) -> None:
    """Every run of the family that has not come to its end, in order, each in a process of its own.

    A run that fails is reported, and the others go on. write: takes lines of progress.
    """
    for result in results(directory):
        name = ", ".join(f"{key} = {value}" for key, value in result.values.items())
        if result.numbers.get("status") in OVER:
            continue
        write(f"{result.directory.name}: {name}")
        log = result.directory / run_directory.LOGS / LOG
        log.parent.mkdir(exist_ok=True)
        failure = evolve(["resume", str(result.directory)], log)
        if failure:
            write(f"  {failure}; its output: {log}")
        else:
            numbers = _numbers(result.directory)
            error = describe_error(numbers["error"], numbers["estimate"])
            write(f"  {error}, {duration(numbers.get('wall_seconds'))}")


def results(directory: Path) -> list[Result]:
    """The runs of a family in the order of their numbers. Raises InputError if the directory holds none."""
    if not sweeps.is_sweep(directory):
        raise InputError(f"{directory}: holds no sweep; `nivp sweep CONFIG --over key=v1,v2` begins one")
    found = []
    for line in read_lines(directory / SWEEP):
        values = {key: value for key, value in line.items() if key not in ("task", "directory")}
        run = directory / line["directory"]
        found.append(Result(line["task"], run, values, _numbers(run)))
    return found


def _numbers(run: Path) -> dict:
    summary = run_directory.readable_summary(run)
    last = (summary.get("errors") or [{}])[-1]
    numbers = {key: summary[key] for key in COPIED if key in summary}
    return numbers | {"error": last.get("relative_l2"), "estimate": last.get("estimate")}
