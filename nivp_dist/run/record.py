"""What a run leaves behind: checkpoints, metrics, events, snapshots, the summary. Process 0 writes files;
checkpoints are saved by all."""

import hashlib
import time
from pathlib import Path

import jax
import numpy as np

from nivp_dist.backend.mesh import to_host
from nivp_dist.cluster import channel
from nivp_dist.cluster.compile_clock import CompileClock
from nivp_dist.errors import RunFailed
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import PHASE_NAMES, State, from_tree, to_tree
from nivp_dist.settings.files import config_hash
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory, snapshots
from nivp_dist.storage.checkpoints import Checkpoints
from nivp_dist.storage.files import persist
from nivp_dist.storage.lock import require_ours
from nivp_dist.storage.metrics import EVENTS, METRICS, Lines, read_tail


class Record:
    """The run directory of a run in progress. Wall time is told here, and decides nothing."""

    def __init__(self, config: Config, directory: Path, simulation: Simulation, clock: CompileClock):
        self.config, self.directory, self.simulation, self.clock = config, Path(directory), simulation, clock
        self.writes = jax.process_index() == 0
        self.checkpoints = Checkpoints(self.directory, config.checkpoint.keep, channel.current())
        self.metrics, self.events = Lines(self.directory / METRICS), Lines(self.directory / EVENTS)
        self._started = time.monotonic()
        previous = (run_directory.read_summary(self.directory) or {}) if self.writes else {}
        self.began = bool(previous)  # whether the run was ever started; process 0 only
        self._reached = previous.get("transitions") or 0  # the last checkpoint that was told of
        self._earlier = float(previous.get("wall_seconds") or 0.0)
        self._compiled_earlier = float(previous.get("compile_seconds") or 0.0)
        self._hash = np.frombuffer(hashlib.sha256(config_hash(config).encode()).digest(), np.uint8)
        self.outputs: dict[float, dict] = {}  # t -> what the summary says of it

    def save(self, state: State) -> bool:
        """A checkpoint of the whole state; False if it was there already. Every process calls it."""
        for lines in (self.metrics, self.events):  # what is before the checkpoint must be there when it is
            self._write(lines.path.name, lines.sync)
        return self.checkpoints.save(state.transitions, to_tree(state) | {"config_hash": self._hash})

    def restore(self) -> tuple[State, list[str]] | None:
        """The newest checkpoint that can be read, with what was wrong with newer ones; None if there is none.

        Metrics and events after it are cut off: they will be written again. Raises RunFailed if there is none any
        more, or if a file of the run is damaged.
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
            # By transitions: several events of a fit or an output share a step.
            self._write(EVENTS, lambda: self.events.truncate_to(state.transitions, key="transitions"))
            self._write(snapshots.FOLDER, lambda: self._read_outputs(state.t))
        except ValueError as error:
            raise RunFailed(f"{error}: it is damaged; move it away, and resume without it") from None
        return state, messages

    def step(self, metrics: dict) -> dict:
        """One accepted step: the metrics with the wall time, as written."""
        metrics = metrics | {"wall_seconds": round(self.wall_seconds, 3)}
        self._write(METRICS, lambda: self.metrics.append(metrics))
        return metrics

    def event(self, state: State, kind: str, message: str) -> None:
        """Something worth a line in events.jsonl. state: the one after the transition that it belongs to."""
        line = {"step": state.step, "t": state.t, "transitions": state.transitions, "kind": kind, "message": message}
        self._write(EVENTS, lambda: self.events.append(line))

    def output(self, state: State, score) -> None:
        """The snapshot of an output time, with its score. It replaces one from before a crash."""
        density = {f"density_{name}": to_host(value) for name, value in state.density._asdict().items()}
        arrays = {"theta": to_host(state.theta), "step": state.step}
        arrays |= density | score.arrays() | state.estimate.entries()
        self.outputs[state.t] = _entry(state.t, arrays)
        self._write(snapshots.FOLDER, lambda: snapshots.save(self.directory, state.t, arrays))

    def summary(self, state: State, status: str, message: str = "", **more) -> dict:
        """Write summary.json and return it. more: what else there is to say of this status."""
        simulation, config = self.simulation, self.config
        summary = {
            "status": status,
            "message": message,
            "phase": PHASE_NAMES[state.phase],
            "problem": config.problem.name or config.problem.class_,
            "t": state.t,
            "t_end": config.integrator.t_end,
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
            "compile_seconds": round(self._compiled_earlier + self.clock.seconds, 3),  # a part of them
            "versions": run_directory.versions(),
        } | more
        self._write(run_directory.SUMMARY, lambda: run_directory.write_summary(self.directory, summary))
        return summary

    @property
    def wall_seconds(self) -> float:
        """Of this run, over all its resumes."""
        return self._earlier + time.monotonic() - self._started

    # On process 0 alone ---------------------------------------------------------------------------

    def _write(self, name: str, action) -> None:
        """A refusal is known to process 0 alone: nothing collective may follow it."""

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
        """A run without checkpoints begins again only if it had come nowhere."""
        steps, events = (read_tail(self.directory / name) for name in (METRICS, EVENTS))
        if self.writes and (self._reached or steps or any(event.get("transitions") for event in events)):
            at = f"t = {steps[-1]['t']:g}" if steps else "its initial fit"
            raise RunFailed(
                f"{self.checkpoints.folder} is empty, and the run had come to {at}: restore the folder from a copy, "
                "or start a new run"
            )


def _entry(t: float, arrays: dict) -> dict:
    """What the summary says of a snapshot: its errors, and the conserved integrals with their standard errors."""
    always, densities, prefix = ("relative_l2", "estimate"), ("relative_l2_normalised", "log_rms"), "invariant_"
    numbers = {name: float(arrays.get(name, np.nan)) for name in (*always, *densities)}
    known = {name: value for name, value in numbers.items() if not np.isnan(value)}
    invariants = {key[len(prefix) :]: np.asarray(arrays[key]).tolist() for key in arrays if key.startswith(prefix)}
    return {"t": t} | dict.fromkeys(always) | known | ({"invariants": invariants} if invariants else {})
