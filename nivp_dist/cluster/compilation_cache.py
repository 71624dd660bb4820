"""Compiled programs are kept on disk, so that a restart need not compile them again (cluster.compilation_cache)."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from nivp_dist.cluster.topology import Topology
from nivp_dist.settings.model import ClusterSettings


def enable(settings: ClusterSettings, topology: Topology, warn: Callable[[str], object]) -> None:
    """Use the cache that the settings name. If it cannot be used, warn(message) is called and the run has none."""
    import jax

    from nivp_dist.backend import private_api

    if topology.processes > 1 and jax.default_backend() == "cpu":
        private_api.write_compilation_cache_from_every_process()
    private_api.delete_unreadable_cache_entries()
    wanted = settings.compilation_cache
    automatic = wanted == "auto"
    if wanted == "off" or (automatic and topology.processes == 1) or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        folder = default_folder() if automatic else Path(wanted).expanduser()
    except RuntimeError:
        warn("no compilation cache: no home directory is known; set cluster.compilation_cache")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        warn(f"no compilation cache: {folder}: {error.strerror}")
        return
    if status.st_uid != os.getuid() or status.st_mode & 0o022:  # programs that others put there would run as the user
        warn(f"no compilation cache: {folder} belongs to others or can be written by them: chmod go-w, or name another")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        warn(f"no compilation cache: {folder} cannot be written: chmod u+wx, or name another")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX leaves out programs that compile quickly; a run has hundreds of them, and together they take the longest.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def default_folder() -> Path:
    """One folder for each kind of processor: machine code for another kind can end in an illegal instruction."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = os.uname().machine
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nivp" / f"compiled-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"
