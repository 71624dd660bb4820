"""One accepted step of a run of integrator.method = "auto": an explicit or an implicit one, by the state alone.

What decides is in ``integration.switching``; the steps themselves are those of ``steps`` and ``implicit_steps``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.errors import StepTooShort
from nivp_dist.galerkin.implicit_methods import correction_in_velocities
from nivp_dist.galerkin.methods import velocities_work
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.stability import spectral_radius, stability_limit
from nivp_dist.integration.stages import StageFailed, Stages
from nivp_dist.integration.switching import Switching, TakenStep
from nivp_dist.integration.tableaus import TABLEAUS
from nivp_dist.points.sampling import Sampler
from nivp_dist.run.implicit_steps import INTEGRATORS, ImplicitStepper
from nivp_dist.run.state import State
from nivp_dist.run.stepping import Accepted, Stepping
from nivp_dist.run.steps import Stepper, last_step
from nivp_dist.settings.automatic import EXPLICIT_PAIR
from nivp_dist.settings.model import Config

STIFF_ANGLE = 180.0  # degrees, of the eigenvalues of diffusion


class AutoStepper(Stepping):
    """Takes accepted steps by the method of ``State.switching``, which it changes where counted work says so.

    Args:
        galerkin: the solver of the velocities. explicit: takes the explicit steps with it.
    """

    def __init__(self, config: Config, galerkin: Galerkin, sampler: Sampler, output_times, explicit: Stepper):
        super().__init__(config, galerkin, sampler, output_times)
        self.explicit, self.direct = explicit, explicit.direct
        self.network, self.hardware = galerkin.network, galerkin.hardware
        self.rtol, self.min_step = config.integrator.rtol, config.integrator.min_step
        self.implicit = {
            name: ImplicitStepper(config, galerkin, sampler, output_times, name, by_matrix=True) for name in INTEGRATORS
        }
        self.earlier = max(stepper.earlier for stepper in self.implicit.values())
        self._shifted = jax.jit(lambda theta, earlier: jnp.concatenate([theta[None], earlier[:-1]]))

    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step. `poll` is called between its parts and may raise to interrupt.

        Raises RunFailed as the steps themselves do.
        """
        state, measured = self._measured(state, poll)
        state, findings = self._switched(state)
        try:
            taken = (self._implicit if state.switching.method else self._explicit)(state, poll)
        except StepTooShort as failure:
            if state.switching.method:
                raise
            state, findings = self._without_explicit(state)
            taken = self._instead(state, failure, poll)
        switching = state.switching.after_step(self._record(state, taken))
        metrics = taken.metrics | {"evaluations": taken.metrics["evaluations"] + measured}
        return Accepted(taken.state._replace(switching=switching), metrics, taken.warnings, findings)

    def method(self, state: State) -> str:
        """The name of the method that solves the linear systems of the next step."""
        stepper = self.implicit[state.switching.name] if state.switching.method else self.explicit
        return stepper.method(state)

    def _explicit(self, state: State, poll) -> Accepted:
        """An explicit step. The solution at its start becomes one of those that a multistep method would begin with."""
        taken = self.explicit.step(state, poll)
        multistep = state.multistep.after_step(taken.metrics["h"], taken.metrics["error"], 1, 1)
        earlier = self._shifted(state.theta, state.earlier)
        return taken._replace(state=taken.state._replace(earlier=earlier, multistep=multistep))

    def _implicit(self, state: State, poll) -> Accepted:
        """An implicit step. What explicit steps know of their sketch stays, because the matrix needs none."""
        taken = self.implicit[state.switching.name].step(state, poll)
        return taken._replace(state=taken.state._replace(rank=state.rank, reuse_sketch=state.reuse_sketch))

    def _instead(self, state: State, failure: StepTooShort, poll) -> Accepted:
        """An implicit step where no explicit one is possible; where it is not either, the failure of that is told."""
        try:
            return self._implicit(state, poll)
        except StepTooShort:
            raise failure from None

    def _record(self, state: State, taken: Accepted) -> TakenStep:
        """The step in the numbers that decide; state: before it."""
        new, metrics, points = taken.state, taken.metrics, self.number_of_points(state)
        h, evaluations = metrics["h"], metrics["evaluations"]
        if state.switching.method:
            return TakenStep(h, evaluations * self._correction(points))
        method = self.explicit.choice.method(new.rank, points)
        iterations = metrics["cg_iterations"]
        work = velocities_work(method, self.network, points, new.rank, evaluations, iterations, self.hardware)
        residual = (new.estimate.residual - state.estimate.residual) / h  # relative to u, and the fresh one to f
        rate = residual / metrics["residual_fresh"] if metrics["residual_fresh"] > 0 else np.nan
        return TakenStep(h, work, rate, metrics["h_rho"] / h, metrics["h_rho_angle"], metrics["h_rho_limit"])

    def _correction(self, points: int) -> float:
        """The work of a correction on that many points."""
        return correction_in_velocities(self.network, points, self.hardware)

    # Between two methods --------------------------------------------------------------------------

    def _switched(self, state: State) -> tuple[State, list[str]]:
        """The state with the method of the next step, and a message where that is another one.

        The health of a run, and what it adapts to, are those of its method: steps are compared with others of the same
        one only.
        """
        before, correction = state.switching, self._correction(self.number_of_points(state))
        now = before.before_step(state.step, correction, self.rtol)
        if now.method == before.method:
            return state, []
        state = _with(state, now)
        if now.method:
            return state, [f"implicit steps ({now.name}) from here on: stability bounds explicit ones, which cost more"]
        state = state._replace(h=min(state.h, now.explicit_step), previous_error=1.0)
        return state, [f"explicit steps ({EXPLICIT_PAIR}) from here on: implicit ones cost no less"]

    def _without_explicit(self, state: State) -> tuple[State, list[str]]:
        """The state with implicit steps from here on, and a message: no explicit step is accepted."""
        tableau, points = TABLEAUS[EXPLICIT_PAIR], self.number_of_points(state)
        work = velocities_work("primal", self.network, points, 0, len(tableau.b), 0, self.hardware)
        limit = stability_limit(tableau, STIFF_ANGLE)
        now = state.switching.without_explicit(state.step, self.min_step, limit, work)
        text = f"implicit steps ({now.name}) from here on: no explicit step is accepted, down to integrator.min_step"
        return _with(state, now), [text]

    def _measured(self, state: State, poll) -> tuple[State, int]:
        """The state with a new rho where one is due while steps are implicit; and how many velocities that took."""
        if not state.switching.measures(state.step):
            return state, 0
        at = self.explicit.discretisation(state)
        system = self.explicit.choice.system(at, last_step(state._replace(health=None)))
        stages = Stages(system, state.velocity, state.t, poll)
        key = random_keys.stability_direction_key(state.run_key, state.step)
        direction = jax.random.normal(key, state.theta.shape, state.theta.dtype)
        switching = state.switching
        try:
            rho = spectral_radius(lambda theta: stages(theta, state.t), state.theta, direction)
            switching = switching._replace(rho=rho)
        except StageFailed:
            pass  # the rho that is known stays: where there is no velocity, explicit steps are not to be tried
        evaluations = state.evaluations + stages.evaluations
        return state._replace(switching=switching, evaluations=evaluations), stages.evaluations


def _with(state: State, switching: Switching) -> State:
    """The state at the change to another method."""
    return state._replace(
        switching=switching,
        history=state.history.after_fit(),
        health=None,
        baseline=None,
        mu_adaptation=state.mu_adaptation._replace(since=state.step),
    )
