"""The files of a run in progress: checkpoints, metrics, events, snapshots, the summary. All processes save checkpoints,
process 0 writes everything else."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from nivp_dist.backend.mesh import to_host
from nivp_dist.cluster import channel
from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.errors import RunFailed
from nivp_dist.problems.base import output_names
from nivp_dist.run import environment
from nivp_dist.run.history import History, missing_steps, times
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import EVOLVE, FINISHED, PHASE_NAMES, State, from_tree, to_tree
from nivp_dist.run.stored import DENSITY_ERRORS, session_class
from nivp_dist.run.view import density_arrays
from nivp_dist.settings.files import CHANGEABLE, RECORD, all_settings, changed_keys, config_hash, value_of
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.checkpoints import Checkpoints
from nivp_dist.storage.files import persist, read_back
from nivp_dist.storage.lock import require_ours
from nivp_dist.storage.metrics import EVENTS, METRICS, Lines, iterate, read_tail

Result = TypeVar("Result")


class Record:
    """The run directory of a run in progress. It measures wall time, which decides nothing in the run.

    Attributes:
        writes: whether this is process 0. began: whether the run was started before; known to process 0 only.
        outputs: t -> the entry of that output time in the summary. abandoned: times of the snapshots that were removed
        at a resume, because they lay after the checkpoint; known to process 0 only. lost: times of those that are gone;
        known to process 0 only. environment_change, settings_change: what has changed of them since the checkpoint, in
        words; '' if nothing. callbacks: what the callbacks remember (``run.callbacks``), as checkpoints hold it.
    """

    def __init__(self, config: Config, directory: Path, simulation: Simulation, clock: CompileClock):
        self.config, self.directory, self.simulation, self.clock = config, Path(directory), simulation, clock
        self.writes = jax.process_index() == 0
        self.checkpoints = Checkpoints(self.directory, config.checkpoint.keep, channel.current())
        self.metrics, self.events = Lines(self.directory / METRICS), Lines(self.directory / EVENTS)
        self._started = time.monotonic()
        summary = self.directory / run_directory.SUMMARY
        previous = read_back(summary, lambda: run_directory.readable_summary(self.directory)) if self.writes else {}
        self.began = self.writes and summary.exists()
        self._summary_damaged = self.began and not previous
        self._reached = previous.get("transitions") or 0  # transitions at the last checkpoint of which the summary says
        self._earlier = float(previous.get("wall_seconds") or self._logged_wall_seconds())
        self._compiled_earlier = float(previous.get("compile_seconds") or 0.0)
        self._settings = all_settings(config)
        self._hash = np.frombuffer(hashlib.sha256(config_hash(config).encode()).digest(), np.uint8)
        self.environment = environment.describe(simulation.mesh)
        self.environment_change = self.settings_change = ""
        self.callbacks: dict[str, list] = {}
        self.outputs: dict[float, dict] = {}
        self.abandoned: set[float] = set()
        self.lost: set[float] = set()
        self._digests: dict[float, str] = {}  # output time -> digest of its snapshot

    def save(self, state: State) -> bool:
        """Save a checkpoint of the state. False if it was there already. Every process calls it."""
        for lines in (self.metrics, self.events):  # lines from before the checkpoint must be on the disk before it is
            self._write(lines.path.name, lines.sync)
        history = self._write(run_directory.CHECKPOINTS, self._history)
        note = history.to_text() if history is not None else ""
        return self.checkpoints.save(state.transitions, to_tree(state) | {"config_hash": self._hash}, note)

    def restore(self) -> tuple[State, list[str]] | None:
        """The state of the newest checkpoint that can be read, with messages on damaged ones; None if there is none.

        Lines of metrics and events after it, and later snapshots, are removed, because the run will write them again.
        What the run had written before the checkpoint is compared with what the checkpoint records of it, and what is
        gone is named in a message; snapshots of states that are still there are made again.

        Raises RunFailed if the checkpoints of the run have been lost, or belong to another configuration.
        """
        template = to_tree(self.simulation.blank()) | {"config_hash": self._hash}
        found = self.checkpoints.restore_latest(template)
        if found is None:
            self._require_no_progress()
            return None
        tree, history = found.tree, History.from_text(found.note)
        if not np.array_equal(tree.pop("config_hash"), self._hash):
            raise RunFailed(self._other_configuration(history))
        state = from_tree(tree, self.simulation.mesh)
        self.callbacks.update(history.callbacks)
        self.environment_change = environment.change(history.environment, self.environment)
        self.settings_change = self._change_of_settings(history)
        losses = self._cut_lines(history, state) + self._restore_outputs(history, state.t)
        if self._summary_damaged:
            losses.append("summary.json was damaged and is made anew, without the compile_seconds so far")
        lost = [f"damage to the files in {self.directory}: {'; '.join(losses)}"] if losses else []
        return state, found.messages + lost

    def step(self, metrics: dict) -> dict:
        """Write the metrics of an accepted step. Returns them with the wall time, as written."""
        metrics = metrics | {"wall_seconds": round(self.wall_seconds, 3)}
        self._write(METRICS, lambda: self.metrics.append(metrics))
        return metrics

    def event(self, state: State, kind: str, message: str) -> None:
        """Write a line of events.jsonl. state: after the transition that the event belongs to."""
        line = {"step": state.step, "t": state.t, "transitions": state.transitions, "kind": kind, "message": message}
        self._write(EVENTS, lambda: self.events.append(line))

    def output(self, state: State, score) -> None:
        """Write the snapshot of an output time with its score, in place of one from before a crash."""
        arrays = {"theta": to_host(state.theta), "step": state.step}
        arrays |= density_arrays(state.density) | score.arrays() | state.estimate.entries()
        self.outputs[state.t] = _entry(state.t, arrays)

        def save():
            self._digests[state.t] = snapshots.digest(snapshots.save(self.directory, state.t, arrays))

        self._write(snapshots.FOLDER, save)

    def summary(self, state: State, status: str, message: str = "", **more) -> dict:
        """Write summary.json and return it. more: further entries, which some statuses have."""
        simulation, config = self.simulation, self.config
        summary = {
            "status": status,
            "message": message,
            "phase": PHASE_NAMES[state.phase],
            "problem": config.problem.name or config.problem.class_,
            "session_class": session_class(config.problem),
            "t": state.t,
            "t_end": config.integrator.t_end,
            "output_names": list(output_names(simulation.problem)),
            "errors": [entry for _, entry in sorted(self.outputs.items())],
            "steps": state.step,
            "transitions": state.transitions,
            "rejected": state.rejected,
            "velocity_evaluations": state.evaluations,
            "cg_iterations": state.cg_iterations,
            "refits": state.refits,
            "parameters": simulation.network.size,
            "points": simulation.stepper.number_of_points(state),
            "devices": simulation.mesh.size,
            "device": simulation.mesh.devices.flat[0].device_kind,
            "processes": jax.process_count(),
            "solver": simulation.stepper.method(state),
            "wall_seconds": round(self.wall_seconds, 3),
            "compile_seconds": round(self._compiled_earlier + self.clock.seconds, 3),  # contained in wall_seconds
            "versions": run_directory.versions(),
        } | more
        self._write(run_directory.SUMMARY, lambda: run_directory.write_summary(self.directory, summary))
        return summary

    @property
    def wall_seconds(self) -> float:
        """Wall time of this run, over all its resumes."""
        return self._earlier + time.monotonic() - self._started

    @property
    def resume_command(self) -> str:
        """What the user types to continue the run."""
        return run_directory.resume_command(self.directory, session_class(self.config.problem))

    # On process 0 alone ---------------------------------------------------------------------------

    def _write(self, name: str, action: Callable[[], Result]) -> Result | None:
        """The result of action(), which writes to the file of that name; None on the other processes.

        Raises DiskFailed, on process 0 alone, if it cannot.
        """

        def write():
            require_ours(self.directory)
            return action()

        return persist(self.directory / name, write) if self.writes else None

    def _history(self) -> History:
        marks = self.metrics.mark(), self.events.mark()
        return History(*marks, self._digests, self._settings, self.environment, self.callbacks)

    def _tail(self, name: str) -> list[dict]:
        path = self.directory / name
        return read_back(path, lambda: read_tail(path))

    def _logged_wall_seconds(self) -> float:
        """The wall time at the last step, for a run whose summary is gone."""
        lines = self._tail(METRICS) if self.writes else []
        return next((line["wall_seconds"] for line in reversed(lines) if line.get("wall_seconds")), 0.0)

    def _cut_lines(self, history: History, state: State) -> list[str]:
        """Remove the lines after the checkpoint. Returns what is wrong with those before it."""
        metrics_whole = self._write(METRICS, lambda: self.metrics.cut_back(history.metrics, state.step))
        # Events by transitions, because several of them, in a fit or at an output, belong to one step.
        last = state.transitions
        events_whole = self._write(EVENTS, lambda: self.events.cut_back(history.events, last, key="transitions"))
        losses = []
        if metrics_whole is False:
            gone = missing_steps(iterate(self.metrics.path), state.step)
            # The digest is that of all lines together: it does not say which of them are as they were.
            left = gone != missing_steps([], state.step)
            rest = ", numbers in the others may have been changed" if left else ""
            what = f"the lines of {gone} are gone{rest}" if gone else "numbers in it were changed"
            losses.append(f"{METRICS} is not what the run had written, {what}")
        if events_whole is False:
            losses.append(f"{EVENTS} is not what the run had written, events are gone or changed")
        return losses

    def _restore_outputs(self, history: History, t: float) -> list[str]:
        """Read the snapshots up to t, and make those again that are gone and can be made. Every process calls it.

        Returns what is gone.
        """
        self._write(snapshots.FOLDER, lambda: self._read_outputs(history, t))
        gone = channel.current().broadcast([time for time in history.snapshots if time not in self.outputs])
        again = self._compute_again(gone) if gone else []
        lost = [time for time in gone if time not in again]
        self.lost = set(lost)
        losses = [f"the snapshots of {times(lost)} are gone or damaged"] if lost else []
        return losses + ([f"the snapshots of {times(again)} were computed again from checkpoints"] if again else [])

    def _read_outputs(self, history: History, t: float) -> None:
        for path in sorted((self.directory / snapshots.FOLDER).glob("t_*.npz")):
            try:
                arrays = snapshots.load(path)
                time, digest = float(arrays["t"]), snapshots.digest(path)
            except (ValueError, KeyError):
                snapshots.set_aside(path)
                continue
            if time > t:
                path.unlink()
                self.abandoned.add(time)
            elif history.snapshots.get(time, digest) != digest:
                snapshots.set_aside(path)
            else:
                self.outputs[time], self._digests[time] = _entry(time, arrays), digest

    def _compute_again(self, gone: list[float]) -> list[float]:
        """Make the snapshots of output times at which a checkpoint stands. Returns these times. Collective."""
        again: list[float] = []
        for tree in self.checkpoints.trees():
            state = from_tree(tree, self.simulation.mesh)
            if state.t in gone and state.t not in again and _has_theta_of_output(state):
                number = self.simulation.outputs_before(state.t)  # it decides the points at which errors are measured
                self.output(state, self.simulation.score(state._replace(outputs_written=number)))
                again.append(state.t)
        return sorted(again)

    def _other_configuration(self, history: History) -> str:
        changed = changed_keys(history.settings, self._settings)
        keys = [key for key in changed if key not in CHANGEABLE and not key.startswith("callbacks.")]
        had = {key: value_of(history.settings, key) for key in keys}
        had |= dict.fromkeys(("problem.file", "network.file"), "other contents")
        words = [f"{key} (the run had {had[key]})" for key in keys]
        where = f"{self.directory / RECORD}: another configuration than that of its checkpoints"
        return f"{where}: {', '.join(words)}; put it back, and resume"

    def _change_of_settings(self, history: History) -> str:
        before, now = history.settings, self._settings
        words = [f"{key} {value_of(before, key)} -> {value_of(now, key)}" for key in changed_keys(before, now)]
        return ", ".join(words)

    def _require_no_progress(self) -> None:
        """A run without checkpoints may begin again only if it had made no transition."""
        steps, events = self._tail(METRICS), self._tail(EVENTS)
        if self.writes and (self._reached or steps or any(event.get("transitions") for event in events)):
            at = f"step {steps[-1]['step']}, t = {steps[-1]['t']:g}" if steps else "its initial fit"
            raise RunFailed(
                f"{self.checkpoints.folder} is empty, and the run had come to {at}: restore the folder from a copy, "
                "or start a new run"
            )


def _entry(t: float, arrays: dict) -> dict:
    """The entry of a snapshot in the summary: its errors, and conserved integrals with their standard errors."""
    always, prefix = ("relative_l2", "estimate", "estimate_bound"), "invariant_"
    numbers = {name: float(arrays.get(name, np.nan)) for name in (*always, *DENSITY_ERRORS)}
    known = {name: value for name, value in numbers.items() if not np.isnan(value)}
    invariants = {key[len(prefix) :]: np.asarray(arrays[key]).tolist() for key in arrays if key.startswith(prefix)}
    if not np.isnan(numbers["relative_l2"]):
        known["compared_outputs"] = int(arrays.get("compared_outputs", 0))
    return {"t": t} | dict.fromkeys(always) | known | ({"invariants": invariants} if invariants else {})


def _has_theta_of_output(state: State) -> bool:
    """Whether theta is still that of the output at this t: a refit at the same t, which replaces it, comes after it."""
    return state.phase in (EVOLVE, FINISHED) and (state.step == 0 or state.fit_step < state.step)
