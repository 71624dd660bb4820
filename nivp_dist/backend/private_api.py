"""Every use of a private name of JAX or Orbax, with the reason for it.

Private names can change with any release. Where one is missing, the functions here leave the library as it is, and
their docstrings say what is then lost; only `coordination_client` raises. tests/backend/test_private_api.py fails when
a library changes one of these names or what it does.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

# The ends of the names of files in the compilation cache. The first is JAX's.
CACHE_ENTRY, UNFINISHED_ENTRY = "-cache", "-unfinished"


def coordination_client():
    """The client of JAX's coordination service in this process (None before ``jax.distributed.initialize``).

    JAX has no public name for it. It carries small messages between processes without a device.
    Raises ImportError or AttributeError if JAX has moved it.
    """
    from jax._src import distributed

    return distributed.global_state.client


def backends_have_started() -> bool:
    """Whether jax has found its devices, after which it can be connected with no other process.

    JAX has no public name for it. Where the private name is missing: False, and JAX itself raises RuntimeError later.
    """
    try:
        from jax._src import xla_bridge

        return bool(xla_bridge.backends_are_initialized())
    except (ImportError, AttributeError):
        logger.debug("JAX has changed: whether its backends have started is not known")
        return False


def write_compilation_cache_from_every_process() -> None:
    """Let every process of a group write the programs that it compiles to the persistent compilation cache.

    JAX lets only process 0 write. On CPUs the cache keys of the same program differ between processes, so that all
    others would compile everything again at every start (measured with JAX 0.10.2: 21 of the 35 s of a short run with
    two processes). Where the private names are missing, the others do compile again.
    """
    try:
        from jax._src import compiler, distributed

        write, state = compiler._cache_write, distributed.global_state
        _ = state.process_id
    except (ImportError, AttributeError):
        logger.debug("JAX has changed: only process 0 writes the compilation cache")
        return
    if hasattr(write, "__wrapped__"):  # a second call
        return

    @functools.wraps(write)
    def write_as_process_zero(*arguments, **keywords):
        own, state.process_id = state.process_id, 0
        try:
            write(*arguments, **keywords)
        finally:
            state.process_id = own

    compiler._cache_write = write_as_process_zero


def delete_unreadable_cache_entries() -> None:
    """Treat an entry of the compilation cache that cannot be read as missing, and delete it.

    JAX neither writes an entry atomically nor replaces one that exists. An entry that a killed process left incomplete
    would cause a warning and a compilation at every later start. Where the private names are missing, it does.
    """
    import jax

    try:
        from jax._src import compilation_cache

        read = compilation_cache.get_executable_and_time
    except (ImportError, AttributeError):
        logger.debug("JAX has changed: unreadable entries of the compilation cache are not replaced")
        return
    if hasattr(read, "__wrapped__"):  # a second call
        return

    @functools.wraps(read)
    def read_or_delete(key, *arguments, **keywords):
        try:
            return read(key, *arguments, **keywords)
        except Exception:  # noqa: BLE001  decompression and deserialisation raise many types; all mean an unusable file
            folder = jax.config.values["jax_compilation_cache_dir"]
            (Path(folder) / f"{key}{CACHE_ENTRY}").unlink(missing_ok=True)
            return None, None

    compilation_cache.get_executable_and_time = read_or_delete


def write_whole_cache_entries(failed: Callable[[OSError], object]) -> None:
    """Write an entry of the compilation cache to another file first, and nothing more after one that fails.

    JAX writes an entry in place, so that a run could read, or mix with its own, what another one has half written; and
    where the disk is full it warns at every program. failed: called with the error of the first entry that cannot be
    written. Where the private name is missing, JAX does as it does.
    """
    try:
        from jax._src.lru_cache import LRUCache

        put = LRUCache.put
    except (ImportError, AttributeError):
        logger.debug("JAX has changed: entries of the compilation cache are written in place")
        return
    if hasattr(put, "__wrapped__"):  # a second call
        return
    given_up = False

    @functools.wraps(put)
    def put_whole(self, key: str, value: bytes) -> None:
        nonlocal given_up
        if self.eviction_enabled or "://" in str(self.path):  # bounded by JAX's own setting, or in no file system
            return put(self, key, value)
        entry = Path(self.path) / f"{key}{CACHE_ENTRY}"
        if given_up or entry.exists():
            return None
        unfinished = entry.with_name(f"{key}-{os.getpid()}{UNFINISHED_ENTRY}")
        try:
            unfinished.write_bytes(value)
            unfinished.replace(entry)
        except OSError as error:
            given_up = True
            with contextlib.suppress(OSError):
                unfinished.unlink()
            failed(error)

    LRUCache.put = put_whole


def write_checkpoints_without_file_locks() -> None:
    """Make Orbax write without file locks, which some parallel file systems do not support.

    Only one process writes our checkpoints, so that locks protect nothing. TensorStore has the switch, but Orbax does
    not expose it. Where the private name is missing, saving fails on a file system without locks.
    """
    try:
        from orbax.checkpoint._src.serialization import tensorstore_utils

        context: dict[str, Any] = tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT
        context["file_io_locking"] = {"mode": "none"}
    except (ImportError, AttributeError, TypeError):
        logger.debug("Orbax has changed: checkpoints are written with file locks")
