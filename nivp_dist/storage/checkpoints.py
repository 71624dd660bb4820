"""Checkpoints of the whole state through Orbax (its only importer), verified array by array when restored.

Orbax makes a save atomic (a step's directory gets its number when all is written) and works over many processes.
Added here: a digest of every array, so that damage is noticed; falling back to the checkpoint before; agreement of
all processes on what was restored; and never starting over silently.
"""

import hashlib
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import LatestN

from nivp_dist.errors import RunFailed

FOLDER = "checkpoints"
UNREADABLE = "unreadable_checkpoints"  # where a damaged one is moved, for whoever wants to look
DISPLACED = ".displaced_checkpoints"  # where one waits until its replacement of the same step is complete
_STATE, _DIGESTS = "state", "digests"

for _name in ("absl", "orbax"):  # a line for every phase of every save would drown the run's own
    logging.getLogger(_name).setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of one run directory. Every process calls every method, in the same order.

    directory: the run's; checkpoints lie in its folder ``checkpoints``, one directory a step.
    keep: how many of the latest stay.
    """

    def __init__(self, directory: str | Path, keep: int):
        self.folder = Path(directory).resolve() / FOLDER
        self._last: tuple[int, dict[str, str]] | None = None  # step and digests of the last save or restore
        self._recover_displaced()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=LatestN(keep),
                enable_async_checkpointing=False,  # when save returns, the checkpoint is there
                cleanup_tmp_directories=True,  # of a save that was killed
                create=True,
            ),
        )

    def save(self, step: int, tree: dict[str, np.ndarray | jax.Array]) -> bool:
        """Write the state under a step, whole. tree: name -> array, the same on every process (replicated).

        Returns False, and writes nothing, if this very state was the last one saved or restored. Another state of
        the same step (the fit goes on at step 0) replaces the older one only when it is complete itself. Raises
        RunFailed if the processes hold different states, or the disk refuses.
        """
        arrays = {name: np.asarray(value) for name, value in tree.items()}
        digests = {name: _digest(array) for name, array in arrays.items()}
        self._require_agreement(digests, step)
        if step in self._steps():
            if self._last == (step, digests):
                return False
            self._displace(step)
        # Orbax does not store arrays without entries: their digest, which spells out shape and dtype, is enough.
        stored = {name: array for name, array in arrays.items() if array.size}
        try:
            # force: Orbax would skip a step below its cached latest, also when that one has been moved away.
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{_STATE: ocp.args.StandardSave(stored), _DIGESTS: ocp.args.JsonSave(digests)}
                ),
                force=True,
            )
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise RunFailed(
                f"the checkpoint of step {step} cannot be written to {self.folder}: {_line(error)}"
            ) from error
        self._recover_displaced()
        self._last = step, digests
        return True

    def restore_latest(self, template: dict) -> tuple[dict[str, np.ndarray], int, list[str]] | None:
        """The newest readable state: (arrays by name, step, messages), or None if none was ever saved.

        template: a state with the names and dtypes expected (values and shapes are not looked at). An unreadable
        checkpoint is moved to unreadable_checkpoints/, said so in the messages, and the one before is tried.
        Arrays come back as numpy, bit for bit, on every process.

        Raises RunFailed if there are checkpoints and none can be read, or they hold another kind of state.
        """
        steps = self._steps()
        problems = {}
        for step in reversed(steps):
            tree, problem = self._read(step)
            problem = _first_over_processes(problem)
            if not problem:
                self._check_template(tree, template, step)
                self._last = step, {name: _digest(array) for name, array in tree.items()}
                return tree, step, self._set_aside(problems, step)
            problems[step] = problem
        if steps:
            newest = problems[steps[-1]]
            raise RunFailed(
                f"none of the {len(steps)} checkpoints in {self.folder} can be read (step {steps[-1]}: {newest}); "
                "restore the folder from a copy, or start a new run"
            )
        return None

    def close(self) -> None:
        """Give back Orbax's threads."""
        self._manager.close()

    def _steps(self) -> list[int]:
        """Steps on the disk as process 0 sees them: Orbax's cache can name a step whose save failed."""
        found = sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())
        if jax.process_count() == 1:
            return found
        count = int(multihost_utils.broadcast_one_to_all(np.int32(len(found))))
        padded = np.resize(np.asarray(found + [0], np.int32), count + 1)
        return [int(step) for step in multihost_utils.broadcast_one_to_all(padded)[:count]]

    def _read(self, step: int) -> tuple[dict, str]:
        """This process's reading of a step, and what is wrong with it ("" if nothing).

        Every process reads for itself, outside Orbax's barriers: one that cannot read must not leave the others
        waiting for it.
        """
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"read{jax.process_index()}",
        )
        try:
            with ocp.Checkpointer(
                ocp.JsonCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone
            ) as reader:
                digests = reader.restore(self.folder / str(step) / _DIGESTS)
            with ocp.Checkpointer(
                ocp.StandardCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone
            ) as reader:
                stored = reader.restore(self.folder / str(step) / _STATE)
            tree = {name: np.asarray(value) for name, value in stored.items()}
            for name, digest in digests.items():
                if name not in tree:
                    tree[name] = _without_entries(digest)
                if _digest(tree[name]) != digest:
                    return {}, f"array '{name}' is damaged"
            if extra := tree.keys() - digests.keys():
                return {}, f"array '{sorted(extra)[0]}' has no digest"
        except Exception as error:  # noqa: BLE001  a damaged file can make the reading libraries raise anything
            return {}, _line(error)
        return tree, ""

    def _check_template(self, tree: dict, template: dict, step: int) -> None:
        # By name: NumPy holds a dtype equal to None if it is float64.
        expected = {name: np.asarray(value).dtype.name for name, value in template.items()}
        found = {name: array.dtype.name for name, array in tree.items()}
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if odd:
            raise RunFailed(
                f"checkpoint of step {step} holds another kind of state: '{odd[0]}' is {found.get(odd[0], 'absent')}, "
                f"expected {expected.get(odd[0], 'absent')}; it was written by another version of nivp_dist"
            )

    def _set_aside(self, problems: dict[int, str], restored: int) -> list[str]:
        messages = []
        for step, problem in sorted(problems.items(), reverse=True):
            if jax.process_index() == 0:
                target = self.folder.parent / UNREADABLE
                target.mkdir(exist_ok=True)
                number = 0
                while (target / f"{step}-{number}").exists():
                    number += 1
                (self.folder / str(step)).rename(target / f"{step}-{number}")
            messages.append(
                f"checkpoint of step {step} is unreadable ({problem}), moved to {UNREADABLE}/; "
                f"continuing from step {restored}"
            )
        if problems:
            _wait_for_all("set aside")
            self._manager.reload()
        return messages

    def _displace(self, step: int) -> None:
        if jax.process_index() == 0:
            (self.folder.parent / DISPLACED).mkdir(exist_ok=True)
            (self.folder / str(step)).rename(self.folder.parent / DISPLACED / str(step))
        _wait_for_all("displace")
        self._manager.reload()

    def _recover_displaced(self) -> None:
        """Drop what has been replaced; put back what a killed save was about to replace."""
        waiting = self.folder.parent / DISPLACED
        if jax.process_index() == 0 and waiting.is_dir():
            for entry in waiting.iterdir():
                if (self.folder / entry.name).exists():
                    shutil.rmtree(entry)
                else:
                    entry.rename(self.folder / entry.name)
            waiting.rmdir()
        _wait_for_all("recover displaced")

    def _require_agreement(self, digests: dict[str, str], step: int) -> None:
        if jax.process_count() == 1:
            return
        mine = np.frombuffer(hashlib.sha256(repr(sorted(digests.items())).encode()).digest(), np.uint8)
        everyone = multihost_utils.process_allgather(mine)
        odd = [str(process) for process, one in enumerate(everyone) if not np.array_equal(one, everyone[0])]
        if odd:
            raise RunFailed(
                f"processes hold different states at step {step} (process {', '.join(odd)} against process 0): nothing "
                "was saved; resume from the checkpoint before, and check the memory and drivers of their hosts"
            )


def _digest(array: np.ndarray) -> str:
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype.str} {','.join(map(str, array.shape))} {content}"


def _without_entries(digest: str) -> np.ndarray:
    """The array of a digest if it has no entries; else one that cannot match: its content is missing."""
    dtype, shape, _ = digest.split(" ")
    shape = tuple(int(length) for length in shape.split(",") if length)
    return np.zeros(shape if 0 in shape else (0,), np.dtype(dtype))


def _first_over_processes(problem: str) -> str:
    """The reading is good only if it is on every process: their common verdict."""
    if jax.process_count() == 1:
        return problem
    failed = multihost_utils.process_allgather(np.asarray(bool(problem)))
    return problem or (f"unreadable on process {int(np.argmax(failed))}" if failed.any() else "")


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
