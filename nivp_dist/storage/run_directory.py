"""The directory of a run: made once, never shared by two runs, with the configuration and the summary in it."""

import contextlib
import functools
import itertools
import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from nivp_dist.errors import InputError
from nivp_dist.settings.files import RECORD, no_run_in, to_toml
from nivp_dist.settings.model import Config
from nivp_dist.settings.sources import Source
from nivp_dist.storage import callback_copy, checkout, lock, network_copy, problem_copy
from nivp_dist.storage.files import persist, write_whole
from nivp_dist.storage.metrics import plain

RUNS = "runs"  # default parent of run directories, in the working directory
SUMMARY, CHECKPOINTS, LOGS = "summary.json", "checkpoints", "logs"
# What a run that failed at its very start leaves behind. Anything else makes a directory worth keeping.
LEFT_BY_A_FALSE_START = {
    RECORD,
    problem_copy.PROBLEM,
    network_copy.NETWORK,
    callback_copy.CALLBACKS,
    LOGS,
    lock.LOCK,
    lock.heartbeat.FILE,
    CHECKPOINTS,
}
_PACKAGES = ("nivp_dist", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


def create(config: Config, directory: str | Path | None, name: str, sources: Iterable[Source] = ()) -> Path:
    """Make the directory of a new run, with its config.toml and copies of the user's files.

    sources: the files that problem.file needs (``problems.registry.files_of``).

    directory None (and no output.directory): runs/NAME-001 or the next free number; two runs that start together
    get two directories. A given directory may exist if it is empty, or if a run failed in it before it had written
    anything. Returns the absolute path.

    Raises InputError if it holds anything else, or cannot be written.
    """
    wanted = directory if directory is not None else config.output.directory
    require_text(RUNS if wanted is None else _expanded(wanted))
    try:
        path = _next_free(Path(RUNS), name) if wanted is None else _claim(_expanded(wanted))
        recorded, of_network = network_copy.make(callback_copy.make(config, path), path)
        recorded, of_problem = problem_copy.make(recorded, path, sources)
        write_whole(path / RECORD, to_toml(recorded, _provenance(), of_problem | of_network))
    except OSError as error:
        place = error.filename or wanted or RUNS
        raise InputError(
            f"{place}: cannot make the run directory: {error.strerror}; choose another with --output"
        ) from None
    return path


def require_text(path: str | Path) -> None:
    """Raises InputError if a path is not text: where the locale is not UTF-8, Python keeps its other bytes as they are,
    and the libraries that write checkpoints refuse them."""
    try:
        str(Path(path).resolve()).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: its path has letters that this locale does not know: set LC_ALL=C.UTF-8, or choose another"
        ) from None


def planned(directory: str | Path | None, name: str) -> Path:
    """The directory that ``create`` would make now. Makes nothing. Raises InputError if it is taken."""
    require_text(RUNS if directory is None else _expanded(directory))
    if directory is None:
        return next(path for path in _numbered(Path(RUNS), name) if not path.exists()).resolve()
    path = _expanded(directory)
    _refuse_taken(path)
    return path.resolve()


def make_folder(directory: str | Path | None, name: str) -> Path:
    """A new, empty folder for several run directories. Raises InputError if it is taken, or cannot be made."""
    try:
        path = _next_free(Path(RUNS), name) if directory is None else planned(directory, name)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = error.filename or directory or RUNS
        raise InputError(f"{place}: cannot be made: {error.strerror}; choose another with --output") from None
    return path


def record_config(directory: str | Path, config: Config) -> str:
    """Replace config.toml, after a resume with other settings. A problem.file and a network.file inside the directory
    are kept relative, and a callbacks.file outside of it is copied.

    Returns the absolute path of callbacks.file, '' if there is none. Raises DiskFailed.
    """
    directory = Path(directory).resolve()
    file = config.problem.file
    if file is not None and Path(file).is_relative_to(directory):
        own = config.problem.model_copy(update={"file": Path(file).relative_to(directory).as_posix()})
        config = config.model_copy(update={"problem": own})
    file = config.network.file
    if file is not None and Path(file).is_relative_to(directory):
        config = network_copy.with_file(config, Path(file).relative_to(directory).as_posix())
    config = persist(directory / callback_copy.CALLBACKS, lambda: callback_copy.make(config, directory))
    text = to_toml(config, _provenance(), problem_copy.recorded(directory))
    persist(directory / RECORD, lambda: write_whole(directory / RECORD, text))
    return "" if config.callbacks.file is None else str(directory / config.callbacks.file)


def restore_config(directory: str | Path, content: bytes) -> None:
    """Put an earlier config.toml back as it was."""
    write_whole(Path(directory) / RECORD, content)


def discard(directory: str | Path) -> None:
    """Remove the directory of a run that was refused at its very start. One with a checkpoint is left alone."""
    if not has_checkpoint(directory):
        shutil.rmtree(directory, ignore_errors=True)  # on NFS, files that are still open cannot be removed


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on, read without importing any of them."""
    return dict(_versions())


def _provenance() -> dict[str, str]:
    """The table [versions] of config.toml: those of the packages, and the commit of this one where it is known."""
    commit = checkout.commit()
    return versions() | ({} if commit is None else {"commit": commit})


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package.replace("-", "_")] = metadata.version(package)
    return found


def write_summary(directory: str | Path, summary: dict) -> None:
    """Replace summary.json as a whole. NaN and infinities become null; numbers of numpy and jax may be in it."""
    write_whole(Path(directory) / SUMMARY, json.dumps(plain(summary), indent=2, allow_nan=False) + "\n")


def require_run(directory: str | Path) -> None:
    """Raises InputError if the directory holds no run."""
    if not (Path(directory) / RECORD).is_file():
        raise InputError(no_run_in(directory))


def read_summary(directory: str | Path) -> dict | None:
    """summary.json, or None before the first was written. Raises InputError if the directory holds no run."""
    require_run(directory)
    directory = Path(directory)
    try:
        summary = json.loads((directory / SUMMARY).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{directory / SUMMARY}: damaged: {error}; `nivp resume` makes it anew") from None
    if not isinstance(summary, dict):
        raise InputError(f"{directory / SUMMARY}: damaged: not a JSON object; `nivp resume` makes it anew")
    return summary


def readable_summary(directory: str | Path) -> dict:
    """summary.json, or {} if there is none or it is damaged: a resume needs nothing of it.

    Raises InputError if the directory holds no run.
    """
    try:
        return read_summary(directory) or {}
    except InputError:
        if not (Path(directory) / RECORD).is_file():
            raise
        return {}


def has_finished(directory: str | Path) -> bool:
    """Whether the summary says that the run has reached its end. Raises InputError if the directory holds no run."""
    return readable_summary(directory).get("status") == "finished"


def has_ended(directory: str | Path) -> bool:
    """Whether the run has finished, or a callback has stopped it. Raises InputError as ``has_finished``."""
    return readable_summary(directory).get("status") in ("finished", "event")


def require_not_beyond(directory: str | Path, t_end: float) -> None:
    """Raises InputError if the run has come further than t_end, as far as its summary says."""
    try:
        reached = (read_summary(directory) or {}).get("t")
    except InputError:  # of a damaged summary: the checkpoint, which a resume reads, knows too
        return
    if reached is not None and reached > t_end + 1e-12 * abs(t_end):
        raise InputError(f"{directory}: integrator.t_end = {t_end:g} lies before what it has reached, t = {reached:g}")


def holds_run(directory: str | Path) -> bool:
    """Whether a run is there that can be continued, be it only from its start."""
    path = _expanded(directory)
    return (path / RECORD).is_file() and not _failed_at_its_start(path)


def has_checkpoint(directory: str | Path) -> bool:
    """Whether a complete checkpoint is there: a directory gets a number for its name when all of it is written."""
    folder = Path(directory) / CHECKPOINTS
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


def resume_command(directory: str | Path, session_class: str | None) -> str:
    """What continues the run: a shell command, or, if it solves a class of a Python session, a line of Python."""
    if session_class is None:
        return f"nivp resume {shlex.quote(str(directory))}"
    return f"nivp_dist.resume({str(directory)!r}, problem={session_class}(...)) in Python"


def _expanded(directory: str | Path) -> Path:
    try:
        return Path(directory).expanduser()
    except RuntimeError:
        raise InputError(f"{directory}: no home directory is known here; write the path out") from None


def _claim(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_taken(path)
    if (path / RECORD).exists():
        shutil.rmtree(path)  # what a false start has left
    path.mkdir(exist_ok=True)
    return _mark(path)


def _refuse_taken(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path}: a file of that name is in the way; choose another with --output")
    if (path / RECORD).exists() and not _failed_at_its_start(path):
        raise InputError(f"{path}: holds another run; use `nivp resume {path}`, or another --output")
    if not (path / RECORD).exists() and any(path.iterdir()):
        raise InputError(f"{path}: not empty; choose another with --output")


def _failed_at_its_start(path: Path) -> bool:
    """Whether a run has held the directory, ended, and left nothing in it but what it made before its first line.

    A run that is being created has not held the directory yet, and one that waits in a queue has its job script there.
    """
    names = {entry.name for entry in path.iterdir()}
    held_once, empty = lock.LOCK in names, names <= LEFT_BY_A_FALSE_START and not has_checkpoint(path)
    return held_once and empty and not lock.in_use(path)


def _mark(path: Path) -> Path:
    """Create config.toml exclusively: that decides between two runs which have found the same empty directory."""
    try:
        os.close(os.open(path / RECORD, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        raise InputError(f"{path}: holds another run; use `nivp resume {path}`, or another --output") from None
    return path.resolve()


def _next_free(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    candidates = _numbered(parent, name)
    while True:
        path = next(candidates)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path.resolve()
    raise AssertionError("there is always a next number")


def _numbered(parent: Path, name: str) -> Iterator[Path]:
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) or "run"
    return (parent / f"{stem}-{number:03d}" for number in itertools.count(1))
