"""Compiled programs outlive their process: a restart compiles nothing again (cluster.compilation_cache)."""

import hashlib
import os
from pathlib import Path

from nivp_dist.cluster.topology import Topology
from nivp_dist.settings.model import ClusterSettings


def keep(settings: ClusterSettings, place: Topology, say) -> None:
    """Use the cache that the settings name. say(message): told if there can be none."""
    import jax

    if place.processes > 1 and jax.default_backend() == "cpu":
        _write_from_every_process()
    _forget_torn_entries()
    wanted = settings.compilation_cache
    if wanted == "off" or (wanted == "auto" and place.processes == 1) or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = cache_folder() if wanted == "auto" else Path(wanted).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # programs of others must not run as ours
    except OSError as error:
        say(f"no compilation cache: {folder}: {error.strerror}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The small ones too: a run has hundreds of them, and together they take longer than the large ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cache_folder() -> Path:
    """One for each kind of processor: machine code for another one ends in an illegal instruction."""
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        flags = os.uname().machine
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nivp" / f"compiled-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def _write_from_every_process() -> None:
    """On CPUs the keys of the same program differ between processes, and JAX lets only process 0 write: all others
    would compile everything again at every start (seen in 0.10.2: 21 of the 35 s of a short run of two processes).

    Reaches into JAX, which has no setting for it; where its insides have changed, the others compile as before.
    """
    try:
        from jax._src import compiler, distributed

        write, state = compiler._cache_write, distributed.global_state
        state.process_id  # noqa: B018
    except (ImportError, AttributeError):
        return
    if getattr(write, "by_every_process", False):
        return

    def write_as_the_first(*arguments, **keywords):
        number, state.process_id = state.process_id, 0
        try:
            write(*arguments, **keywords)
        finally:
            state.process_id = number

    write_as_the_first.by_every_process = True
    compiler._cache_write = write_as_the_first


def _forget_torn_entries() -> None:
    """JAX does not write an entry whole, and leaves one that is there alone: what a kill -9 has torn would be warned of
    and compiled again at every start. It counts as missing here, and the compiled program takes its place.

    Reaches into JAX as above.
    """
    import jax

    try:
        from jax._src import compilation_cache

        read = compilation_cache.get_executable_and_time
    except (ImportError, AttributeError):
        return
    if getattr(read, "forgets_torn_entries", False):
        return

    def read_or_forget(key, *arguments, **keywords):
        try:
            return read(key, *arguments, **keywords)
        except Exception:  # noqa: BLE001  of the decompression, or of the machine code: whatever it is of no use
            (Path(jax.config.jax_compilation_cache_dir) / f"{key}-cache").unlink(missing_ok=True)
            return None, None

    read_or_forget.forgets_torn_entries = True
    compilation_cache.get_executable_and_time = read_or_forget
