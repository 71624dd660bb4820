"""One accepted step of a run, from State to State. The numerics are in ``integration``; its effects on what the run
monitors are in ``run.observation``."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.errors import RunFailed
from nivp_dist.fitting.restart import step_end
from nivp_dist.galerkin.norms import ResidualCheck
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.attempts import Integrator, Start, Taken
from nivp_dist.integration.solver_choice import Discretisation, LastStep, SolverChoice, System
from nivp_dist.integration.stability import stiffness
from nivp_dist.integration.stages import Stages
from nivp_dist.integration.step_points import Present, StepPoints
from nivp_dist.points.mixture import Density
from nivp_dist.points.points import effective_sample_size
from nivp_dist.points.sampling import Sampler
from nivp_dist.run.spectrum import SpectrumWatch
from nivp_dist.run.state import State
from nivp_dist.settings.model import Config


class Accepted(NamedTuple):
    """The state after an accepted step, its metrics (numbers, ready for JSON), and messages to the user: warnings, and
    findings about a run in which nothing fails."""

    state: State
    metrics: dict
    warnings: list[str]
    findings: list[str]


class Stepper:
    """Takes accepted steps for one configuration.

    Args:
        galerkin: the solver of the velocities.
        direct: a direct solver that takes over from CG where that costs less, or None.
    """

    def __init__(
        self, config: Config, galerkin: Galerkin, sampler: Sampler, output_times, direct: Galerkin | None = None
    ):
        self.sampling, self.direct, self.output_times = config.sampling, direct, output_times
        self.restart = config.restart
        self.integrator = Integrator(config.integrator)
        self.points = StepPoints(config.sampling, sampler, galerkin, config.integrator.t_start)
        stages = len(self.integrator.tableau.b)
        self.choice = SolverChoice(galerkin, direct, stages)
        self.spectrum = SpectrumWatch(config, galerkin, stages)
        self._single_numbers, self._motion = jax.jit(_single_numbers), jax.jit(_motion)

    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step. `poll` is called between stages and may raise to interrupt.

        Raises RunFailed when the step size falls below integrator.min_step, when there is no velocity at its start, and
        when the problem's rhs is not finite there.
        """
        at = self.discretisation(state)
        last = last_step(state)
        system = self.choice.system(at, last)
        stages = self._stages(state, system, poll)

        direct_stages = None
        if self.direct is not None and system.galerkin is not self.direct:
            direct_stages = lambda: self._stages(state, self.choice.direct_system(at), poll)  # noqa: E731
        output = self.output_times[min(state.outputs_written, len(self.output_times) - 1)]
        start = Start(state.theta, state.t, state.h, state.previous_error, state.size_floor)
        end = step_end(self.restart, state.fit_t, output)
        taken = self.integrator.take(start, end, stages, last, direct_stages)

        density = self._density_after(state, at, taken)
        check = self._check(state, taken)
        new = self._state_after(state, taken, density, check)
        metrics = self._metrics(state, new, taken, check)
        if self.spectrum.due(state, new.t, output):
            metrics |= self.spectrum.measure(state, taken.stages)
        return Accepted(new, metrics, sorted(set(taken.stages.warnings)), [])

    def method(self, state: State) -> str:
        """The name of the method that solves for the velocities of the next step (``galerkin.methods``)."""
        return self.choice.method(state.rank, self._number_of_points(state))

    # Before the step ------------------------------------------------------------------------------

    def discretisation(self, state: State) -> Discretisation:
        """Points, key and factor on mu of the step. The points depend on the key, the draw's number and the density."""
        draw, run = state.step // self.sampling.redraw_every, state.run_key
        selection = random_keys.residual_selection_key(run, draw) if state.step > 0 else None
        key = random_keys.step_points_key(run, draw)
        points = self.points.draw(_present(state), key, self._number_of_points(state), selection)
        sketch = random_keys.step_sketch_key(run, state.step)
        return Discretisation(state.theta, points, sketch, state.mu_adaptation.factor)

    def _number_of_points(self, state: State) -> int:
        return self.sampling.points * state.point_refinement.factor

    def _stages(self, state: State, system: System, poll) -> Stages:
        """The stages of the step. On the points of the step before, its last stage is the first one, if the pair is
        first-same-as-last and theta has not been replaced by a refit."""
        stages = Stages(system, state.velocity, state.t, poll)
        new_points = state.step % self.sampling.redraw_every == 0
        if self.integrator.tableau.fsal and not new_points and state.step != state.fit_step:
            stages.keep_first(state.theta, state.velocity)
        return stages

    # After the step -------------------------------------------------------------------------------

    def _density_after(self, state: State, at: Discretisation, taken: Taken) -> Density:
        """The density for the next draw; it stays while points are kept."""
        if (state.step + 1) % self.sampling.redraw_every != 0:
            return state.density
        return self.points.follow(state.density, at.points, taken.step.theta)

    def _check(self, state: State, taken: Taken) -> ResidualCheck:
        """The velocity at the start of the step, on points that it was not fitted to."""
        fresh = self.points.draw_for_check(_present(state), random_keys.step_check_key(state.run_key, state.step))
        galerkin, velocity = taken.stages.galerkin, taken.stages.first_velocity
        check = galerkin.check_residual(state.theta, state.t, velocity, fresh)
        if not np.isfinite(float(check.residual)) and (rhs := galerkin.rhs_not_finite(state.theta, state.t, fresh)):
            raise RunFailed(rhs)  # at points where the velocity has not met it
        return check

    def _state_after(self, state: State, taken: Taken, density: Density, check: ResidualCheck) -> State:
        stages, step_error = taken.stages, taken.error * self.integrator.settings.rtol
        residual_rate = float(check.residual_rate)
        if stages.size < state.size_floor:  # the check has divided by |u|, or by one where that is zero
            residual_rate *= (stages.size or 1.0) / state.size_floor
        return state._replace(
            theta=taken.step.theta,
            velocity=taken.step.last if taken.step.last is not None else stages.first_velocity,
            density=density,
            t=float(taken.t),
            h=float(taken.next_h),
            previous_error=float(taken.error),
            step=state.step + 1,
            rank=stages.rank,
            reuse_sketch=stages.reuse,
            rejected=state.rejected + taken.rejected,
            evaluations=state.evaluations + stages.evaluations,
            cg_iterations=state.cg_iterations + stages.iterations,
            estimate=state.estimate.after_step(taken.h, residual_rate, step_error),
        )

    def _metrics(self, state: State, new: State, taken: Taken, check: ResidualCheck) -> dict:
        """A line of metrics.jsonl: numbers that describe the step (guide: files and formats)."""
        stages = taken.stages
        velocities, regularisation = (stages.first_velocity, state.velocity), stages.at_start
        numbers = self._single_numbers(new.theta, *velocities, stages.points.weights)
        metrics = {
            "step": new.step,
            "t": new.t,
            "h": taken.h,
            "error": taken.error * self.integrator.settings.rtol,
            "rejected": taken.rejected,
            "residual": stages.first_residual,
            "residual_fresh": float(check.residual),
            "cg_iterations": stages.iterations,
            "cg_wasted": stages.wasted,
            "cg_residual": stages.worst,
            "evaluations": stages.evaluations,
            "rank": new.rank or None,
            "mu": float(regularisation.mu),
            "trace": float(regularisation.trace),
            "points": self._number_of_points(new),
            "coverage": float(check.coverage),
        }
        numbers = {name: float(value) for name, value in numbers.items()}
        return metrics | numbers | self._bounds(state, taken) | new.estimate.entries()

    def _bounds(self, state: State, taken: Taken) -> dict:
        """What may bound the size of the step: the motion of theta, the change of J, and stability."""
        motion, products = self._motion(state.theta, taken.step.theta, taken.step.velocities)
        met = stiffness(self.integrator.tableau, products)
        return {
            "theta_step": float(motion),
            "jacobian_share": taken.stages.jacobian_share,
            "h_rho": met.h_rho,
            "h_rho_angle": met.angle,
            "h_rho_limit": met.limit,
        }


def last_step(state: State) -> LastStep:
    """What the choice of the solver knows from the steps before."""
    health = state.health if state.step != state.fit_step else None  # else of the network before the refit
    iterations = health.cg_iterations if health is not None else None
    return LastStep(state.step, state.rank, state.reuse_sketch, iterations)


def _present(state: State) -> Present:
    return Present(state.theta, state.t, state.velocity, state.density, state.initial_density)


def _motion(theta, new, velocities):
    """|new - theta|, and the scalar products (s, s) of the velocities at the s stages."""
    stacked = jnp.stack(velocities)
    return jnp.linalg.norm(new - theta), stacked @ stacked.T


def _single_numbers(theta, velocity, before, weights) -> dict:
    """Single numbers of theta and the points; turn: the cosine of the angle between the velocity and the one before,
    NaN if there was none."""
    return {
        "theta_norm": jnp.linalg.norm(theta),
        "effective_sample_size": effective_sample_size(weights),
        "turn": jnp.vdot(velocity, before) / (jnp.linalg.norm(velocity) * jnp.linalg.norm(before)),
    }
