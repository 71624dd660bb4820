"""What the steps of a run have in common, explicit and implicit ones: points, density, and the metrics of both."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from nivp_dist.backend import random_keys
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
        self.single_numbers = whole_program(galerkin.mesh, _single_numbers)

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
        draw, run = state.step // self.sampling.redraw_every, state.run_key
        key = random_keys.step_points_key(run, draw)
        points = self.points.draw(present(state), key, self.number_of_points(state))
        sketch = random_keys.step_sketch_key(run, state.step)
        return Discretisation(state.theta, points, sketch, state.mu_adaptation.factor)

    def points_of_check(self, state: State) -> Points:
        """Points on which the step is checked: none of its equations was fitted to them."""
        return self.points.draw_for_check(present(state), random_keys.step_check_key(state.run_key, state.step))

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


def _single_numbers(theta, velocity, before, weights) -> dict:
    """Single numbers of theta and the points; turn: the cosine of the angle between the velocity and the one before,
    NaN if there was none."""
    return {
        "theta_norm": jnp.linalg.norm(theta),
        "effective_sample_size": effective_sample_size(weights),
        "turn": jnp.vdot(velocity, before) / (jnp.linalg.norm(velocity) * jnp.linalg.norm(before)),
    }
