"""The fits of a run as functions from State to State: the initial fit, and refits of a fresh network.

A fit proceeds in rounds, one transition of the run each, so that it can be stopped and resumed between them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import pointwise, replicate, whole_program
from nivp_dist.errors import RunFailed
from nivp_dist.fitting.fit import DONE, FitState, Fitter
from nivp_dist.fitting.size_floor import rms, size_floor
from nivp_dist.fitting.time_derivative_targets import Source, TimeDerivativeTargets
from nivp_dist.monitoring.adaptation import MuAdaptation
from nivp_dist.monitoring.advice import remedy, unseen_mass, with_values
from nivp_dist.network.field import number_of_gaussians
from nivp_dist.network.network import Network
from nivp_dist.points import mixture
from nivp_dist.points.mixture import Density
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.wall_data import without_lifting
from nivp_dist.run.solvers import Solvers
from nivp_dist.run.state import EVOLVE, FIT, REFIT, State
from nivp_dist.settings.fits import FitSettings

# A refit is accepted below this share of the bound on the error so far: it then adds little to it.
REFIT_SHARE = 0.1


class Scales(NamedTuple):
    """The scales of one fit, the same in all its rounds, measured when it begins.

    Attributes:
        rates: (m,), factors of the time derivatives among the targets; None where there are none.
        size: what errors are relative to, where that is not the target: ``State.size_floor`` where the target is
            smaller, and the whole solution where wall data have a lifting; else 0.
    """

    rates: jax.Array | None
    size: float


class Fits:
    """The initial fit and the refits of one run.

    Args:
        network: of the run. Where fit.time_derivative_targets asks for it, a wider one is fitted (``fitted``).
        initial_rank: of the sketch with which the steps after a refit begin.
    """

    def __init__(self, solvers: Solvers, network: Network, sampler: Sampler, initial_rank: int):
        self.config, self.problem, self.mesh = solvers.config, solvers.problem, solvers.mesh
        self.network, self.sampler, self.initial_rank = network, sampler, initial_rank
        self.targets = None
        if TimeDerivativeTargets.wanted(self.config, network):
            self.targets = TimeDerivativeTargets(self.config.network, self.problem, network, self.mesh)
        self.fitted = self.targets.network if self.targets else network
        self._initial = Source(self._initial_field, self._initial_function)
        self._present = Source(self._present_field, self._present_function)

        @functools.cache
        def solvers_on(points: int):
            return solvers.of_fits(self.fitted, points), solvers.iterative_of_fits(self.fitted, points)

        def fitter(settings: FitSettings, target, *goals: float | None) -> Fitter:
            galerkin, iterative = solvers_on(settings.points)
            return Fitter(galerkin, sampler, settings, target, self.problem.outputs, iterative, *goals)

        fit, refit, bound = self.config.fit, self.config.restart.fits(self.config.fit), self.config.restart.bound
        self.initial = fitter(fit, self._initial_target, fit.target, self.config.accuracy)
        self.refit = fitter(refit, self._present_target, min(refit.target, bound))
        solutions = {each: functools.partial(self._solution_field, each) for each in (self._initial, self._present)}
        self._solutions = {source: pointwise(self.mesh, solution) for source, solution in solutions.items()}
        self._rms = whole_program(self.mesh, rms)
        self._mass_at_start: tuple[float, float] | None = None
        self._last_scales: tuple = (None, None, None, None)  # of a fit: phase, step, theta, Scales

    # Rounds ---------------------------------------------------------------------------------------

    def begin_initial(self, run) -> tuple[Density, FitState]:
        """The density of the initial condition, and the initial fit before its first round. run: the run's key."""
        density = self.sampler.start(random_keys.pilot_key(run), self.initial_values, self.problem.initial_samples)
        key = random_keys.initial_parameters_key(random_keys.initial_fit_key(run))
        several = number_of_gaussians(self.config.network) > 1
        theta = self._parameters_near(key, density) if several else self.fitted.initialise(key)
        return density, self.initial.start(theta)

    def mass_at_start(self, density: Density) -> tuple[float, float]:
        """The integral of |initial(x)| by points of the first density, and its standard error. Measured once, by all
        processes together."""
        if self._mass_at_start is None:
            key = random_keys.mass_check_key(random_keys.pilot_key(random_keys.run_key(self.config.seed)))
            self._mass_at_start = self.sampler.mass_seen(key, density, self.initial_values)
        return self._mass_at_start

    def unseen(self, density: Density) -> str | None:
        """A message if points of the first density do not see a mass of one in the start of a probability density."""
        self._mass_at_start = None  # of a run that begins
        return unseen_mass(*self.mass_at_start(density)) if self.problem.density else None

    def size_floor(self, run, density: Density) -> float:
        """The least |u| that errors of the run with that key are relative to. Raises InputError where there is no
        scale."""
        key = random_keys.rate_scales_key(random_keys.initial_fit_key(run))
        points = self.sampler.draw(key, density, self.config.fit.points)
        return size_floor(self.config.integrator, self.network, self.problem, points, self.mesh)

    def begin_refit(self, state: State) -> State:
        """A fresh network, to be fitted to the present solution; theta stays until it is accepted."""
        key = random_keys.refit_parameters_key(random_keys.refit_key(state.run_key, state.step))
        # The solution may have left the place and the scale that the network's coordinates are made for.
        fit = self.refit.start(self._parameters_near(key, state.density))
        return state.after(phase=REFIT, fit=replicate(fit, self.mesh))

    def advance(self, state: State) -> State:
        """One round of the fit in progress; where it is stuck, it begins again with other parameters."""
        fitter, context, key, size = self._in_progress(state)
        fit = fitter.advance(state.fit, key, state.density, context, size)
        if fitter.stuck(fit):
            again = random_keys.reinitialisation_key(key, int(fit.round))
            near = bool(jax.random.bernoulli(again))
            theta = self._parameters_near(again, state.density) if near else self.fitted.initialise(again)
            fit = replicate(fitter.start(theta)._replace(round=fit.round), self.mesh)
        return state.after(fit=fit)

    def is_done(self, state: State) -> bool:
        """Whether the fit in progress has no round left to do."""
        return int(state.fit.stage) == DONE

    def fitter(self, state: State) -> Fitter:
        """That of the fit in progress."""
        return self.initial if state.phase == FIT else self.refit

    # Ends -----------------------------------------------------------------------------------------

    def finish_initial(self, state: State) -> tuple[State, float]:
        """The state from which the evolution begins, and the relative error that was reached.

        Raises RunFailed if that is not finite, or if it misses fit.target and fit.on_miss = "error".
        """
        fit, misfit = self._measured(state)
        error, settings = float(fit.error), self.config.fit
        if not np.isfinite(error):
            raise RunFailed(
                f"the initial fit has an error of {error}: initial(x), or with fit.time_derivative_targets "
                f"rhs(u, x, t) at t = {state.t:g}, is not finite at some of its points, or the fit diverged"
            )
        if not error <= settings.target and settings.on_miss == "error":
            raise RunFailed(
                f"the initial fit reached a relative error of {error:.2e}, fit.target is {settings.target:.0e}: "
                f"{with_values(remedy(settings, 'fit', error / settings.target), self.config)}, or set fit.on_miss = "
                "'continue'"
            )
        theta, estimate = self._network_part(fit.theta), state.estimate._replace(initial=misfit)
        multistep = state.multistep.after_fit(misfit)
        return state.after(phase=EVOLVE, theta=theta, fit=fit.ended(), estimate=estimate, multistep=multistep), error

    def refit_bound(self, state: State) -> float:
        """The relative error below which a refit is accepted: restart.bound, or a tenth of the bound on the error.

        Where much accuracy is lost already, a refit that adds little to the error is better than a network whose
        residual shows that it can follow the solution no longer.
        """
        return max(self.config.restart.bound, REFIT_SHARE * state.estimate.bound)

    def finish_refit(self, state: State) -> tuple[State, float, bool]:
        """Take the refit if its error is within ``refit_bound``, else keep the old network.

        Returns: the state, the relative error of the refit, and whether it was accepted.
        """
        fit, misfit = self._measured(state)
        error = float(fit.error)
        accepted = bool(np.isfinite(error) and error <= self.refit_bound(state))
        healthy_step = max(state.h, state.baseline.h) if state.baseline else state.h
        state = state.after(
            phase=EVOLVE,
            fit=state.fit.ended(),
            refit_attempts=state.refit_attempts + 1,
            baseline=None,
            fit_step=state.step,
            fit_t=state.t,
        )
        if accepted:
            state = state._replace(
                theta=self._network_part(fit.theta),
                velocity=jnp.zeros_like(state.velocity),
                multistep=state.multistep.after_fit(misfit),
                refits=state.refits + 1,
                estimate=state.estimate.after_refit(misfit),
                h=healthy_step,
                rank=self.initial_rank,
                reuse_sketch=True,
                history=state.history.after_fit(),
                mu_adaptation=MuAdaptation(since=state.step),
            )
        return state, error, accepted

    # Targets --------------------------------------------------------------------------------------

    def initial_values(self, x):
        """u0 (n, m) at x (n, d)."""
        return self._at_points(self.problem.initial, x)

    def _at_points(self, function, x):
        return jax.vmap(lambda point: jnp.reshape(function(point), (self.network.outputs,)))(x)

    def _initial_target(self, context, x):
        return self._target(self._initial, None, context, x)

    def _present_target(self, context, x):
        *context, scales = context
        return self._target(self._present, context, scales, x)

    def _target(self, source, context, scales, x):
        x = x.astype(self.network.dtype)
        return self.targets.target(source, context, scales, x) if self.targets else source.field(context, x)

    def _initial_field(self, _, x):
        part = without_lifting(self.problem, self.problem.initial, self.config.integrator.t_start)
        return self.network.as_field(self._at_points(part, x))

    def _initial_function(self, _):
        return self.problem.initial, self.config.integrator.t_start

    def _present_field(self, context, x):
        return self.network.field(context[0], x)

    def _present_function(self, context):
        theta, t = context
        return self.network.solution(theta, t), t

    # Parts ----------------------------------------------------------------------------------------

    def _parameters_near(self, key, density: Density):
        """Parameters (p,) whose quadratic forms, if there are any, are the Gaussians of the density."""
        count = max(1, number_of_gaussians(self.config.network))
        return self.fitted.initialise_near(key, *mixture.gaussians(density, count))

    def _network_part(self, theta):
        """The parameters of the network of the run, from those of the fitted one."""
        return self.targets.restrict(theta) if self.targets else theta

    def _in_progress(self, state: State):
        """The fitter of the fit in progress, what its target depends on, its key, and ``Scales.size``."""
        fitter = self.fitter(state)
        if state.phase == FIT:
            key = random_keys.initial_fit_key(state.run_key)
            scales = self._scales(state, key, self._initial, None)
            return fitter, scales.rates, key, scales.size
        key, context = random_keys.refit_key(state.run_key, state.step), (state.theta, state.t)
        scales = self._scales(state, key, self._present, context)
        return fitter, (*context, scales.rates), key, scales.size

    def _scales(self, state: State, key, source, context) -> Scales:
        lifted = self.network.lifting is not None
        if self.targets is None and state.size_floor == 0 and not lifted:
            return Scales(None, 0.0)
        phase, step, theta, _ = self._last_scales
        if (phase, step) != (state.phase, state.step) or theta is not state.theta:
            number = self.fitter(state).settings.points
            points = self.sampler.draw(random_keys.rate_scales_key(key), state.density, number)
            present = self._size(source, context, points) if state.size_floor > 0 or lifted else 0.0
            size = max(present, state.size_floor) if present < state.size_floor or lifted else 0.0
            rates = self.targets.scales(source, context, points, size) if self.targets else None
            self._last_scales = (state.phase, state.step, state.theta, Scales(rates, size))
        return self._last_scales[-1]

    def _size(self, source: Source, context, points) -> float:
        return float(self._rms(self._solutions[source](context, points.x), points))

    def _solution_field(self, source: Source, context, x):
        if self.network.lifting is None:
            return source.field(context, x)
        return self.network.as_field(self._at_points(source.function(context)[0], x))

    def _measured(self, state: State) -> tuple[FitState, float]:
        """The fit with its error, and its misfit as ``monitoring.estimate`` counts it."""
        fitter, context, key, size = self._in_progress(state)
        arguments = random_keys.fit_measure_key(key), state.density, context
        fit = fitter.measure(state.fit, *arguments, size)
        return fit, fitter.misfit(fit, *arguments)
