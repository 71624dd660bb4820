"""A fit as a sequence of rounds over a small state, so that it can be watched, stopped and resumed.

Gauss-Newton is the main method: with the operator and the solver of the velocity it reaches in tens of rounds errors
that Adam does not reach in tens of thousands of steps (measured: `nivp bench fit`). A round draws fresh points, solves
for the corrections of several dampings at once, and keeps the best of them on another fresh draw, so that the points of
the round cannot be overfitted. Corrections follow the curvature of the field (fit.order, ``galerkin.taylor``), without
which they gain a percent a round as soon as the misfit is small. With fit.line_search shorter corrections are tried
too, which cost forward passes only and allow smaller dampings. Other rounds are steps of an optimiser
(``fitting.optimiser``), or solve for the last layer (``fitting.head``). Every round measures the error of its result on
points that it was not fitted to.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import pointwise, whole_program
from nivp_dist.fitting.errors import misfit_of, relative_errors
from nivp_dist.fitting.head import HeadTuning
from nivp_dist.fitting.optimiser import OptimiserSteps
from nivp_dist.fitting.stages import DONE, GAUSS_NEWTON, OPTIMISER, TRIAL, Stages
from nivp_dist.galerkin.methods import dual_pcg_suits_fit, fit_rank
from nivp_dist.galerkin.taylor import usable_order
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.points.points import error_weights
from nivp_dist.settings.fits import FitSettings

DAMPING_FACTORS = (0.1, 1.0, 10.0)  # dampings of a round, over the best one of the round before
LENGTHS = (1.0, 0.5, 0.25, 0.1)  # of each correction, with fit.line_search
FIRST_DAMPING = 1e-4
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-14, 1e2  # relative to tr M: rounding of float64, and gradient descent
PATIENCE = 8  # a fit ends after so many Gauss-Newton rounds in a row that each gain less than a percent,
# or, below its target, after LONG_PATIENCE rounds without an error below REAL_GAIN times the least one so far: the best
# of several corrections gains a percent on the points that chose it even where the fit gets no better.
LONG_PATIENCE, REAL_GAIN = 25, 0.95
# The error of a fit is measured once more, on other points, and may be larger there. TRIAL_MARGIN is a share of the
# goal, for one correction of an untrained network; TARGET_MARGIN is one of fit.target, for Gauss-Newton.
TRIAL_MARGIN, TARGET_MARGIN = 0.5, 0.8
FAR = 10.0  # times fit.target: a fit that stalls beyond it is at a stationary point near its initial parameters


class FitState(NamedTuple):
    """The state of a fit between two rounds, as it is checkpointed.

    Attributes:
        theta: (p,); (0,) when the fit has ended and its theta was taken or refused.
        error: relative error of theta on the last fresh points. damping: relative to tr M.
        stage: the next one to do, TRIAL to DONE. round: rounds done so far, without the trial.
        without_gain: the last rounds in a row that gained less than a percent.
        optimiser: (q,), the state of the optimiser, from the start of the fit to the end of its stage; else (0,),
            because every checkpoint holds it.
        least_error: so far. since_least: Gauss-Newton rounds since it fell by a real gain.
    """

    theta: jax.Array
    error: jax.Array
    damping: jax.Array
    stage: jax.Array
    round: jax.Array
    without_gain: jax.Array
    optimiser: jax.Array
    least_error: jax.Array
    since_least: jax.Array

    def without_optimiser(self) -> "FitState":
        """The state after the last step of the optimiser."""
        return self._replace(optimiser=jnp.zeros(0))

    def ended(self) -> "FitState":
        """The state that stays of a fit whose theta was taken or refused: its numbers, for the record."""
        return self.without_optimiser()._replace(theta=jnp.zeros(0, self.theta.dtype))


class Fitter:
    """Fits the field of a network to a target.

    Args:
        galerkin: solves for the corrections. iterative: the same by `dual_pcg`, for the rounds in which that is far
            cheaper, or None.
        target: (context, x (n, d)) -> (n, m); the context is any pytree, or None.
        scored: outputs that the final error counts; None for all (see ``fitting.time_derivative_targets``).
        goal: the error that the fit has to reach; None: fit.target. aim: an initial fit that still gains goes on above
            this error; None: above fit.target.
    """

    def __init__(
        self,
        galerkin: Galerkin,
        sampler,
        settings: FitSettings,
        target: Callable,
        scored: int | None = None,
        iterative: Galerkin | None = None,
        goal: float | None = None,
        aim: float | None = None,
    ):
        self.galerkin, self.sampler, self.settings, self.iterative = galerkin, sampler, settings, iterative
        self.network = network = galerkin.network
        self.goal = settings.target if goal is None else goal
        self.aim = min(TARGET_MARGIN * settings.target, np.inf if aim is None else aim)
        self._target = pointwise(galerkin.mesh, target, galerkin.discretisation.chunk)
        self._errors, self._final = relative_errors(galerkin), relative_errors(galerkin, scored)
        self._optimiser = None
        if settings.method != "gauss_newton":
            self._optimiser = OptimiserSteps(network, sampler, settings, target)
        self.stages = Stages(settings, bool(network.heads))
        self._reweighted = whole_program(galerkin.mesh, _reweighted)
        self._misfit = misfit_of(galerkin)
        self._candidates, self._choice = jax.jit(_candidates), jax.jit(lambda rows, index: rows[index])
        self._head = HeadTuning(galerkin, settings.head_ridge)

    def start(self, theta) -> FitState:
        """The state before the first round."""
        optimiser = self._optimiser.first if self._optimiser else np.zeros(0)
        return FitState(
            theta=theta,
            error=_number(np.inf),
            damping=_number(FIRST_DAMPING),
            stage=_count(self.stages.order[0]),
            round=_count(0),
            without_gain=_count(0),
            optimiser=jnp.asarray(optimiser),
            least_error=_number(np.inf),
            since_least=_count(0),
        )

    def advance(self, state: FitState, key, density, context=None, size: float = 0.0) -> FitState:
        """The state after one round.

        Args:
            key: of the whole fit. density: of the points. context: of the target.
            size: what errors are relative to, in the norm of the field; 0: the target.
        """
        key = random_keys.fit_round_key(key, int(state.round))
        stage = int(state.stage)
        fresh = self.sampler.draw(random_keys.fit_check_key(key), density, self.settings.points)
        goal = self._target(context, fresh.x)
        if stage == OPTIMISER and self._optimiser is not None:
            theta, optimiser = self._optimiser.round(state.theta, state.optimiser, key, density, context)
            errors = np.asarray(self._errors(theta[None], fresh, goal, size))
            return self._after_steps(state._replace(theta=theta, optimiser=optimiser, error=_number(errors[0])))
        points = self.sampler.draw(random_keys.fit_points_key(key), density, self.settings.points)
        misfit = self._misfit(state.theta, points.x, self._target(context, points.x))
        if stage == GAUSS_NEWTON:
            curves, dampings, lengths = self._gauss_newton(state, points, misfit, key)
        else:
            curves, lengths = self._head(state.theta, points, misfit)[None, None], LENGTHS[:1]
            dampings = np.array([float(state.damping)])
        candidates = self._candidates(state.theta, curves, np.array(lengths))
        errors = np.asarray(self._errors(candidates, fresh, goal, size))
        if stage == TRIAL:
            return self._after_trial(state, candidates, errors)
        return self._choose(state, candidates, errors, dampings)

    # ----------------------------------------------------------------------------------------------

    def _gauss_newton(self, state, points, misfit, key):
        """The curves (c, order, p) of several dampings, the damping of each candidate, and the lengths to try."""
        dampings = np.clip(float(state.damping) * np.array(DAMPING_FACTORS), SMALLEST_DAMPING, LARGEST_DAMPING)
        order = usable_order(self.settings.order, self.network.dtype)
        galerkin, rank = self._solver(float(state.damping), order)
        # In the basis of the network: that of the points (``network.frames``) does not help a fit. Measured for a
        # mixture in three dimensions after 60 rounds: 5.0e-3 in the frame of the points, 2.3e-3 without it.
        shared = galerkin.prepare(state.theta, points, random_keys.fit_sketch_key(key), rank, adapted_basis=False)
        curves = galerkin.corrections(order)(state.theta, points, misfit, shared, dampings)
        lengths = LENGTHS if self.settings.line_search else LENGTHS[:1]
        return curves, np.tile(dampings, len(lengths)), lengths

    def _solver(self, damping: float, order: int) -> tuple[Galerkin, int]:
        """The solver of a round at that damping, and the rank of its approximation."""
        suits = dual_pcg_suits_fit(self.network, self.settings.points, damping, order, self.galerkin.hardware)
        if self.iterative is not None and suits:
            return self.iterative, min(fit_rank(self.network, damping), self.iterative.largest_rank)
        return self.galerkin, self.galerkin.initial_rank

    def _choose(self, state, candidates, errors, dampings) -> FitState:
        """The best of the candidates (1 + c, p), of which the first is the present theta, and what follows from it."""
        before, damping = errors[0], float(state.damping)
        errors = np.where(np.isfinite(errors), errors, np.inf)
        best = int(np.argmin(errors))
        gained = best > 0
        damping = dampings[best - 1] if gained else min(damping * 10, LARGEST_DAMPING)
        # While the least damping is the best one, the damping is still falling, and larger gains are to come.
        damping_falls = gained and damping == np.min(dampings) and damping > SMALLEST_DAMPING
        without_gain = 0 if errors[best] < 0.99 * before or damping_falls else int(state.without_gain) + 1
        stage, settings = int(state.stage), self.settings
        rounds = int(state.round) + 1
        real_gain = errors[best] < REAL_GAIN * float(state.least_error)
        least, since_least = (errors[best], 0) if real_gain else (float(state.least_error), int(state.since_least) + 1)
        converged = errors[best] < settings.stop_at or (since_least >= LONG_PATIENCE and least < settings.target)
        if stage != GAUSS_NEWTON:
            stage, without_gain = self.stages.after(stage), 0
        elif converged or without_gain >= PATIENCE or rounds >= self._last_iteration(errors[best], since_least):
            stage = self.stages.after(stage)
        return state._replace(
            theta=self._choice(candidates, best),
            error=_number(errors[best]),
            damping=_number(damping),
            stage=_count(stage),
            round=_count(rounds),
            without_gain=_count(without_gain),
            least_error=_number(least),
            since_least=_count(since_least),
        )

    def _last_iteration(self, error: float, since_least: int) -> int:
        """The last round of Gauss-Newton: a later one for an initial fit that still gains but would end the run now."""
        settings, gains = self.settings, since_least < LONG_PATIENCE
        extended = gains and settings.on_miss == "error" and error > self.aim
        return self.stages.last_extended if extended else self.stages.last_iteration

    def _after_trial(self, state: FitState, candidates, errors) -> FitState:
        """The initial theta and the next stage; or, where the last layer alone is enough, the theta that it gives, and
        Gauss-Newton or the end of the fit."""
        if not errors[1] <= TRIAL_MARGIN * self.goal:
            return state._replace(error=_number(errors[0]), stage=_count(self.stages.after(TRIAL)))
        stage, rounds = self.stages.after_trial()
        return state.without_optimiser()._replace(
            theta=self._choice(candidates, 1),
            error=_number(errors[1]),
            stage=_count(stage),
            round=_count(rounds),
        )

    def _after_steps(self, state: FitState) -> FitState:
        """The state after a round of the optimiser."""
        rounds = int(state.round) + 1
        state = state._replace(round=_count(rounds))
        if rounds < self.stages.last_steps:
            return state
        return state.without_optimiser()._replace(stage=_count(self.stages.after(OPTIMISER)))

    @property
    def last_round(self) -> int:
        """The most rounds that a fit takes."""
        return self.stages.last_round

    def stuck(self, state: FitState) -> bool:
        """Whether the fit has stalled far from its target with rounds left: other initial parameters are worth them."""
        left = int(state.stage) == DONE and int(state.round) < self.last_round
        return left and self.settings.method == "gauss_newton" and float(state.error) > FAR * self.settings.target

    def measure(self, state: FitState, key, density, context=None, size: float = 0.0) -> FitState:
        """The state with its error measured on one more fresh draw. Arguments as for ``advance``."""
        fresh = self.sampler.draw(key, density, self.settings.points)
        return state._replace(error=self._final(state.theta[None], fresh, self._target(context, fresh.x), size)[0])

    def misfit(self, state: FitState, key, density, context=None) -> float:
        """Relative error of a measured state in the norm of ``monitoring.estimate``, on the points of ``measure``."""
        if not self.network.log_density:
            return float(state.error)  # measured in that norm already
        fresh = self.sampler.draw(key, density, self.settings.points)
        target = self._target(context, fresh.x)
        return float(self._final(state.theta[None], self._reweighted(fresh, target), target, 0.0)[0])


def _candidates(theta, curves, lengths):
    """theta, then its displacement along every curve (c, order, p) for every length (l,): (1 + l c, p)."""
    powers = lengths[:, None] ** np.arange(1, curves.shape[1] + 1)
    tried = theta + jnp.einsum("lk,ckp->lcp", powers, curves)
    return jnp.concatenate([theta[None], tried.reshape(-1, theta.size)])


def _number(value):
    return jnp.asarray(np.float64(value))


def _count(value):
    return jnp.asarray(np.int64(value))


def _reweighted(points, target):
    """The points with weights under the density u = exp(target), for a field log u."""
    weights = error_weights(points, target, log_density=True)
    return points._replace(weights=weights / jnp.sum(weights))
