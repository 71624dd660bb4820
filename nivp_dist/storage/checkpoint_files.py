"""One checkpoint on the disk: a folder of arrays, written by Orbax, and a digest of every array beside them.

Orbax is called without its barriers between processes: one process writes, and each process reads for itself, so that
a disk that fails one of them cannot leave the others waiting.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from nivp_dist.backend import private_api
from nivp_dist.storage.files import sync_tree, write_whole

_ARRAYS, _MANIFEST = "state", "manifest.json"

# Orbax logs lines for every phase of a save, and the traceback of a failed one, among which ours would not be seen.
for _name in ("absl", "orbax"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
# One process writes, so that no file locks are needed, which some parallel file systems do not have.
private_api.write_checkpoints_without_file_locks()


def write(folder: Path, arrays: dict[str, np.ndarray], digests: dict[str, str]) -> None:
    """Write the arrays into a new folder, and flush them to the disk. Raises OSError."""
    folder.mkdir()
    # Orbax does not store arrays without entries. Their digest is enough to restore them: it holds shape and dtype.
    stored = {name: array for name, array in arrays.items() if array.size}
    with _without_late_errors(), _system_errors(), _orbax() as orbax:
        orbax.save(folder / _ARRAYS, args=ocp.args.StandardSave(stored))
    write_whole(folder / _MANIFEST, json.dumps({"position": position(arrays), "digests": digests}))
    sync_tree(folder)


def read(folder: Path) -> dict[str, np.ndarray]:
    """The arrays in a folder, each compared with its digest.

    Raises ValueError if one is damaged, and whatever the reading libraries raise on a damaged file.
    """
    digests = json.loads((folder / _MANIFEST).read_bytes())["digests"]
    with _without_late_errors(), _system_errors(), _orbax() as orbax:
        stored = orbax.restore(folder / _ARRAYS)
    tree = {name: np.asarray(value) for name, value in stored.items()}
    for name, expected in digests.items():
        if name not in tree:
            tree[name] = _without_entries(expected)
        if digest(tree[name]) != expected:
            raise ValueError(f"array '{name}' is damaged")
    if extra := tree.keys() - digests.keys():
        raise ValueError(f"array '{sorted(extra)[0]}' has no digest")
    return tree


def position(arrays: dict[str, np.ndarray]) -> str:
    """Where a run stands in a state, 'step 10, t = 0.25'; '' if the state has no such entries."""
    return f"step {int(arrays['step'])}, t = {float(arrays['t']):g}" if {"step", "t"} <= arrays.keys() else ""


def recorded_position(folder: Path) -> str:
    """The position of the state in a folder, whose arrays may be damaged; '' if it is not known."""
    try:
        return str(json.loads((folder / _MANIFEST).read_bytes())["position"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def digest(array: np.ndarray) -> str:
    """dtype, shape and sha256 of an array, as text."""
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype.str} {','.join(map(str, array.shape))} {content}"


def _without_entries(digest: str) -> np.ndarray:
    """The array of a digest if it has no entries, and otherwise one that does not match it."""
    dtype, shape, _ = digest.split(" ")
    shape = tuple(int(length) for length in shape.split(",") if length)
    return np.zeros(shape if 0 in shape else (0,), np.dtype(dtype))


def _orbax() -> ocp.Checkpointer:
    """An Orbax checkpointer of this process alone."""
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


@contextlib.contextmanager
def _system_errors():
    """Raise an error that TensorStore reports with the number of a system error as the OSError that it is."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that may be told of results after it was closed, and of errors that nobody waits for."""

    def call_soon_threadsafe(self, callback, *arguments, context=None):
        try:
            return super().call_soon_threadsafe(callback, *arguments, context=context)
        except RuntimeError:
            if not self.is_closed():
                raise
            return None

    def call_exception_handler(self, context):
        # Orbax raises the error of the first array that fails; asyncio would print those of the others.
        if not str(context.get("message")).endswith("was never retrieved"):
            super().call_exception_handler(context)


@contextlib.contextmanager
def _without_late_errors():
    """A context for a call of Orbax, after the failure of which no thread prints a traceback.

    At the first array that fails (the disk is full, a file is damaged), Orbax closes its event loop. The threads of
    TensorStore that write or read the other arrays find no loop to report to then, or nobody asks for their errors, and
    each would print a traceback, now or after our own message.
    """
    make = asyncio.new_event_loop
    asyncio.new_event_loop = _Loop
    try:
        yield
    finally:
        asyncio.new_event_loop = make
