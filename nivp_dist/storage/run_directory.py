"""The directory of a run: made once, held by one process group at a time, never shared by two runs."""

import contextlib
import errno
import fcntl
import functools
import itertools
import json
import logging
import os
import shutil
import socket
import time
from importlib import metadata
from pathlib import Path

from nivp_dist.errors import DiskFailed, InputError
from nivp_dist.settings.files import RECORD, to_toml
from nivp_dist.settings.model import Config
from nivp_dist.storage import heartbeat
from nivp_dist.storage.files import MENDS, persist, write_whole
from nivp_dist.storage.heartbeat import Heart
from nivp_dist.storage.metrics import plain

RUNS = "runs"  # default parent of run directories, in the working directory
SUMMARY, LOCK, CHECKPOINTS, PROBLEM, LOGS = "summary.json", ".lock", "checkpoints", "problem.py", "logs"
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


def planned(directory: str | Path | None, name: str) -> Path:
    """Where ``create`` would make the directory now. Makes nothing. Raises InputError if that is taken."""
    if directory is None:
        return next(path for path in _numbered(Path(RUNS), name) if not path.exists()).resolve()
    path = Path(directory).expanduser()
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


def record_config(directory: str | Path, config: Config) -> None:
    """Replace config.toml, after a resume with other settings. A problem.file inside the directory is kept relative.

    Raises DiskFailed.
    """
    directory = Path(directory).resolve()
    file = config.problem.file
    if file is not None and Path(file).parent == directory:
        config = config.model_copy(update={"problem": config.problem.model_copy(update={"file": Path(file).name})})
    persist(directory / RECORD, lambda: write_whole(directory / RECORD, to_toml(config, versions())))


def restore_config(directory: str | Path, content: bytes) -> None:
    """Put an earlier config.toml back as it was."""
    write_whole(Path(directory) / RECORD, content)


def discard(directory: str | Path) -> None:
    """Remove the directory of a run that was refused at its very start. One with a checkpoint is left alone."""
    if not has_checkpoint(directory):
        shutil.rmtree(directory, ignore_errors=True)  # files that are still open leave a trace on NFS


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on, read without importing any of it."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
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
        raise InputError(f"{directory / SUMMARY}: damaged: {error}; move it away") from None


def has_checkpoint(directory: str | Path) -> bool:
    """Whether a complete checkpoint is there (Orbax renames a step's directory to its number when all is written)."""
    folder = Path(directory) / CHECKPOINTS
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


@contextlib.contextmanager
def lock(directory: str | Path, patience: float = 0.0):
    """Hold the run directory against every other process; within one process locks nest.

    The kernel drops the lock when the process dies, however it dies; only the server of a file system may keep that of
    a host that was lost. Where locks do not reach, a heartbeat tells of the holder. Raises InputError if there is one,
    and still is after `patience` seconds.
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
        _take(file, directory, patience)
        _held[directory] = 1
        try:
            with Heart(directory, lambda: _loss(directory) is None):
                yield
        finally:
            del _held[directory]


def in_use(directory: str | Path) -> bool:
    """Whether a process holds the directory, as far as locks and heartbeats tell. Writes nothing."""
    directory = Path(directory).resolve()
    if directory in _held:
        return True
    locked = None
    with contextlib.suppress(OSError), (directory / LOCK).open("rb") as file:
        free = _try_lock(file, fcntl.LOCK_SH)
        locked = None if free is None else not free
    beat = heartbeat.read(directory)
    if locked or beat is None:
        return bool(locked)
    return beat.age < heartbeat.ALIVE and (beat.elsewhere or locked is None)


def require_ours(directory: str | Path) -> None:
    """Raises DiskFailed if a directory was moved or removed, which must not be made again half empty, or if another
    process has taken it over."""
    if (loss := _loss(Path(directory))) is not None:
        raise DiskFailed(loss)


def _loss(directory: Path) -> str | None:
    if not (directory / RECORD).is_file():
        return f"{directory} has vanished: nothing can be saved; resume where it has gone"
    if directory in _held:
        with contextlib.suppress(FileNotFoundError):
            holder = (directory / LOCK).read_text()
            if holder not in ("", _me()):
                return f"{directory} has been taken over by {holder}: this run ends here, and that one goes on"
    return None


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _take(file, directory: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while (holder := _other_holder(file, directory)) is not None:
        if time.monotonic() >= deadline:
            raise InputError(f"{directory}: in use by {holder}")
    with _in_one_line(directory):
        file.truncate(0)
        file.write(_me().encode())


def _other_holder(file, directory: Path) -> str | None:
    """Who keeps us from the directory, or None: then we hold its lock, where there are locks."""
    deadline = time.monotonic() + 1.0  # `nivp status` holds it for an instant when it looks
    while (free := _try_lock(file)) is False and time.monotonic() < deadline:
        time.sleep(0.1)
    if free is False:
        file.seek(0)
        beat = heartbeat.read(directory)
        gone = ""
        if beat is not None and beat.elsewhere and beat.age > heartbeat.SKEW:
            gone = f", not heard of for {beat.age / 60:.0f} min; if it is gone, remove {directory / LOCK}"
        return (file.read().decode() or "another process") + gone
    if (beat := heartbeat.still_beating(directory, locks=free is not None)) is not None:
        return str(beat)
    if free is None:  # some parallel file systems are mounted without; the run must not be refused for it
        logging.getLogger(__name__).warning("%s: no file locks here: start one run at a time", directory)
    return None


def locks_work(file) -> bool:
    """Whether the file system of an open file has locks at all."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def _open_lock(directory: Path):
    with _in_one_line(directory):
        return open(directory / LOCK, "a+b", buffering=0)


@contextlib.contextmanager
def _in_one_line(directory: Path):
    try:
        yield
    except OSError as error:
        mend = MENDS.get(error.errno, "see to its file system")
        raise InputError(f"{directory}: cannot be written: {error.strerror}; {mend}") from None


def _try_lock(file, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Whether the lock was free; None where there are no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return None
    return True


def _claim(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_taken(path)
    path.mkdir(exist_ok=True)
    return _mark(path)


def _refuse_taken(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path}: a file of that name is in the way; choose another with --output")
    if (path / RECORD).exists():
        raise InputError(f"{path}: holds another run; use `nivp resume {path}`, or another --output")
    if any(path.iterdir()):
        raise InputError(f"{path}: not empty; choose another with --output")


def _mark(path: Path) -> Path:
    """Exclusive creation of config.toml decides between two runs that found the same empty directory."""
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


def _numbered(parent: Path, name: str):
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) or "run"
    return (parent / f"{stem}-{number:03d}" for number in itertools.count(1))
