"""What the steps of a run have in common, explicit and implicit ones: points, density, and the metrics of both."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.host_numbers import packed
from nivp_dist.backend.mesh import whole_program
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.attempts import Start
from nivp_dist.integration.solver_choice import Discretisation
from nivp_dist.integration.step_points import Present, StepPoints
from nivp_dist.points.mixture import Density
from nivp_dist.points.points import Points, effective_sample_size
from nivp_dist.points.sampling import Sampler
from nivp_dist.run.state import State
from nivp_dist.settings.automatic import number_of_points
from nivp_dist.settings.model import Config


class Accepted(NamedTuple):
    """The state after an accepted step, its metrics (numbers, ready for JSON), and messages to the user: warnings, and
    findings about a run in which nothing fails."""

    state: State
    metrics: dict
    warnings: list[str]
    findings: list[str]


class SingleNumbers(NamedTuple):
    """Of theta and the points, for the metrics.

    Attributes:
        theta_norm: |theta|. effective_sample_size: of the points.
        turn: the cosine of the angle between the velocity and the one before, NaN if there was none.
    """

    theta_norm: Any
    effective_sample_size: Any
    turn: Any


class Stepping(ABC):
    """The base of ``steps.Stepper`` and ``implicit_steps.ImplicitStepper``.

    Attributes:
        direct: a direct solver that may take over from CG, or None.
        earlier: how many solutions before the present one a step starts from.
    """

    direct: Galerkin | None = None
    earlier: int = 0

    def __init__(self, config: Config, galerkin: Galerkin, sampler: Sampler, output_times):
        self.sampling, self.restart, self.output_times = config.sampling, config.restart, output_times
        self._first_is_guessed = config.integrator.initial_step == "auto"
        self.points = StepPoints(config.sampling, sampler, galerkin, config.integrator.t_start)
        self._single_numbers = whole_program(galerkin.mesh, packed(single_numbers), P())

    @abstractmethod
    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step. `poll` is called between its parts and may raise to interrupt."""

    @abstractmethod
    def method(self, state: State) -> str:
        """The name of the method that solves the linear systems of the next step (``galerkin.methods``)."""

    def start(self, state: State) -> Start:
        """Where the next step begins."""
        guessed = self._first_is_guessed and state.step == 0
        return Start(state.theta, state.t, state.h, state.previous_error, state.size_floor, guessed)

    def next_output(self, state: State) -> float:
        """The time of the next output."""
        return self.output_times[min(state.outputs_written, len(self.output_times) - 1)]

    def discretisation(self, state: State) -> Discretisation:
        """Points, key and factor on mu of the step. The points depend on the key, the draw's number and the density."""
        keys = self._keys(state)
        points = self.points.draw(present(state), keys.points, self.number_of_points(state))
        return Discretisation(state.theta, points, keys.sketch, state.mu_adaptation.factor)

    def points_of_check(self, state: State) -> Points:
        """Points on which the step is checked: none of its equations was fitted to them."""
        return self.points.draw_for_check(present(state), self._keys(state).check)

    def _keys(self, state: State) -> random_keys.StepKeys:
        return random_keys.step_keys(state.key, state.step // self.sampling.redraw_every, state.step)

    def number_of_points(self, state: State) -> int:
        """Of a step: sampling.points times the factor of the run."""
        return number_of_points(self.sampling) * state.point_refinement.factor

    def density_after(self, state: State, points: Points, theta, t: float) -> Density:
        """The density for the next draw, by the new theta at time t; it stays while points are kept."""
        if (state.step + 1) % self.sampling.redraw_every != 0:
            return state.density
        return self.points.follow(state.density, points, theta, t)


def present(state: State) -> Present:
    """What the points of the next step are drawn for."""
    return Present(state.theta, state.t, state.velocity, state.density, state.initial_density)


def single_numbers(theta, velocity, before, weights) -> SingleNumbers:
    """Those of theta (p,) after a step, its velocity and the one before (p,), and the weights of its points."""
    turn = jnp.vdot(velocity, before) / (jnp.linalg.norm(velocity) * jnp.linalg.norm(before))
    return SingleNumbers(jnp.linalg.norm(theta), effective_sample_size(weights), turn)
