"""The directory of a run: made once, held by one process group at a time, never shared by two runs."""

import contextlib
import errno
import fcntl
import itertools
import json
import logging
import os
import shutil
import socket
from importlib import metadata
from pathlib import Path

from nivp_dist.config import Config
from nivp_dist.errors import InputError
from nivp_dist.settings_io import RECORD, to_toml
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import plain

RUNS = "runs"  # default parent of run directories, in the working directory
SUMMARY, LOCK, CHECKPOINTS, PROBLEM = "summary.json", ".lock", "checkpoints", "problem.py"
_PACKAGES = ("nivp_dist", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
_held: dict[Path, int] = {}  # locks of this process, with the depth of their nesting


def create(config: Config, directory: str | Path | None, name: str) -> Path:
    """Make the directory of a new run, with its config.toml and, if the problem is a file, a copy of it.

    directory None (and no output.directory): runs/NAME-001 or the next free number; two runs that start together
    get two directories. A given directory may exist only if empty. Returns the absolute path.

    Raises InputError if it holds anything, or cannot be written.
    """
    wanted = directory if directory is not None else config.output.directory
    try:
        path = _next_free(Path(RUNS), name) if wanted is None else _claim(Path(wanted).expanduser())
        recorded = config
        if config.problem.file is not None:
            # The run must not change when the user goes on editing the file: it keeps, and resumes from, its own copy.
            write_whole(path / PROBLEM, Path(config.problem.file).read_bytes())
            recorded = config.model_copy(update={"problem": config.problem.model_copy(update={"file": PROBLEM})})
        write_whole(path / RECORD, to_toml(recorded, versions()))
    except OSError as error:
        place = error.filename or wanted or RUNS
        raise InputError(
            f"{place}: cannot make the run directory: {error.strerror}; choose another with --output"
        ) from None
    return path


def record_config(directory: str | Path, config: Config) -> None:
    """Replace config.toml, after a resume with other settings. A problem.file inside the directory is kept relative."""
    directory = Path(directory).resolve()
    file = config.problem.file
    if file is not None and Path(file).parent == directory:
        config = config.model_copy(update={"problem": config.problem.model_copy(update={"file": Path(file).name})})
    write_whole(directory / RECORD, to_toml(config, versions()))


def restore_config(directory: str | Path, content: bytes) -> None:
    """Put an earlier config.toml back as it was."""
    write_whole(Path(directory) / RECORD, content)


def discard(directory: str | Path) -> None:
    """Remove the directory of a run that was refused at its very start. One with a checkpoint is left alone."""
    if not has_checkpoint(directory):
        shutil.rmtree(directory)


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on, read without importing any of it."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package.replace("-", "_")] = metadata.version(package)
    return found


def write_summary(directory: str | Path, summary: dict) -> None:
    """Replace summary.json as a whole. NaN and infinities become null; numpy numbers are taken."""
    write_whole(Path(directory) / SUMMARY, json.dumps(plain(summary), indent=2, allow_nan=False) + "\n")


def read_summary(directory: str | Path) -> dict | None:
    """summary.json, or None before the first was written. Raises InputError if the directory holds no run."""
    directory = Path(directory)
    if not (directory / RECORD).is_file():
        raise InputError(f"{directory}: not the directory of a run (it holds no {RECORD})")
    try:
        return json.loads((directory / SUMMARY).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{directory / SUMMARY}: damaged: {error}") from None


def has_checkpoint(directory: str | Path) -> bool:
    """Whether a complete checkpoint is there (Orbax renames a step's directory to its number when all is written)."""
    folder = Path(directory) / CHECKPOINTS
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


@contextlib.contextmanager
def lock(directory: str | Path):
    """Hold the run directory against every other process; within one process locks nest.

    The kernel drops the lock when the process dies, however it dies. Raises InputError if another one holds it.
    """
    directory = Path(directory).resolve()
    if directory in _held:
        _held[directory] += 1
        try:
            yield
        finally:
            _held[directory] -= 1
        return
    with _open_lock(directory) as file:
        if not _try_lock(file):
            file.seek(0)
            raise InputError(f"{directory}: in use by {file.read().strip() or 'another process'}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _held[directory] = 1
        try:
            yield
        finally:
            del _held[directory]


def in_use(directory: str | Path) -> bool:
    """Whether a process holds the directory's lock. Writes nothing."""
    path = Path(directory).resolve() / LOCK
    if path.parent in _held:
        return True
    try:
        with path.open("rb") as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except OSError:
        return False


def _open_lock(directory: Path):
    try:
        return open(directory / LOCK, "a+")
    except OSError as error:
        raise InputError(f"{directory}: cannot be written: {error.strerror}") from None


def _try_lock(file, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        # Some parallel file systems are mounted without locks; the run must not be refused for it.
        logging.getLogger(__name__).warning("%s: no file locks here: start one run at a time", file.name)
    return True


def _claim(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise InputError(f"{path}: a file of that name is in the way; choose another with --output") from None
        if (path / RECORD).exists():
            raise InputError(f"{path}: holds another run; use `nivp resume {path}`, or another --output") from None
        if any(path.iterdir()):
            raise InputError(f"{path}: not empty; choose another with --output") from None
    return _mark(path)


def _mark(path: Path) -> Path:
    """Exclusive creation of config.toml decides between two runs that found the same empty directory."""
    try:
        os.close(os.open(path / RECORD, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        raise InputError(f"{path}: holds another run; use `nivp resume {path}`, or another --output") from None
    return path.resolve()


def _next_free(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) or "run"
    for number in itertools.count(1):
        path = parent / f"{stem}-{number:03d}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path.resolve()
