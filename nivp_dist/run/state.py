"""State: everything that a run is. A checkpoint holds exactly this."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import replicate, to_host
from nivp_dist.fitting.fit import FitState
from nivp_dist.fitting.restart import Health
from nivp_dist.integration.bdf import Multistep
from nivp_dist.integration.switching import Switching
from nivp_dist.monitoring.adaptation import MuAdaptation, PointRefinement
from nivp_dist.monitoring.estimate import Estimate
from nivp_dist.monitoring.signatures import StepHistory
from nivp_dist.points.mixture import Density

FIT, EVOLVE, REFIT, FINISHED = 0, 1, 2, 3
# Plain numbers and small arrays, in no program.
ON_HOST = (Estimate, StepHistory, MuAdaptation, PointRefinement, Multistep, Switching)
PHASE_NAMES = {FIT: "initial fit", EVOLVE: "evolve", REFIT: "refit", FINISHED: "finished"}


class State(NamedTuple):
    """A run between two transitions. Arrays are replicated on the mesh; the rest is plain Python.

    Every random number comes from `key` and counters in here, every decision from the fields in here, so that two runs
    from equal states on equal meshes are equal to the last bit. The preconditioner is left out: it is made anew at
    every step from (theta, points, key).

    A transition is a round of a fit, the end of a fit, the begin of a refit, an accepted step, or an output.
    """

    phase: int
    key: jax.Array  # raw key data, uint32
    theta: jax.Array  # (p,) float64
    velocity: jax.Array  # (p,): the last theta', the first stage of the next step if the points are kept
    earlier: jax.Array  # (k, p): the solution before theta, newest first, for bdf and auto; k = 0 for others
    multistep: Multistep  # step sizes, misfits and the order of such a method
    switching: Switching  # between explicit and implicit steps
    density: Density  # from which the step's points are drawn
    initial_density: Density  # that of t = 0, where paths begin
    fit: FitState  # of the fit in progress; without its arrays (p,) when none is, so that a checkpoint has 2 p numbers
    t: float
    h: float  # for the next attempt, before it is cut to meet an output time
    previous_error: float  # of the last accepted step, relative to the tolerance
    step: int  # accepted steps
    rank: int  # of the sketch that CG is preconditioned with; 0 for direct solves
    reuse_sketch: bool  # whether it paid to use one sketch at all stages of a step
    rejected: int
    evaluations: int
    cg_iterations: int
    refits: int
    refit_attempts: int
    outputs_written: int
    health: Health | None  # at the last accepted step
    baseline: Health | None  # health soon after the last fit or refit attempt, to compare with
    estimate: Estimate  # of the solution's relative error, summed up so far
    history: StepHistory  # the last accepted steps, in which failures are recognised
    mu_adaptation: MuAdaptation  # a factor on solver.mu
    point_refinement: PointRefinement  # a factor on sampling.points
    size_floor: float  # the least |u| that errors are relative to, found at the start
    fit_step: int  # accepted steps at the last fit or refit attempt
    fit_t: float  # and its time t
    transitions: int  # of any kind so far; a checkpoint is named after this number

    def after(self, **changes) -> "State":
        """The state after one more transition."""
        return self._replace(transitions=self.transitions + 1, **changes)

    @property
    def run_key(self):
        """The key of the run, from which ``backend.random_keys`` derives all others."""
        return random_keys.from_data(self.key)


def replicated(state: State, mesh: Mesh) -> State:
    """The state with its arrays on every device of the mesh; the density is there already."""
    arrays = ("key", "theta", "velocity", "earlier", "fit")
    return state._replace(**{name: replicate(getattr(state, name), mesh) for name in arrays})


def to_tree(state: State) -> dict[str, np.ndarray]:
    """The state as a flat dictionary of numpy arrays, as a checkpoint holds it."""
    tree = {}
    for name, value in state._asdict().items():
        if isinstance(value, (Density, FitState, *ON_HOST)):
            tree |= {f"{name}.{part}": to_host(leaf) for part, leaf in value._asdict().items()}
        elif name in ("health", "baseline"):
            tree[name] = np.asarray(value if value is not None else [np.nan] * len(Health._fields), np.float64)
        else:
            tree[name] = to_host(value)
    return tree


def from_tree(tree: dict[str, np.ndarray], mesh: Mesh) -> State:
    """The inverse of ``to_tree``, on any mesh. Raises KeyError if an entry is missing."""

    def group(cls, name):
        return replicate(cls(*(tree[f"{name}.{part}"] for part in cls._fields)), mesh)

    kind: Any  # of a field, as annotated above
    fields: dict[str, Any] = {}
    for name, kind in State.__annotations__.items():
        if kind in (Density, FitState):
            fields[name] = group(kind, name)
        elif kind in ON_HOST:
            parts: dict[str, Any] = {part: np.array(tree[f"{name}.{part}"]) for part in kind._fields}
            fields[name] = kind(**{part: value if value.ndim else value.item() for part, value in parts.items()})
        elif name in ("health", "baseline"):
            numbers = tree[name].tolist()
            fields[name] = None if np.isnan(numbers[0]) else Health(*numbers)
        elif kind is jax.Array:
            fields[name] = replicate(tree[name], mesh)
        else:
            fields[name] = kind(tree[name])
    return State(**fields)
