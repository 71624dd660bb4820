"""What a callback sees of its run, computed from a State on process 0 alone."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nivp_dist.backend.mesh import to_host
from nivp_dist.callbacks import RunView
from nivp_dist.monitoring.evaluation import integral
from nivp_dist.network.network import Network
from nivp_dist.points import densities
from nivp_dist.points.mixture import Density
from nivp_dist.problems.base import Problem
from nivp_dist.run.observables import Estimate, StoredDensity
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import State
from nivp_dist.run.stored_solution import Solution
from nivp_dist.run.window import window_of


class Moment(NamedTuple):
    """When callbacks are called, and with what.

    Attributes:
        name: of the method, one of ``callbacks.callback.MOMENTS``. state: after the transition. before: of a step, the
            state before it. metrics, output, reason: as in ``callbacks.RunView``.
    """

    name: str
    state: State
    before: State | None = None
    metrics: dict[str, Any] = {}
    output: dict[str, Any] = {}
    reason: str = ""


class StateView(RunView):
    """A ``RunView`` for one callback.

    Attributes:
        recorded: the numbers that the callback has recorded. wanted_stop: why it has asked for a stop; ''.
    """

    def __init__(self, moment: Moment, simulation: Simulation, directory: Path, taken: dict[str, float]):
        """taken: the numbers that other callbacks have recorded in this step."""
        self.moment, state = moment.name, moment.state
        self.t, self.t_end, self.step = state.t, simulation.config.integrator.t_end, state.step
        self.problem, self.directory, self.reason = simulation.problem, directory, moment.reason
        self.metrics, self.output = dict(moment.metrics), dict(moment.output)
        self.recorded: dict[str, float] = {}
        self.wanted_stop = ""
        self._network, self._state, self._before, self._taken = simulation.network, state, moment.before, taken

    def solution(self, x) -> np.ndarray:
        return self._solution(x)

    def rate(self, x) -> np.ndarray:
        if self._before is None:
            raise ValueError("the rate is known after a step: call rate in after_step")
        before = self._at(self._before)
        return (self._solution(x) - before(x)) / (self.t - self._before.t)

    def points(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        domain = self.problem.domain
        x, inverse = densities.draw_points(self._snapshot, n, domain=domain)
        inside = domain.contains(x)
        return np.where(inside[:, None], x, domain.centre), np.where(inside, inverse, 0.0) / n

    def expectation(self, f, points: int = 20_000) -> Estimate:
        return StoredDensity(self._snapshot, self._solution, self.problem.domain).expectation(f, points)

    def integrals(self, points: int = 20_000) -> dict[str, tuple[float, float]]:
        x, weights = self.points(points)
        found = {"mass": integral(weights * self._solution(x)[:, 0])} if self.problem.density else {}
        if callable(self.problem.invariants):
            values = _invariants(self._network, self.problem)(to_host(self._state.theta), x, self.t)
            found |= {name: integral(weights * np.asarray(value, np.float64)) for name, value in values.items()}
        return found

    def window(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return window_of(self.problem.domain, self._snapshot)

    def record(self, name: str, value: Any) -> None:
        if self.moment != "after_step":
            raise ValueError("numbers belong to steps: call record in after_step")
        if not name.isidentifier():
            raise ValueError(f"record: {name!r} is no name: letters, digits and underscores")
        if name in self._taken:
            raise ValueError(f"record: {name} was recorded by another callback in this step")
        self.recorded[name] = float(value)

    def stop(self, reason: str) -> None:
        self.wanted_stop = str(reason)

    @functools.cached_property
    def _solution(self) -> Solution:
        return self._at(self._state)

    def _at(self, state: State) -> Solution:
        return Solution(self._network, to_host(state.theta), state.t)

    @functools.cached_property
    def _snapshot(self) -> dict[str, np.ndarray]:
        """The density of the points, as a snapshot has it."""
        return density_arrays(self._state.density)


def density_arrays(density: Density) -> dict[str, np.ndarray]:
    """A density of points as the arrays of a snapshot."""
    return {f"density_{name}": to_host(value) for name, value in density._asdict().items()}


@functools.lru_cache(maxsize=8)
def _invariants(network: Network, problem: Problem) -> Callable:
    """The compiled densities of the problem's invariants: theta (p,), x (n, d), t -> name -> (n,)."""

    def values(theta, x, t):
        u = network.solution(theta, t)
        return jax.vmap(lambda point: problem.invariants(u, point))(x.astype(network.dtype))

    return jax.jit(values)
