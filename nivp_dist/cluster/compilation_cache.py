"""Compiled programs are kept on disk, so that no later run compiles them again (cluster.compilation_cache)."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from nivp_dist.cluster.topology import Topology
from nivp_dist.settings.model import ClusterSettings

MOST_BYTES = 2**30  # of the programs in the folder of "auto"; a small run (heat in 2 dimensions) has 84 in 2 MB
ABANDONED_SECONDS = 86_400.0  # after which an incomplete file is taken for that of a killed process
MEND = 'name another folder, or set cluster.compilation_cache = "off"'
_folder_in_use = ""  # the folder that `enable` has given to jax


def enable(settings: ClusterSettings, topology: Topology, warn: Callable[[str], object]) -> None:
    """Use the cache that the settings name. If it cannot be used, warn(message) is called and the run has none.

    A cache that jax has already, by its environment variable or from the user's own program, stays as it is.
    """
    import jax

    from nivp_dist.backend import private_api

    if topology.processes > 1 and jax.default_backend() == "cpu":
        private_api.write_compilation_cache_from_every_process()
    private_api.delete_unreadable_cache_entries()
    private_api.write_whole_cache_entries(
        lambda error: warn(f"programs that are compiled from here on are not kept: {error.strerror}; {MEND}")
    )
    wanted, present = settings.compilation_cache, jax.config.values["jax_compilation_cache_dir"]
    if wanted == "off" or (present and present != _folder_in_use):
        return
    try:
        folder = default_folder() if wanted == "auto" else Path(wanted).expanduser()
    except RuntimeError:
        # A user without a home, as in some containers, expects no file in it; who runs several processes, or names a
        # folder, expects the cache.
        if wanted != "auto" or topology.processes > 1:
            warn("no compilation cache: no home directory is known; set cluster.compilation_cache")
        return
    if (reason := _refused(folder)) is not None:
        warn(f"no compilation cache: {reason}")
        return
    if wanted == "auto" and topology.index == 0:
        prune(folder, MOST_BYTES)
    _use(folder)


def _use(folder: Path) -> None:
    import jax

    global _folder_in_use
    _folder_in_use = str(folder)
    jax.config.update("jax_compilation_cache_dir", _folder_in_use)
    # JAX leaves out programs that compile quickly; a run has hundreds of them, and together they take the longest.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _refused(folder: Path) -> str | None:
    """Why programs cannot be kept in the folder, which is made if it is not there; None if they can."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        return f"{folder}: {error.strerror}; {MEND}"
    if status.st_uid != os.getuid() or status.st_mode & 0o022:  # programs that others put there would run as the user
        return f"{folder} belongs to others or can be written by them: chmod go-w, or {MEND}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written: chmod u+wx, or {MEND}"
    return None


def default_folder() -> Path:
    """One folder for each kind of processor: machine code for another kind can end in an illegal instruction.

    Raises RuntimeError if no home directory is known.
    """
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = os.uname().machine
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nivp" / f"compiled-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def prune(folder: Path, most: int) -> None:
    """Delete the programs that were used longest ago, until the rest has at most so many bytes, and abandoned files.

    Another run may read or delete the same ones meanwhile: a program that is missing is compiled. jax can bound a cache
    itself, but then locks it at every program, which some file systems cannot.
    """
    from nivp_dist.backend.private_api import CACHE_ENTRY, UNFINISHED_ENTRY

    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                used = max(status.st_atime, status.st_mtime)  # a file system may not note when a file is read
                if entry.name.endswith(CACHE_ENTRY):
                    found.append((used, status.st_size, entry.path))
                elif entry.name.endswith(UNFINISHED_ENTRY) and time.time() - used > ABANDONED_SECONDS:
                    os.unlink(entry)
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
