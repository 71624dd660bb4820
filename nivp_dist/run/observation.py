"""What follows from an accepted step: the health of the run, messages to the user, and adapted mu and points.

All of it is a function of the state and the metrics of the step, so that a resumed run does the same.
"""

import numpy as np

from nivp_dist.fitting.restart import Health
from nivp_dist.monitoring.advice import with_values
from nivp_dist.monitoring.step_series import StepRecord
from nivp_dist.run.state import State
from nivp_dist.run.stepping import Accepted
from nivp_dist.settings.automatic import mu_of, number_of_points
from nivp_dist.settings.model import Config

LOST = 1.0  # an estimated relative error at which nothing may be left of the solution
# Accepted steps after a fit, or a change of the method, before the baseline of its health is taken: the first are not
# typical.
SETTLING_STEPS = 3


def observe(config: Config, before: State, accepted: Accepted) -> Accepted:
    """The accepted step as the next transition of the run; before: the state from which it was taken."""
    metrics, state = accepted.metrics, accepted.state
    health = _health(metrics)
    changed = max(state.fit_step, state.switching.step)
    settled = state.baseline is None and state.step - changed >= SETTLING_STEPS
    missed = (state.estimate.residual - before.estimate.residual) / config.integrator.rtol
    record = _record(health, accepted, missed)
    history, messages, findings = state.history.after_step(record, state.step)
    messages, findings = ([_with_values(config, before, line) for line in lines] for lines in (messages, findings))
    if not before.history.unsolved():  # else the user has been warned of it
        messages += accepted.warnings
    if state.estimate.error > LOST >= before.estimate.error:
        messages.append(
            f"the estimated error has passed {100 * LOST:.0f} %: from here on the solution is not to be relied on"
        )
    if before.rank and not state.rank:
        messages.append("Cholesky from here on: conjugate gradients have come to cost more, or find no velocity")
    state = state.after(health=health, baseline=health if settled else state.baseline, history=history)
    state, adapted = _adapt(config, state)
    return accepted._replace(state=state, warnings=messages + adapted, findings=[*accepted.findings, *findings])


def _with_values(config: Config, state: State, message: str) -> str:
    """The message with the present values of the settings that it names."""
    mu = mu_of(config.solver) * state.mu_adaptation.factor
    points = number_of_points(config.sampling) * state.point_refinement.factor
    return with_values(message, config, solver_mu=mu, sampling_points=points)


def _health(metrics: dict) -> Health:
    per_velocity = (metrics["cg_iterations"] - metrics["cg_wasted"]) / max(metrics["evaluations"], 1)
    return Health(per_velocity, metrics["residual_fresh"], metrics["h"])


def _record(health: Health, accepted: Accepted, missed: float) -> StepRecord:
    metrics = accepted.metrics
    names = ("rejected", "residual", "residual_fresh", "coverage", "turn", "jacobian_share")
    return StepRecord(
        h=accepted.state.h,
        iterations=health.cg_iterations,
        unsolved=float(bool(accepted.warnings)),
        stability=metrics["h_rho"] / metrics["h_rho_limit"],
        motion=metrics["theta_step"] / (metrics["theta_norm"] or 1.0),
        missed=missed,
        **{name: np.nan if metrics[name] is None else metrics[name] for name in names},
    )


def _adapt(config: Config, state: State) -> tuple[State, list[str]]:
    """Another factor on mu or on the points, where the last steps ask for it (``monitoring.adaptation``)."""
    messages, recent, sampling = [], state.history.recent(), config.sampling
    if config.solver.adapt_mu:
        mu = state.mu_adaptation.after_step(recent, state.step)
        if mu != state.mu_adaptation:
            raised = f", {mu.factor:g} times that of the run" if mu.factor > 1 else ""
            messages.append(f"solver.mu = {mu_of(config.solver) * mu.factor:g} from here on{raised}")
            state = state._replace(mu_adaptation=mu)
    # With sampling.method = 'solution' or 'paths' the fresh points lie in other tails than the step's, which more
    # points of the same kind do not cure.
    adapts = sampling.adapt_points and sampling.method not in ("solution", "paths")
    if adapts and state.step % sampling.redraw_every == 0:
        points = state.point_refinement.after_step(recent, state.step)
        if points != state.point_refinement:
            messages.append(f"sampling.points = {number_of_points(sampling) * points.factor} from here on")
            state = state._replace(point_refinement=points)
    return state, messages
