"""The files of a run in progress: checkpoints, metrics, events, snapshots, the summary. All processes save checkpoints,
process 0 writes everything else."""

import hashlib
import time
from pathlib import Path

import jax
import numpy as np

from nivp_dist.backend.mesh import to_host
from nivp_dist.cluster import channel
from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.errors import RunFailed
from nivp_dist.problems.base import output_names
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import PHASE_NAMES, State, from_tree, to_tree
from nivp_dist.run.stored import session_class
from nivp_dist.settings.files import config_hash
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.checkpoints import Checkpoints
from nivp_dist.storage.files import persist
from nivp_dist.storage.lock import require_ours
from nivp_dist.storage.metrics import EVENTS, METRICS, Lines, read_tail


class Record:
    """The run directory of a run in progress. It measures wall time, which decides nothing in the run.

    Attributes:
        writes: whether this is process 0. began: whether the run was started before; known to process 0 only.
        outputs: t -> the entry of that output time in the summary.
    """

    def __init__(self, config: Config, directory: Path, simulation: Simulation, clock: CompileClock):
        self.config, self.directory, self.simulation, self.clock = config, Path(directory), simulation, clock
        self.writes = jax.process_index() == 0
        self.checkpoints = Checkpoints(self.directory, config.checkpoint.keep, channel.current())
        self.metrics, self.events = Lines(self.directory / METRICS), Lines(self.directory / EVENTS)
        self._started = time.monotonic()
        previous = (run_directory.read_summary(self.directory) or {}) if self.writes else {}
        self.began = bool(previous)
        self._reached = previous.get("transitions") or 0  # transitions at the last checkpoint of which the summary says
        self._earlier = float(previous.get("wall_seconds") or 0.0)
        self._compiled_earlier = float(previous.get("compile_seconds") or 0.0)
        self._hash = np.frombuffer(hashlib.sha256(config_hash(config).encode()).digest(), np.uint8)
        self.outputs: dict[float, dict] = {}

    def save(self, state: State) -> bool:
        """Save a checkpoint of the state. False if it was there already. Every process calls it."""
        for lines in (self.metrics, self.events):  # lines from before the checkpoint must be on the disk before it is
            self._write(lines.path.name, lines.sync)
        return self.checkpoints.save(state.transitions, to_tree(state) | {"config_hash": self._hash})

    def restore(self) -> tuple[State, list[str]] | None:
        """The state of the newest checkpoint that can be read, with messages on damaged ones; None if there is none.

        Lines of metrics and events after it are removed, because the run will write them again. Raises RunFailed if the
        checkpoints of the run have been lost, belong to another configuration, or if another file is damaged.
        """
        template = to_tree(self.simulation.blank()) | {"config_hash": self._hash}
        found = self.checkpoints.restore_latest(template)
        if found is None:
            self._require_no_progress()
            return None
        tree, _, messages = found
        if not np.array_equal(tree.pop("config_hash"), self._hash):
            raise RunFailed(f"{self.directory}: its checkpoints belong to another configuration than config.toml")
        state = from_tree(tree, self.simulation.mesh)
        try:
            self._write(METRICS, lambda: self.metrics.truncate_to(state.step))
            # Events by transitions, because several of them, in a fit or at an output, belong to one step.
            self._write(EVENTS, lambda: self.events.truncate_to(state.transitions, key="transitions"))
            self._write(snapshots.FOLDER, lambda: self._read_outputs(state.t))
        except ValueError as error:
            raise RunFailed(f"{error}: it is damaged; move it away, and resume without it") from None
        return state, messages

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
        density = {f"density_{name}": to_host(value) for name, value in state.density._asdict().items()}
        arrays = {"theta": to_host(state.theta), "step": state.step}
        arrays |= density | score.arrays() | state.estimate.entries()
        self.outputs[state.t] = _entry(state.t, arrays)
        self._write(snapshots.FOLDER, lambda: snapshots.save(self.directory, state.t, arrays))

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
            "points": config.sampling.points,
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

    def _write(self, name: str, action) -> None:
        """Call action(), which writes to the file of that name. Raises DiskFailed, on process 0 alone, if it cannot."""

        def write():
            require_ours(self.directory)
            action()

        if self.writes:
            persist(self.directory / name, write)

    def _read_outputs(self, t: float) -> None:
        for snapshot in snapshots.list_snapshots(self.directory):
            if snapshot.t <= t:
                self.outputs[snapshot.t] = _entry(snapshot.t, snapshots.load(snapshot.path))

    def _require_no_progress(self) -> None:
        """A run without checkpoints may begin again only if it had made no transition."""
        steps, events = (read_tail(self.directory / name) for name in (METRICS, EVENTS))
        if self.writes and (self._reached or steps or any(event.get("transitions") for event in events)):
            at = f"step {steps[-1]['step']}, t = {steps[-1]['t']:g}" if steps else "its initial fit"
            raise RunFailed(
                f"{self.checkpoints.folder} is empty, and the run had come to {at}: restore the folder from a copy, "
                "or start a new run"
            )


def _entry(t: float, arrays: dict) -> dict:
    """The entry of a snapshot in the summary: its errors, and conserved integrals with their standard errors."""
    always, densities, prefix = ("relative_l2", "estimate"), ("relative_l2_normalised", "log_rms"), "invariant_"
    numbers = {name: float(arrays.get(name, np.nan)) for name in (*always, *densities)}
    known = {name: value for name, value in numbers.items() if not np.isnan(value)}
    invariants = {key[len(prefix) :]: np.asarray(arrays[key]).tolist() for key in arrays if key.startswith(prefix)}
    if not np.isnan(numbers["relative_l2"]):
        known["compared_outputs"] = int(arrays.get("compared_outputs", 0))
    return {"t": t} | dict.fromkeys(always) | known | ({"invariants": invariants} if invariants else {})
