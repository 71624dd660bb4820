"""The parts of one run, assembled: what the controller calls, between two looks at clocks and signals."""

from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import make_mesh, replicate
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.fitting.fit import DONE, FitState, Fitter
from nivp_dist.fitting.restart import Health, reason_to_refit
from nivp_dist.fitting.time_derivative_targets import Source, TimeDerivativeTargets
from nivp_dist.galerkin.methods import ITERATIVE, direct_method
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.stepping import Accepted, Stepper
from nivp_dist.monitoring.adaptation import MuAdaptation, PointRefinement
from nivp_dist.monitoring.estimate import Estimate
from nivp_dist.monitoring.evaluation import Score, Scorer
from nivp_dist.monitoring.signatures import StepHistory, StepRecord
from nivp_dist.network.network import build_network
from nivp_dist.points import mixture
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.base import Problem
from nivp_dist.run.state import EVOLVE, FINISHED, FIT, REFIT, State
from nivp_dist.settings.model import Config

REFIT_SHARE = 0.1
SETTLING_STEPS = 3  # accepted steps after a fit before the levels of health are taken


class Simulation:
    """A problem and its settings on a mesh, as functions from State to State."""

    def __init__(self, config: Config, problem: Problem):
        self.config, self.problem = config, problem
        self.mesh = make_mesh(config.devices)
        self.network = build_network(config.network, problem)
        self.output_times = sorted({0.0, *config.output.times, config.integrator.t_end})
        form = self.network.form
        self.sampler = Sampler(
            config.sampling, problem.domain, self.network.log_density, self.mesh, squares=form == "direct"
        )
        if config.sampling.points < self.mesh.size:
            raise InputError(f"sampling.points = {config.sampling.points} is less than one for each device")
        # A step changes the field by hundredths of itself: an error of rtol in its rate is as little of rtol there.
        rtol = config.integrator.rtol
        self.galerkin = Galerkin(self.network, problem, config.solver, config.sampling, self.mesh, rate_rtol=rtol)
        fit_points = config.sampling.model_copy(update={"points": config.fit.points})
        wanted = TimeDerivativeTargets.wanted(config, self.network)
        self.time_derivative_targets = TimeDerivativeTargets(config.network, problem, self.network) if wanted else None
        fitted = self.time_derivative_targets.network if wanted else self.network
        fit_galerkin = Galerkin(fitted, problem, config.solver, fit_points, self.mesh, fitting=True)
        by_samples = None
        if config.solver.method == "auto":
            solver = config.solver.model_copy(update={"method": "dual_pcg", "rank": "adaptive"})
            by_samples = Galerkin(fitted, problem, solver, fit_points, self.mesh, fitting=True)
        self._start = Source(self._initial_field, self._initial_function)
        self._present = Source(self._present_field, self._present_function)
        targets = [self._initial_target, self._present_target]
        self.fitter, self.refitter = (
            Fitter(fit_galerkin, self.sampler, config.fit, target, problem.outputs, by_samples) for target in targets
        )
        self._scales_of: tuple = (None, None, None, None)
        direct, other = None, direct_method(self.network, config.sampling.points)
        if config.solver.method == "auto" and self.galerkin.method in ITERATIVE and other:
            solver = config.solver.model_copy(update={"method": other})
            direct = Galerkin(self.network, problem, solver, config.sampling, self.mesh)
        self.stepper = Stepper(config, self.galerkin, self.sampler, self.output_times, direct)
        self.scorer = Scorer(problem, self.network, self.sampler, config.output.evaluation_points, config.seed)

    # Beginning ------------------------------------------------------------------------------------

    def blank(self) -> State:
        """A state of the right shapes with nothing in it yet: what a checkpoint is read into."""
        zeros = jnp.zeros(self.network.size)
        state = State(
            phase=FIT,
            key=random_keys.to_data(random_keys.run_key(self.config.seed)),
            theta=zeros,
            velocity=zeros,
            density=self.sampler.broadest(),
            fit=self.fitter.start(jnp.zeros(self.fitter.network.size)),
            t=0.0,
            h=min(self.config.integrator.initial_step, self.config.integrator.max_step),
            previous_error=1.0,
            step=0,
            rank=self.galerkin.first_rank,
            reuse_sketch=True,
            rejected=0,
            evaluations=0,
            cg_iterations=0,
            refits=0,
            refit_attempts=0,
            outputs_written=0,
            health=None,
            baseline=None,
            estimate=Estimate(),
            history=StepHistory.begin(),
            mu_adaptation=MuAdaptation(),
            point_refinement=PointRefinement(),
            fit_step=0,
            fit_t=0.0,
            transitions=0,
        )
        return self._replicated(state)

    def begin(self) -> State:
        """The state before the first round of the initial fit."""
        run = random_keys.run_key(self.config.seed)
        density = self.sampler.start(random_keys.pilot_key(run), self._initial_values)
        key = random_keys.initial_parameters_key(random_keys.initial_fit_key(run))
        several = self.config.network.gaussians > 1
        theta = self._initial_theta_near(key, density) if several else self.fitter.network.initialise(key)
        fit = self.fitter.start(theta)
        return self._replicated(self.blank()._replace(density=density, fit=fit))

    def resumed(self, state: State) -> State:
        """A restored state under output times that may have changed: those after t are still to come."""
        phase, passed = state.phase, sum(t < state.t for t in self.output_times)
        # The output at t itself may be still to come: the state was saved between the step and its output.
        here = state.t in self.output_times and (phase == FINISHED or state.outputs_written == passed + 1)
        written = passed + here
        if phase == FINISHED and written < len(self.output_times):
            phase = EVOLVE
        return state._replace(outputs_written=written, phase=phase)

    def _replicated(self, state: State) -> State:
        arrays = ("key", "theta", "velocity", "fit")  # the density is so already
        return state._replace(**{name: replicate(getattr(state, name), self.mesh) for name in arrays})

    # Fits -----------------------------------------------------------------------------------------

    def fit_round(self, state: State) -> State:
        """One round of the initial fit or of the refit in progress."""
        fitter, context, key = self._fit_in_progress(state)
        fit = fitter.advance(state.fit, key, state.density, context)
        if fitter.stuck(fit):
            another = random_keys.reinitialisation_key(key, int(fit.round))
            near = bool(jax.random.bernoulli(another))
            theta = self._initial_theta_near(another, state.density) if near else fitter.network.initialise(another)
            fit = replicate(fitter.start(theta)._replace(round=fit.round), self.mesh)
        return state.after(fit=fit)

    @property
    def fit_rounds(self) -> int:
        """The most rounds that a fit takes."""
        return self.fitter.last_round

    def fit_is_done(self, state: State) -> bool:
        return int(state.fit.stage) == DONE

    def finish_initial_fit(self, state: State) -> tuple[State, float]:
        """Onto the evolution; the achieved relative error. Raises RunFailed if it misses fit.target."""
        fit, misfit = self._measured(state)
        error, settings = float(fit.error), self.config.fit
        if not error <= settings.target and settings.on_miss == "error":
            raise RunFailed(
                f"the initial fit reached a relative error of {error:.2e}, fit.target is {settings.target:.0e}: raise "
                f"network.width, fit.iterations or fit.points, or set fit.on_miss = 'continue'"
            )
        theta, estimate = self._network_part(fit.theta), state.estimate._replace(initial=misfit)
        return state.after(phase=EVOLVE, theta=theta, fit=fit, estimate=estimate), error

    def begin_refit(self, state: State) -> State:
        """A fresh network, to be fitted to the present solution; theta stays until it is accepted."""
        key = random_keys.refit_parameters_key(random_keys.refit_key(state.run_key, state.step))
        # The solution may have left the place and the scale that the network's coordinates are made for.
        fit = self.refitter.start(self._initial_theta_near(key, state.density))
        return state.after(phase=REFIT, fit=replicate(fit, self.mesh))

    def refit_bound(self, state: State) -> float:
        """Below which a refit is accepted: restart.bound, or a tenth of the error that the run reckons with already.

        Where much is lost a refit that adds little to it beats a network that its residual says is at its end."""
        return max(self.config.restart.bound, REFIT_SHARE * state.estimate.total)

    def finish_refit(self, state: State) -> tuple[State, float, bool]:
        """Take the refit if its error is within ``refit_bound``, else keep the old network.

        Returns: the state, the refit's relative error, and whether it was accepted.
        """
        fit, misfit = self._measured(state)
        error = float(fit.error)
        accepted = bool(error <= self.refit_bound(state))
        healthy_step = max(state.h, state.baseline.h) if state.baseline else state.h
        state = state.after(
            phase=EVOLVE,
            refit_attempts=state.refit_attempts + 1,
            baseline=None,
            fit_step=state.step,
            fit_t=state.t,
        )
        if accepted:
            state = state._replace(
                theta=self._network_part(fit.theta),
                velocity=jnp.zeros_like(state.velocity),
                refits=state.refits + 1,
                estimate=state.estimate._replace(refits=state.estimate.refits + misfit),
                h=healthy_step,
                rank=self.galerkin.first_rank,
                reuse_sketch=True,
                history=state.history.after_fit(),
                mu_adaptation=MuAdaptation(since=state.step),
            )
        return state, error, accepted

    def reason_to_refit(self, state: State) -> str | None:
        """Why to refit before the next step (``fitting.restart``), or None."""
        steps, elapsed, baseline = state.step - state.fit_step, state.t - state.fit_t, state.baseline
        if baseline and self.stepper.direct is not None:
            # A spectrum that fills up makes CG dear before it makes a network worse: direct solves take over then.
            baseline = baseline._replace(cg_iterations=0.0)
        return reason_to_refit(self.config.restart, state.health, baseline, steps, elapsed)

    # Steps ----------------------------------------------------------------------------------------

    def step(self, state: State, poll: Callable[[], None]) -> Accepted:
        """One accepted step, and what there is to say of it."""
        before, result = state, self.stepper.step(state, poll)
        metrics, state = result.metrics, result.state
        per_velocity = (metrics["cg_iterations"] - metrics["cg_wasted"]) / max(metrics["evaluations"], 1)
        health = Health(per_velocity, metrics["residual_fresh"], metrics["h"])
        settled = state.baseline is None and state.step - state.fit_step >= SETTLING_STEPS
        baseline = health if settled else state.baseline

        names = ("rejected", "residual", "residual_fresh", "coverage", "turn")
        record = StepRecord(
            h=state.h,
            iterations=per_velocity,
            unsolved=float(bool(result.warnings)),
            **{name: np.nan if metrics[name] is None else metrics[name] for name in names},
        )
        history, said = state.history.after_step(record, state.step)
        if not state.history.unsolved():  # else it has been said
            said += result.warnings
        if before.rank and not state.rank:
            said.append("Cholesky from here on: conjugate gradients have come to cost more, or find no velocity")
        mu_adaptation = state.mu_adaptation
        if self.config.solver.adapt_mu:
            mu_adaptation = mu_adaptation.after_step(history.recent(), state.step)
            if mu_adaptation != state.mu_adaptation:
                said.append(f"solver.mu is multiplied by {mu_adaptation.factor:g} from here on")
        point_refinement, settings = state.point_refinement, self.config.sampling
        # Points drawn by a density itself: the fresh ones see other tails, of which more points do not say more.
        adapts = settings.adapt_points and settings.method != "solution"
        if adapts and state.step % settings.redraw_every == 0:
            point_refinement = point_refinement.after_step(history.recent(), state.step)
            if point_refinement != state.point_refinement:
                said.append(f"{settings.points * point_refinement.factor} points are drawn from here on")
        state = state.after(
            health=health,
            baseline=baseline,
            history=history,
            mu_adaptation=mu_adaptation,
            point_refinement=point_refinement,
        )
        return result._replace(state=state, warnings=said)

    def output_due(self, state: State) -> bool:
        return state.outputs_written < len(self.output_times) and (state.t >= self.output_times[state.outputs_written])

    def score(self, state: State) -> Score:
        """Errors and moments at the output time that is due."""
        return self.scorer.score(state.theta, state.density, state.t, state.outputs_written)

    def after_output(self, state: State) -> State:
        """On to the next output time, or finished."""
        written = state.outputs_written + 1
        return state.after(
            outputs_written=written, phase=FINISHED if written == len(self.output_times) else state.phase
        )

    # ----------------------------------------------------------------------------------------------

    def _initial_values(self, x):
        return jax.vmap(lambda point: jnp.reshape(self.problem.initial(point), (self.network.outputs,)))(x)

    def _initial_target(self, context, x):
        return self._target(self._start, None, context, x)

    def _present_target(self, context, x):
        *context, scales = context
        return self._target(self._present, context, scales, x)

    def _target(self, source, context, scales, x):
        x = x.astype(self.network.dtype)
        return (
            self.time_derivative_targets.target(source, context, scales, x)
            if self.time_derivative_targets
            else source.field(context, x)
        )

    def _initial_field(self, _, x):
        return self.network.as_field(self._initial_values(x))

    def _initial_function(self, _):
        return self.problem.initial, 0.0

    def _present_field(self, context, x):
        return self.network.field(context[0], x)

    def _present_function(self, context):
        theta, t = context
        return self.network.function(theta), t

    def _initial_theta_near(self, key, density):
        count = self.config.network.gaussians
        return self.fitter.network.initialise_near(key, *mixture.gaussians(density, count))

    def _network_part(self, theta):
        return self.time_derivative_targets.restrict(theta) if self.time_derivative_targets else theta

    def _fit_in_progress(self, state: State):
        """The fitter, what its target depends on, and its key."""
        if state.phase == FIT:
            key = random_keys.initial_fit_key(state.run_key)
            return self.fitter, self._scales(state, key, self._start, None), key
        key, context = random_keys.refit_key(state.run_key, state.step), (state.theta, state.t)
        return self.refitter, (*context, self._scales(state, key, self._present, context)), key

    def _scales(self, state: State, key, source, context):
        """Scales of the time derivatives, the same in every round of a fit: made again only when another one begins."""
        if self.time_derivative_targets is None:
            return None
        phase, step, theta, _ = self._scales_of
        if (phase, step) != (state.phase, state.step) or theta is not state.theta:
            points = self.sampler.draw(random_keys.rate_scales_key(key), state.density, self.config.fit.points)
            scales = self.time_derivative_targets.scales(source, context, points)
            self._scales_of = (state.phase, state.step, state.theta, scales)
        return self._scales_of[-1]

    def _measured(self, state: State) -> tuple[FitState, float]:
        """The fit with its error, and its misfit as the estimate counts it."""
        fitter, context, key = self._fit_in_progress(state)
        arguments = random_keys.fit_measure_key(key), state.density, context
        fit = fitter.measure(state.fit, *arguments)
        return fit, fitter.misfit(fit, *arguments)
