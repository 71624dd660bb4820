"""What a run leaves behind: checkpoints, metrics, events, snapshots, the summary. Process 0 writes files;
checkpoints are saved by all."""

import hashlib
import time
from pathlib import Path

import jax
import numpy as np

from nivp_dist.config import Config
from nivp_dist.errors import RunFailed
from nivp_dist.settings_io import config_hash
from nivp_dist.simulation import Simulation
from nivp_dist.state import PHASE_NAMES, State, from_tree, to_tree
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.checkpoints import Checkpoints
from nivp_dist.storage.metrics import EVENTS, METRICS, Lines


class Record:
    """The run directory of a run in progress. Wall time is told here, and decides nothing."""

    def __init__(self, config: Config, directory: Path, simulation: Simulation):
        self.config, self.directory, self.simulation = config, Path(directory), simulation
        self.writes = jax.process_index() == 0
        self.checkpoints = Checkpoints(self.directory, config.checkpoint.keep)
        self.metrics = Lines(self.directory / METRICS) if self.writes else None
        self.events = Lines(self.directory / EVENTS) if self.writes else None
        self._started = time.monotonic()
        previous = (run_directory.read_summary(self.directory) or {}) if self.writes else {}
        self._earlier = float(previous.get("wall_seconds") or 0.0)
        self._hash = np.frombuffer(hashlib.sha256(config_hash(config).encode()).digest(), np.uint8)
        self.errors: dict[float, float] = {}  # t -> relative L2 error, NaN without a reference

    def save(self, state: State) -> None:
        """A checkpoint of the whole state. Every process calls it."""
        self.checkpoints.save(state.ticks, to_tree(state) | {"config_hash": self._hash})

    def restore(self) -> tuple[State, list[str]] | None:
        """The newest checkpoint that can be read, with what was wrong with newer ones; None if there is none.

        Metrics and events after it are cut off: they will be written again.
        """
        template = to_tree(self.simulation.blank()) | {"config_hash": self._hash}
        found = self.checkpoints.restore_latest(template)
        if found is None:
            return None
        tree, _, messages = found
        if not np.array_equal(tree.pop("config_hash"), self._hash):
            raise RunFailed(f"{self.directory}: its checkpoints belong to another configuration than config.toml")
        state = from_tree(tree, self.simulation.mesh)
        if self.writes:
            self.metrics.truncate_to(state.step)
            # By transitions: several events of a fit or an output share a step.
            self.events.truncate_to(state.ticks, key="ticks")
            for snapshot in snapshots.list_snapshots(self.directory):
                if snapshot.t <= state.t:
                    self.errors[snapshot.t] = float(snapshots.load(snapshot.path)["relative_l2"])
        return state, messages

    def step(self, metrics: dict) -> dict:
        """One accepted step: the metrics with the wall time, as written."""
        metrics = metrics | {"wall_seconds": round(self.wall_seconds, 3)}
        if self.writes:
            self.metrics.append(metrics)
        return metrics

    def event(self, state: State, kind: str, message: str) -> None:
        """Something worth a line in events.jsonl. state: the one after the transition that it belongs to."""
        if self.writes:
            place = {"step": state.step, "t": state.t, "ticks": state.ticks}
            self.events.append(place | {"kind": kind, "message": message})

    def output(self, state: State, score) -> None:
        """The snapshot of an output time, with its score. It replaces one from before a crash."""
        self.errors[state.t] = float(score.relative_l2)
        if self.writes:
            density = {f"density_{name}": np.asarray(value) for name, value in state.density._asdict().items()}
            arrays = {"theta": np.asarray(state.theta), "step": state.step, **density, **score._asdict()}
            snapshots.save(self.directory, state.t, arrays)

    def summary(self, state: State, status: str, message: str = "") -> dict:
        """Write summary.json and return it."""
        simulation, config = self.simulation, self.config
        summary = {
            "status": status,
            "message": message,
            "phase": PHASE_NAMES[state.phase],
            "problem": config.problem.name or config.problem.class_,
            "t": state.t,
            "t_end": config.integrator.t_end,
            "errors": [
                {"t": t, "relative_l2": None if np.isnan(error) else error} for t, error in sorted(self.errors.items())
            ],
            "steps": state.step,
            "rejected": state.rejected,
            "velocity_evaluations": state.evaluations,
            "cg_iterations": state.cg_iterations,
            "refits": state.refits,
            "parameters": simulation.network.size,
            "points": config.sampling.points,
            "devices": simulation.mesh.size,
            "processes": jax.process_count(),
            "solver": simulation.galerkin.method,
            "wall_seconds": round(self.wall_seconds, 3),
            "versions": run_directory.versions(),
        }
        if self.writes:
            run_directory.write_summary(self.directory, summary)
        return summary

    @property
    def wall_seconds(self) -> float:
        """Of this run, over all its resumes."""
        return self._earlier + time.monotonic() - self._started

    def close(self) -> None:
        self.checkpoints.close()
