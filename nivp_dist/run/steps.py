"""One accepted explicit step of a run, from State to State. The numerics are in ``integration``; its effects on what
the run monitors are in ``run.observation``."""

import math
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.host_numbers import pack
from nivp_dist.backend.mesh import to_host, whole_program
from nivp_dist.errors import RunFailed
from nivp_dist.fitting.restart import step_end
from nivp_dist.galerkin.norms import ResidualCheck
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.attempts import Integrator, Taken
from nivp_dist.integration.solver_choice import Discretisation, LastStep, SolverChoice, System
from nivp_dist.integration.stability import stiffness
from nivp_dist.integration.stages import StageFailed, Stages
from nivp_dist.points.mixture import Density
from nivp_dist.points.sampling import Sampler
from nivp_dist.run.spectrum import SpectrumWatch
from nivp_dist.run.state import State
from nivp_dist.run.stepping import Accepted, SingleNumbers, Stepping, present, single_numbers
from nivp_dist.settings.model import Config


class Described(NamedTuple):
    """An accepted step in numbers.

    Attributes:
        check, single: see there; check is of the velocity at the start. mu, trace: of the start too.
        motion: |theta after it - theta before it|. products: (s, s), of the velocities at its s stages, as scalars.
    """

    check: ResidualCheck
    single: SingleNumbers
    mu: float
    trace: float
    motion: float
    products: np.ndarray

    @classmethod
    def of(cls, vector: np.ndarray) -> "Described":
        """From one vector, in which the host reads all of them at once."""
        numbers = iter(vector.tolist())
        check = ResidualCheck._make(islice(numbers, len(ResidualCheck._fields)))
        single = SingleNumbers._make(islice(numbers, len(SingleNumbers._fields)))
        mu, trace, motion, *products = numbers
        return cls(check, single, mu, trace, motion, np.array(products).reshape(2 * (math.isqrt(len(products)),)))


class Stepper(Stepping):
    """Takes accepted explicit steps for one configuration.

    Args:
        galerkin: the solver of the velocities.
        direct: a direct solver that takes over from CG where that costs less, or None.
    """

    def __init__(
        self, config: Config, galerkin: Galerkin, sampler: Sampler, output_times, direct: Galerkin | None = None
    ):
        super().__init__(config, galerkin, sampler, output_times)
        self.direct = direct
        self.integrator = Integrator(config.integrator)
        stages = len(self.integrator.tableau.b)
        self.choice = SolverChoice(galerkin, direct, stages)
        self.spectrum = SpectrumWatch(config, galerkin, stages)
        self._describe = whole_program(galerkin.mesh, _describe, P())

    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step. `poll` is called between stages and may raise to interrupt.

        Raises RunFailed when the step size falls below integrator.min_step, when there is no velocity at its start, and
        when the problem's rhs is not finite there.
        """
        at, last, pilot = self.discretisation(state), last_step(state), None
        if self.sampling.method == "residual":
            at, pilot = self._where_residual_is_large(state, at, last, poll)
        system = self.choice.system(at, last)
        stages = self._stages(state, system, poll)
        if pilot is not None:
            stages.begin_after(pilot)

        direct_stages = None
        if self.direct is not None and system.galerkin is not self.direct:
            direct_stages = lambda: self._stages(state, self.choice.direct_system(at), poll)  # noqa: E731
        start = self.start(state)
        end = step_end(self.restart, state.fit_t, self.next_output(state))
        taken = self.integrator.take(start, end, stages, last, direct_stages)

        density = self.density_after(state, at.points, taken.step.theta, taken.t)
        found = self._described(state, taken)
        new = self._state_after(state, taken, density, found.check)
        metrics = self._metrics(new, taken, found)
        if self.spectrum.due(state, new.t, self.next_output(state)):
            metrics |= self.spectrum.measure(state, taken.stages)
        return Accepted(new, metrics, sorted(set(taken.stages.warnings)), [])

    def method(self, state: State) -> str:
        """The name of the method that solves for the velocities of the next step (``galerkin.methods``)."""
        return self.choice.method(state.rank, self.number_of_points(state))

    # Before the step ------------------------------------------------------------------------------

    def _where_residual_is_large(
        self, state: State, at: Discretisation, last: LastStep, poll
    ) -> tuple[Discretisation, Stages]:
        """The step on points that follow the residual of a pilot: of the velocity at its start, on the points of `at`.

        Those follow the residual of the velocity before, or |f| after a fit. On a plain draw the pilot would be a
        worse one where points are wanted most, and its errors between its points would attract the others. Measured
        with Burgers' equation (p = 301, n = 1000, six seeds): the residual of a run is 0.5 to 0.9 of that of runs whose
        points follow the velocity before alone.

        Where there is no pilot, the points of `at` stay: on them the step fails too, or solves directly.
        """
        pilot = Stages(self.choice.system(at, last), state.velocity, state.t, poll)
        try:
            velocity = pilot(state.theta, state.t)
        except StageFailed as failure:
            pilot.warnings.append(f"the points do not follow the residual: {failure}")
            return at, pilot
        key, now = random_keys.residual_points_key(state.run_key, state.step), present(state)
        points = self.points.draw(now._replace(velocity=velocity), key, self.number_of_points(state))
        return at._replace(points=points), pilot

    def _stages(self, state: State, system: System, poll) -> Stages:
        """The stages of the step. On the points of the step before, its last stage is the first one, if the pair is
        first-same-as-last and theta has not been replaced by a refit."""
        stages = Stages(system, state.velocity, state.t, poll)
        new_points = state.step % self.sampling.redraw_every == 0
        if self.integrator.tableau.fsal and not new_points and state.step != state.fit_step:
            stages.keep_first(state.theta, state.velocity)
        return stages

    # After the step -------------------------------------------------------------------------------

    def _described(self, state: State, taken: Taken) -> Described:
        """The step in numbers. The velocity at its start is checked on points that it was not fitted to."""
        fresh, stages = self.points_of_check(state), taken.stages
        galerkin, velocity, shared = stages.galerkin, stages.first_velocity, stages.at_start
        check = galerkin.check_residual(state.theta, state.t, velocity, fresh)
        thetas, velocities = (taken.step.theta, state.theta), (velocity, state.velocity)
        scalars = shared.mu, shared.trace
        vector = self._describe(thetas, velocities, stages.points.weights, taken.step.velocities, scalars, check)
        found = Described.of(to_host(vector))
        residual = found.check.residual
        if not np.isfinite(residual) and (rhs := galerkin.rhs_not_finite(state.theta, state.t, fresh)):
            raise RunFailed(rhs)  # at points where the velocity has not met it
        return found

    def _state_after(self, state: State, taken: Taken, density: Density, check: ResidualCheck) -> State:
        stages, step_error = taken.stages, taken.error * self.integrator.settings.rtol
        residual_rate = check.residual_rate
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

    def _metrics(self, new: State, taken: Taken, found: Described) -> dict:
        """A line of metrics.jsonl: numbers that describe the step (guide: files and formats)."""
        stages = taken.stages
        metrics = {
            "step": new.step,
            "t": new.t,
            "h": taken.h,
            "error": taken.error * self.integrator.settings.rtol,
            "order": self.integrator.tableau.order,
            "implicit": 0,
            "rejected": taken.rejected,
            "residual": stages.first_residual,
            "residual_fresh": found.check.residual,
            "cg_iterations": stages.iterations,
            "cg_wasted": stages.wasted,
            "cg_residual": stages.worst,
            "evaluations": stages.evaluations,
            "rank": new.rank or None,
            "mu": found.mu,
            "trace": found.trace,
            "points": self.number_of_points(new),
            "coverage": found.check.coverage,
        }
        return metrics | found.single._asdict() | self._bounds(taken, found) | new.estimate.entries()

    def _bounds(self, taken: Taken, found: Described) -> dict:
        """What may bound the size of the step: the motion of theta, the change of J, and stability."""
        met = stiffness(self.integrator.tableau, found.products)
        return {
            "theta_step": found.motion,
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


def _describe(thetas, velocities, weights, stages, scalars, check):
    """The vector of ``Described.of``.

    Args:
        thetas: (p,), after the step and before it. velocities: (p,), at its start and before that. stages: (p,) each.
        weights: of the points. scalars: mu and the trace. check: packed.
    """
    (after, before), stacked = thetas, jnp.stack(stages)
    single = single_numbers(after, velocities[0], velocities[1], weights)
    numbers = pack((*single, *scalars, jnp.linalg.norm(after - before)))
    return jnp.concatenate([check, numbers, (stacked @ stacked.T).reshape(-1)])
