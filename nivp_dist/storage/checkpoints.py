"""The checkpoints of a run: the last few whole states, agreed on by all processes, and restored only if undamaged.

A checkpoint is named by its number, the count of transitions (steps, rounds of a fit, outputs) that the run has made.
Its folder gets that name when all of it has reached the disk, so that a folder with a number is complete.
"""

import contextlib
import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from nivp_dist.errors import DiskFailed, RunFailed
from nivp_dist.storage import checkpoint_files
from nivp_dist.storage.checkpoint_files import digest, position, recorded_position
from nivp_dist.storage.files import PinnedFolder, persist, retry, sync_directory
from nivp_dist.storage.lock import require_ours
from nivp_dist.storage.run_directory import CHECKPOINTS

UNREADABLE = "unreadable_checkpoints"  # the folder that damaged checkpoints are moved to, in case somebody can use them
PARTIAL, REPLACED = ".partial", ".replaced"  # being written or removed; kept until its replacement is complete
RESERVE = 1 << 20  # bytes that a save leaves free on the disk, for summaries and logs
SPACE = 2  # times the size of the state is required before a save: the state, and as much for the files around it
LONGEST_REASON = 160  # characters of a library's error in a message


NOTE = "note"  # the entry of a checkpoint that holds the text of process 0
NO_NOTE = np.zeros(0, np.uint8)


class Restored(NamedTuple):
    """A state read from a checkpoint: arrays by name, the checkpoint's number, a message for each damaged one, and the
    text that process 0 had saved with it."""

    tree: dict[str, np.ndarray]
    number: int
    messages: list[str]
    note: str


class Checkpoints:
    """The checkpoints of one run directory. Every process calls every method, in the same order; process 0 writes.

    Args:
        directory: of the run; checkpoints lie in its folder ``checkpoints``.
        keep: how many of the latest stay.
        channel: the messages between the processes of the run (``cluster.channel.Channel``).

    Raises DiskFailed if the directory cannot be written.
    """

    def __init__(self, directory: str | Path, keep: int, channel):
        self.channel = channel
        self.directory = Path(directory).resolve()
        self.folder, self.keep = self.directory / CHECKPOINTS, keep
        self._pinned: PinnedFolder | None = None  # the folder, on process 0
        self._last: tuple[int, dict[str, str]] | None = None  # number and digests of the last save or restore
        self._on_process_zero(self._open)

    def save(self, number: int, tree: Mapping[str, np.ndarray | jax.Array], note: str = "") -> bool:
        """Write a whole state. number: transitions of the run so far; tree: name -> array, the same on every process;
        note: a text that is saved with the state, of process 0. Another note does not make another state.

        Returns False, and writes nothing, if this very state was the last one saved or restored. Another state of the
        same number (the run continues with other output times) replaces the older one when it is complete itself.
        Raises RunFailed if the processes hold different states, DiskFailed if the disk refuses.
        """
        arrays = {name: np.asarray(value) for name, value in tree.items()}
        digests = {name: digest(array) for name, array in arrays.items()}
        _require_agreement(self.channel, digests, position(arrays) or f"transition {number}")
        if self._last == (number, digests) and self._on_process_zero(lambda: self._path(number).is_dir()):
            return False
        entry = np.frombuffer(note.encode(), np.uint8)
        self._on_process_zero(lambda: self._write(number, arrays | {NOTE: entry}, digests | {NOTE: digest(entry)}))
        self._last = number, digests
        return True

    def restore_latest(self, template: dict) -> Restored | None:
        """The newest readable state, bit for bit and the same on every process; None if none was ever saved.

        template: a state with the expected names, dtypes and shapes; its values do not matter, and neither does the
        shape of an array without elements, which stands for what not every state has. A damaged checkpoint is moved to
        unreadable_checkpoints/, with a message, and the one before is tried.

        Raises RunFailed if there are checkpoints and none can be read, or if they hold another kind of state.
        """
        numbers = self._on_process_zero(self._numbers)
        damage: dict[int, str] = {}
        for number in reversed(numbers):
            tree, problem = self._read(number)
            problem = _of_any_process(self.channel, problem)
            if not problem:
                note = tree.pop(NOTE, NO_NOTE).tobytes().decode()
                _require_kind(tree, template, self._name(number))
                return self._accept(tree, number, damage)._replace(note=note)
            damage[number] = problem
        if numbers:
            newest = numbers[-1]
            raise RunFailed(
                f"none of the {len(numbers)} checkpoints in {self.folder} can be read ({self._name(newest)}: "
                f"{damage[newest]}); restore the folder from a copy, or start a new run"
            )
        return None

    def trees(self) -> Iterator[dict[str, np.ndarray]]:
        """All states that every process can read, the newest first, and one at a time in memory."""
        for number in reversed(self._on_process_zero(self._numbers)):
            tree, problem = self._read(number)
            if not _of_any_process(self.channel, problem):
                tree.pop(NOTE, None)
                yield tree

    def _accept(self, tree: dict[str, np.ndarray], number: int, damage: dict[int, str]) -> Restored:
        self._last = number, {name: digest(array) for name, array in tree.items()}
        where = position(tree) or f"transition {number}"
        return Restored(tree, number, self._on_process_zero(lambda: self._set_aside(damage, where)), "")

    # On process 0 ---------------------------------------------------------------------------------

    def _open(self) -> None:
        require_ours(self.directory)
        self.folder.mkdir(exist_ok=True)
        self._pinned = PinnedFolder(self.folder)
        self._clear()

    def _write(self, number: int, arrays: dict, digests: dict) -> None:
        require_ours(self.directory)
        assert self._pinned is not None
        if self.folder.is_dir() and not self._pinned.is_at(self.folder):
            raise DiskFailed(
                f"{self.folder} has been replaced: nothing can be saved; resume where the old one has gone"
            )
        self._clear()
        self._require_space(SPACE * sum(array.nbytes for array in arrays.values()))
        final, partial = self._path(number), self.folder / f"{number}{PARTIAL}"
        try:
            checkpoint_files.write(self._pinned.path / partial.name, arrays, digests)
            if final.exists():
                final.rename(self.folder / f"{number}{REPLACED}")
            partial.rename(final)
            sync_directory(self.folder)
            for old in self._numbers()[: -self.keep]:  # not before the new one is on the disk
                self._path(old).rename(self.folder / f"{old}{PARTIAL}")
        finally:
            with contextlib.suppress(OSError):  # the next save clears what could not be removed now
                self._clear()

    def _clear(self) -> None:
        """Remove what a failed or killed save has left, and put back a checkpoint that it was about to replace."""
        for entry in list(self.folder.iterdir()):
            final = entry.with_suffix("")
            if entry.suffix == REPLACED and not final.exists():
                entry.rename(final)
            elif entry.suffix in (PARTIAL, REPLACED):
                shutil.rmtree(entry)

    def _numbers(self) -> list[int]:
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())

    def _path(self, number: int) -> Path:
        return self.folder / str(number)

    def _name(self, number: int) -> str:
        """A checkpoint in a message: its step and time, or its number where these are not known."""
        return f"checkpoint of {recorded_position(self._path(number)) or f'transition {number}'}"

    def _require_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < needed + RESERVE:
            text = f"{(needed + RESERVE) / 1e6:.1f} MB needed and {free / 1e6:.1f} MB free on the disk"
            raise OSError(errno.ENOSPC, text)

    def _set_aside(self, damage: dict[int, str], restored: str) -> list[str]:
        """Move damaged checkpoints away. Returns a message for each; restored: where the run continues."""
        messages = []
        for number, problem in sorted(damage.items(), reverse=True):
            message = f"the {self._name(number)} is unreadable ({problem}), moved to {UNREADABLE}/; continuing from "
            messages.append(message + restored)
            target = self.directory / UNREADABLE
            target.mkdir(exist_ok=True)
            copy = 0
            while (target / f"{number}-{copy}").exists():
                copy += 1
            self._path(number).rename(target / f"{number}-{copy}")
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

    def _read(self, number: int) -> tuple[dict[str, np.ndarray], str]:
        """What this process reads of a checkpoint, and what is wrong with it ("" if nothing)."""
        try:
            return retry(self._path(number), lambda: checkpoint_files.read(self._path(number))), ""
        except Exception as error:  # noqa: BLE001  the reading libraries may raise anything on a damaged file
            return {}, _line(error)


def _require_kind(tree: dict, template: dict, name: str) -> None:
    expected = {entry: np.asarray(value) for entry, value in template.items()}
    for entry in sorted(expected.keys() | tree.keys()):
        found, wanted = tree.get(entry), expected.get(entry)
        if found is None or wanted is None or not _same_kind(found, wanted):
            raise RunFailed(
                f"the {name} holds another kind of state: '{entry}' is {_kind(found)}, expected {_kind(wanted)}; "
                "it was written by another version of nivp_dist"
            )


def _same_kind(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.dtype == wanted.dtype and (found.shape == wanted.shape or not found.size or not wanted.size)


def _kind(array: np.ndarray | None) -> str:
    return "absent" if array is None else f"{array.dtype.name} of shape {array.shape}"


def _require_agreement(channel, digests: dict[str, str], where: str) -> None:
    everyone = channel.gather(hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest())
    odd = [str(process) for process, one in enumerate(everyone) if one != everyone[0]]
    if odd:
        raise RunFailed(
            f"processes hold different states at {where} (process {', '.join(odd)} against process 0): nothing "
            "was saved; resume from the checkpoint before, and check the memory and drivers of their hosts"
        )


def _of_any_process(channel, problem: str) -> str:
    """What is wrong with a checkpoint on this process, or else on another: it counts only if all can read it."""
    failed = [index for index, one in enumerate(channel.gather(bool(problem))) if one]
    return problem or (f"unreadable on process {failed[0]}" if failed else "")


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {Path(error.filename).name}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
