"""Sweeps: several runs of one configuration that differ in some settings, each a task of one job array."""

import itertools
import re
import shutil
from pathlib import Path

from nivp_dist.errors import InputError
from nivp_dist.settings.files import COMMAND_LINE, name_of, read_config
from nivp_dist.settings.model import Config
from nivp_dist.settings.sources import Source
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import Lines, read_lines

SWEEP = "sweep.jsonl"  # the tasks of a sweep, one a line: its number, its directory, its settings
_VALUES = re.compile(r"""(?:\[[^]]*\]|"[^"]*"|'[^']*'|[^,])+""")  # a comma within brackets or quotes separates nothing

Member = tuple[dict[str, str], Config]  # the settings of one run of a sweep, and its whole configuration


def combinations(source: str, overrides: dict[str, str], axes: tuple[str, ...], note=lambda line: None) -> list[Member]:
    """Every combination of the values in `key=value,value`; without axes, the one run.

    note: as in ``read_config``. Raises InputError.
    """
    values: dict[str, list[str]] = {}
    for axis in axes:
        key, equals, text = axis.partition("=")
        values_of_key = _VALUES.findall(text)
        if not key or not equals or not values_of_key:
            raise InputError(f"{COMMAND_LINE}: {axis}: write it as key=value,value")
        if key in values or key in overrides:
            raise InputError(f"{COMMAND_LINE}: {key} is given twice")
        if repeated := [value for value in values_of_key if values_of_key.count(value) > 1]:
            raise InputError(f"{COMMAND_LINE}: {axis}: {repeated[0]} stands there twice; remove one")
        values[key] = values_of_key
    if axes and name_of(source) == "run" and not Path(source).is_file():
        raise InputError(f"{source}: a sweep reads its configuration several times, which a pipe cannot: name a file")
    chosen = [dict(zip(values, combination)) for combination in itertools.product(*values.values())]
    return [(own, read_config(source, overrides | own, note)) for own in chosen]


def make_sweep(runs: list[Member], parent: str | Path | None, name: str, sources: list[list[Source]]) -> Path:
    """The directory of a sweep: a run directory for each member, numbered as the tasks, and the list of them.

    sources: for each member the files that its problem needs.
    Raises InputError if it is taken, or cannot be made; nothing is left behind then.
    """
    parent = run_directory.make_folder(parent, f"{name}-sweep")
    try:
        for number, ((own, config), files) in enumerate(zip(runs, sources, strict=True)):
            directory = run_directory.create(config, member(parent, number), name, files)
            Lines(parent / SWEEP).append({"task": number, "directory": directory.name} | own)
    except InputError:
        shutil.rmtree(parent)
        raise
    except OSError as error:
        shutil.rmtree(parent, ignore_errors=True)
        raise InputError(f"{parent}: cannot be written: {error.strerror}; choose another with --output") from None
    return parent


def is_sweep(directory: Path) -> bool:
    """Whether a directory is that of a sweep."""
    return (directory / SWEEP).is_file()


def tasks(directory: Path, with_finished: bool) -> list[int]:
    """The numbers of the tasks of a sweep; those whose runs have finished only if asked for."""
    listed = [line["task"] for line in read_lines(directory / SWEEP)]
    return [task for task in listed if with_finished or not run_directory.has_ended(member(directory, task))]


def members(directory: Path, tasks: list[int] | None) -> list[Path]:
    """The run directories of a job: those of the tasks of a sweep, or the directory itself."""
    return [directory] if tasks is None else [member(directory, task) for task in tasks]


def member(directory: Path, task: int) -> Path:
    """The run directory of one task, as slurm/job.sbatch spells it."""
    return directory / f"{task:04d}"
