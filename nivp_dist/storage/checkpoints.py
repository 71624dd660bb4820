"""Checkpoints of the whole state through Orbax (its only importer), verified array by array when restored.

Orbax stores the arrays. Added here: one writer, so that a disk that fails one process cannot hang the others in a
barrier; a digest of every array, so that damage is noticed; a step's directory gets its number when all of it has
reached the disk; falling back to the checkpoint before; agreement of all processes on what is saved and restored; and
never starting over silently.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from nivp_dist.backend import private_api
from nivp_dist.errors import DiskFailed, RunFailed
from nivp_dist.storage.files import patiently, persist, sync_directory, sync_tree, write_whole
from nivp_dist.storage.run_directory import CHECKPOINTS, require_ours

UNREADABLE = "unreadable_checkpoints"  # where a damaged one is moved, for whoever wants to look
PARTIAL, REPLACED = ".partial", ".replaced"  # being written or removed; waiting until its replacement is complete
RESERVE = 1 << 20  # bytes that a save leaves free for summaries and logs
_STATE, _DIGESTS = "state", "digests.json"

# Their lines for every phase of a save, and their traces of a failed one, drown our own.
for _name in ("absl", "orbax"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
private_api.write_checkpoints_without_file_locks()


class Checkpoints:
    """The checkpoints of one run directory. Every process calls every method, in the same order; process 0 writes.

    directory: the run's; checkpoints lie in its folder ``checkpoints``, one directory a step.
    keep: how many of the latest stay.
    channel: the messages between the processes of the run (``cluster.channel.Channel``).
    Raises DiskFailed if the directory cannot be written.
    """

    def __init__(self, directory: str | Path, keep: int, channel):
        self.channel = channel
        self.directory = Path(directory).resolve()
        self.folder, self.keep = self.directory / CHECKPOINTS, keep
        self._last: tuple[int, dict[str, str]] | None = None  # step and digests of the last save or restore
        self._on_process_zero(self._open)

    def save(self, step: int, tree: Mapping[str, np.ndarray | jax.Array]) -> bool:
        """Write the state under a step, whole. tree: name -> array, the same on every process (replicated).

        Returns False, and writes nothing, if this very state was the last one saved or restored. Another state of
        the same step (the run goes on with other output times) replaces the older one only when it is complete
        itself. Raises RunFailed if the processes hold different states, DiskFailed if the disk refuses.
        """
        arrays = {name: np.asarray(value) for name, value in tree.items()}
        digests = {name: _digest(array) for name, array in arrays.items()}
        _require_agreement(self.channel, digests, step)
        if self._last == (step, digests) and self._on_process_zero(lambda: self._is_there(step)):
            return False
        self._on_process_zero(lambda: self._write(step, arrays, digests))
        self._last = step, digests
        return True

    def restore_latest(self, template: dict) -> tuple[dict[str, np.ndarray], int, list[str]] | None:
        """The newest readable state: (arrays by name, step, messages), or None if none was ever saved.

        template: a state with the names and dtypes expected (values and shapes are not looked at). An unreadable
        checkpoint is moved to unreadable_checkpoints/, said so in the messages, and the one before is tried.
        Arrays come back as numpy, bit for bit, on every process.

        Raises RunFailed if there are checkpoints and none can be read, or they hold another kind of state.
        """
        steps = self._on_process_zero(self._steps)
        problems = {}
        for step in reversed(steps):
            tree, problem = self._read(step)
            problem = _first_over_processes(self.channel, problem)
            if not problem:
                _check_template(tree, template, step)
                self._last = step, {name: _digest(array) for name, array in tree.items()}
                messages = self._on_process_zero(functools.partial(self._set_aside, problems, step))
                return tree, step, messages
            problems[step] = problem
        if steps:
            newest = problems[steps[-1]]
            raise RunFailed(
                f"none of the {len(steps)} checkpoints in {self.folder} can be read (step {steps[-1]}: {newest}); "
                "restore the folder from a copy, or start a new run"
            )
        return None

    # On process 0 ---------------------------------------------------------------------------------

    def _open(self) -> None:
        require_ours(self.directory)
        self.folder.mkdir(exist_ok=True)
        self._clear()

    def _write(self, step: int, arrays: dict, digests: dict) -> None:
        require_ours(self.directory)
        self._clear()
        self._require_space(2 * sum(array.nbytes for array in arrays.values()))
        try:
            self._store(step, arrays, digests)
            for old in self._steps()[: -self.keep]:  # not before the new one is on the disk
                (self.folder / str(old)).rename(self.folder / f"{old}{PARTIAL}")
        finally:
            with contextlib.suppress(OSError):  # another time, if not now
                self._clear()

    def _store(self, step: int, arrays: dict, digests: dict) -> None:
        final, partial = self.folder / str(step), self.folder / f"{step}{PARTIAL}"
        partial.mkdir()
        # Orbax does not store arrays without entries: their digest, which spells out shape and dtype, is enough.
        stored = {name: array for name, array in arrays.items() if array.size}
        with _errors_of_the_disk(), _orbax() as orbax:
            orbax.save(partial / _STATE, args=ocp.args.StandardSave(stored))
        write_whole(partial / _DIGESTS, json.dumps(digests))
        sync_tree(partial)
        if final.exists():
            final.rename(self.folder / f"{step}{REPLACED}")
        partial.rename(final)
        sync_directory(self.folder)

    def _clear(self) -> None:
        """Drop what a save that failed or was killed has left; put back what it was about to replace."""
        for entry in list(self.folder.iterdir()):
            final = entry.with_suffix("")
            if entry.suffix == REPLACED and not final.exists():
                entry.rename(final)
            elif entry.suffix in (PARTIAL, REPLACED):
                shutil.rmtree(entry)

    def _steps(self) -> list[int]:
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())

    def _is_there(self, step: int) -> bool:
        return (self.folder / str(step)).is_dir()

    def _require_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed + RESERVE:
            text = f"{(needed + RESERVE) / 1e6:.1f} MB needed and {free / 1e6:.1f} MB free on the disk"
            raise OSError(errno.ENOSPC, text)

    def _set_aside(self, problems: dict[int, str], restored: int) -> list[str]:
        messages = []
        for step, problem in sorted(problems.items(), reverse=True):
            target = self.directory / UNREADABLE
            target.mkdir(exist_ok=True)
            number = 0
            while (target / f"{step}-{number}").exists():
                number += 1
            (self.folder / str(step)).rename(target / f"{step}-{number}")
            messages.append(
                f"checkpoint of step {step} is unreadable ({problem}), moved to {UNREADABLE}/; "
                f"continuing from step {restored}"
            )
        return messages

    def _on_process_zero(self, action: Callable):
        """The action's result, on every process. A disk that refuses raises DiskFailed on all of them."""
        result, failure = None, None
        if self.channel.index == 0:
            try:
                result = persist(self.folder, action)
            except DiskFailed as error:
                failure = str(error)
        result, failure = self.channel.broadcast((result, failure))
        if failure is not None:
            raise DiskFailed(failure)
        return result

    # On every process -----------------------------------------------------------------------------

    def _read(self, step: int) -> tuple[dict, str]:
        """This process's reading of a step, and what is wrong with it ("" if nothing).

        Every process reads for itself, outside Orbax's barriers: one that cannot read must not leave the others
        waiting for it.
        """
        try:
            return patiently(self.folder / str(step), lambda: self._load(step)), ""
        except Exception as error:  # noqa: BLE001  a damaged file can make the reading libraries raise anything
            return {}, _line(error)

    def _load(self, step: int) -> dict:
        digests = json.loads((self.folder / str(step) / _DIGESTS).read_bytes())
        with _errors_of_the_disk(), _orbax() as orbax:
            stored = orbax.restore(self.folder / str(step) / _STATE)
        tree = {name: np.asarray(value) for name, value in stored.items()}
        for name, digest in digests.items():
            if name not in tree:
                tree[name] = _without_entries(digest)
            if _digest(tree[name]) != digest:
                raise ValueError(f"array '{name}' is damaged")
        if extra := tree.keys() - digests.keys():
            raise ValueError(f"array '{sorted(extra)[0]}' has no digest")
        return tree


def _orbax() -> ocp.Checkpointer:
    """Without its barriers: this process only."""
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


@contextlib.contextmanager
def _errors_of_the_disk():
    """TensorStore's errors that come from the system, as the OSError that they are."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _digest(array: np.ndarray) -> str:
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype.str} {','.join(map(str, array.shape))} {content}"


def _without_entries(digest: str) -> np.ndarray:
    """The array of a digest if it has no entries; else one that cannot match: its content is missing."""
    dtype, shape, _ = digest.split(" ")
    shape = tuple(int(length) for length in shape.split(",") if length)
    return np.zeros(shape if 0 in shape else (0,), np.dtype(dtype))


def _check_template(tree: dict, template: dict, step: int) -> None:
    # By name: NumPy holds a dtype equal to None if it is float64.
    expected = {name: np.asarray(value).dtype.name for name, value in template.items()}
    found = {name: array.dtype.name for name, array in tree.items()}
    odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if odd:
        raise RunFailed(
            f"checkpoint of step {step} holds another kind of state: '{odd[0]}' is {found.get(odd[0], 'absent')}, "
            f"expected {expected.get(odd[0], 'absent')}; it was written by another version of nivp_dist"
        )


def _require_agreement(channel, digests: dict[str, str], step: int) -> None:
    everyone = channel.gather(hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest())
    odd = [str(process) for process, one in enumerate(everyone) if one != everyone[0]]
    if odd:
        raise RunFailed(
            f"processes hold different states at step {step} (process {', '.join(odd)} against process 0): nothing "
            "was saved; resume from the checkpoint before, and check the memory and drivers of their hosts"
        )


def _first_over_processes(channel, problem: str) -> str:
    """The reading is good only if it is on every process: their common verdict."""
    failed = [index for index, one in enumerate(channel.gather(bool(problem))) if one]
    return problem or (f"unreadable on process {failed[0]}" if failed else "")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
