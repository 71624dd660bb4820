"""A fit as a sequence of rounds over a small state, so that it can be watched, stopped and resumed.

Gauss-Newton is the main method: with the operator and the solver of the velocity it reaches in tens of rounds errors
that Adam does not reach in tens of thousands of steps (measured: `nivp bench fit`). A round draws fresh points, solves
for the corrections of several dampings at once, and keeps the best of them on another fresh draw, so that the points of
the round cannot be overfitted. With fit.line_search shorter corrections are tried too, which cost forward passes only
and allow smaller dampings.

A smaller error of the fit is not always a better start. Measured with a line search and without: allen_cahn_1d 4.5e-5
and 3.3e-4 after 100 rounds, which pays; fokker_planck_trap_5d 4.8e-4 and 6.8e-4, and twice the error at t = 0.5.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import pointwise
from nivp_dist.fitting.errors import misfit_of, relative_errors
from nivp_dist.fitting.head import HeadTuning
from nivp_dist.galerkin.methods import dual_pcg_suits_fit, fit_rank
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.points.points import error_weights
from nivp_dist.settings.model import FitSettings

ADAM, HEAD, GAUSS_NEWTON, DONE = 0, 1, 2, 3
DAMPING_FACTORS = (0.1, 1.0, 10.0)  # dampings of a round, over the best one of the round before
LENGTHS = (1.0, 0.5, 0.25, 0.1)  # of each correction, with fit.line_search
FIRST_DAMPING = 1e-4
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-14, 1e2  # relative to tr M: rounding of float64, and gradient descent
ADAM_ROUND = 100  # steps of Adam in a round, between two of which a run can be stopped
FINAL_RATE = 1e-3  # of Adam's cosine schedule, relative to fit.learning_rate
PATIENCE = 8  # a fit ends after so many Gauss-Newton rounds in a row that each gain less than a percent,
# or, below its target, after LONG_PATIENCE rounds without an error below REAL_GAIN times the least one so far: the best
# of several corrections gains a percent on the points that chose it even where the fit gets no better.
LONG_PATIENCE, REAL_GAIN = 25, 0.95
FAR = 10.0  # times fit.target: a fit that stalls beyond it is at a stationary point near its initial parameters


class FitState(NamedTuple):
    """The state of a fit between two rounds, as it is checkpointed.

    Attributes:
        theta: (p,); (0,) when the fit has ended and its theta was taken or refused.
        error: relative error of theta on the last fresh points. damping: relative to tr M.
        stage: ADAM, HEAD, GAUSS_NEWTON or DONE. round: rounds done so far.
        without_gain: the last rounds in a row that gained less than a percent.
        first_moment, second_moment: of Adam: (p,) in its stage, else (0,), because every checkpoint holds them.
        least_error: so far. since_least: Gauss-Newton rounds since it fell by a real gain.
    """

    theta: jax.Array
    error: jax.Array
    damping: jax.Array
    stage: jax.Array
    round: jax.Array
    without_gain: jax.Array
    first_moment: jax.Array
    second_moment: jax.Array
    least_error: jax.Array
    since_least: jax.Array

    def without_moments(self) -> "FitState":
        """The state after the last step of Adam."""
        none = jnp.zeros(0, self.theta.dtype)
        return self._replace(first_moment=none, second_moment=none)

    def ended(self) -> "FitState":
        """The state that stays of a fit whose theta was taken or refused: its numbers, for the record."""
        return self.without_moments()._replace(theta=jnp.zeros(0, self.theta.dtype))


class Fitter:
    """Fits the field of a network to a target.

    Args:
        galerkin: solves for the corrections. iterative: the same by `dual_pcg`, for the rounds in which that is far
            cheaper, or None.
        target: (context, x (n, d)) -> (n, m); the context is any pytree, or None.
        scored: outputs that the final error counts; None for all (see ``fitting.time_derivative_targets``).
    """

    def __init__(
        self,
        galerkin: Galerkin,
        sampler,
        settings: FitSettings,
        target: Callable,
        scored: int | None = None,
        iterative: Galerkin | None = None,
    ):
        self.galerkin, self.sampler, self.settings, self.iterative = galerkin, sampler, settings, iterative
        self.network = galerkin.network
        self._target = pointwise(galerkin.mesh, target)
        self._errors, self._final = relative_errors(galerkin), relative_errors(galerkin, scored)
        self._adam = jax.jit(partial(self._adam_round, target))
        self._reweighted = jax.jit(_reweighted)
        self._misfit = misfit_of(galerkin)
        self._candidates, self._choice = jax.jit(_candidates), jax.jit(lambda rows, index: rows[index])
        self._head = HeadTuning(galerkin, settings.head_ridge)

    def start(self, theta) -> FitState:
        """The state before the first round."""
        first = GAUSS_NEWTON if self.settings.method == "gauss_newton" else ADAM
        zero = jnp.zeros_like(theta)
        state = FitState(
            theta=theta,
            error=_number(np.inf),
            damping=_number(FIRST_DAMPING),
            stage=_count(first),
            round=_count(0),
            without_gain=_count(0),
            first_moment=zero,
            second_moment=zero,
            least_error=_number(np.inf),
            since_least=_count(0),
        )
        return state if first == ADAM else state.without_moments()

    def advance(self, state: FitState, key, density, context=None, floor: float = 0.0) -> FitState:
        """The state after one round.

        Args:
            key: of the whole fit. density: of the points. context: of the target.
            floor: the least size that errors are relative to (``fitting.size_floor``); 0: that of the target.
        """
        key = random_keys.fit_round_key(key, int(state.round))
        stage = int(state.stage)
        if stage == ADAM:
            return self._finish_adam_round(self._adam_step(state, key, density, context))
        keys = random_keys.fit_points_key(key), random_keys.fit_check_key(key)
        points, fresh = (self.sampler.draw(each, density, self.settings.points) for each in keys)
        misfit = self._misfit(state.theta, points.x, self._target(context, points.x))
        if stage == HEAD:
            corrections, lengths = self._head(state.theta, points, misfit)[None], LENGTHS[:1]
            dampings = np.array([float(state.damping)])
        else:
            dampings = np.clip(float(state.damping) * np.array(DAMPING_FACTORS), SMALLEST_DAMPING, LARGEST_DAMPING)
            # In the basis of the network: that of the points (``network.frames``) does not help a fit. Measured for a
            # mixture in three dimensions after 60 rounds: 5.0e-3 in the frame of the points, 2.3e-3 without it.
            galerkin, rank = self._solver(float(state.damping))
            shared = galerkin.prepare(state.theta, points, random_keys.fit_sketch_key(key), rank, adapted_basis=False)
            corrections = galerkin.correction(state.theta, points, misfit, shared, dampings)
            lengths = LENGTHS if self.settings.line_search else LENGTHS[:1]
            dampings = np.tile(dampings, len(lengths))
        candidates = self._candidates(state.theta, corrections, np.array(lengths))
        errors = self._errors(candidates, fresh, self._target(context, fresh.x), floor)
        return self._choose(state, candidates, np.asarray(errors), dampings)

    # ----------------------------------------------------------------------------------------------

    def _solver(self, damping: float) -> tuple[Galerkin, int]:
        """The solver of a round at that damping, and the rank of its approximation."""
        if self.iterative is not None and dual_pcg_suits_fit(self.network, self.settings.points, damping):
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
        converged = since_least >= LONG_PATIENCE and least < settings.target
        if stage == HEAD:
            stage, without_gain = (GAUSS_NEWTON if settings.method.endswith("gauss_newton") else DONE), 0
        elif errors[best] < settings.stop_at or without_gain >= PATIENCE or converged or rounds >= self.last_round:
            stage = DONE
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

    @property
    def last_round(self) -> int:
        """The most rounds that a fit takes."""
        adam = 0 if self.settings.method == "gauss_newton" else -(-self.settings.adam_steps // ADAM_ROUND) + 1
        return adam + self.settings.iterations

    def _adam_step(self, state, key, density, context) -> FitState:
        settings = self.settings
        points = self.sampler.draw(key, density, settings.adam_batch * ADAM_ROUND)
        moments = optax.ScaleByAdamState(
            jnp.asarray(np.int32(int(state.round) * ADAM_ROUND)), state.first_moment, state.second_moment
        )
        theta, moments = self._adam(state.theta, moments, points, context)
        return state._replace(
            theta=theta, first_moment=moments.mu, second_moment=moments.nu, round=_count(int(state.round) + 1)
        )

    def _adam_round(self, target, theta, moments, points, context):
        """ADAM_ROUND minibatch steps under a cosine schedule; the round's draw is cut into batches."""
        settings = self.settings
        schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.adam_steps, alpha=FINAL_RATE)
        rule = optax.scale_by_adam()
        batch = len(points.x) // ADAM_ROUND
        # Batches take every ADAM_ROUND-th point: a draw is stratified in order, so each batch has points of all parts.
        batches = jax.tree.map(
            lambda leaf: leaf[: batch * ADAM_ROUND].reshape(batch, ADAM_ROUND, *leaf.shape[1:]).swapaxes(0, 1), points
        )

        def step(carry, batch):
            theta, moments = carry
            goal = target(context, batch.x)
            weights = batch.weights / jnp.sum(batch.weights)

            def loss(theta):
                misfit = self.network.field(theta, batch.x) - goal
                return jnp.sum(weights[:, None] * misfit**2)

            update: Any  # an array like theta; optax declares any tree of arrays
            update, new = rule.update(jax.grad(loss)(theta), moments)
            return (theta - schedule(moments.count) * update, new), None

        return jax.lax.scan(step, (theta, moments), batches)[0]

    def _finish_adam_round(self, state: FitState) -> FitState:
        if int(state.round) * ADAM_ROUND < self.settings.adam_steps:
            return state
        after = HEAD if self.settings.head_tuning else GAUSS_NEWTON
        if after == GAUSS_NEWTON and self.settings.method == "adam":
            after = DONE
        return state.without_moments()._replace(stage=_count(after))

    def stuck(self, state: FitState) -> bool:
        """Whether the fit has stalled far from its target with rounds left: other initial parameters are worth them."""
        left = int(state.stage) == DONE and int(state.round) < self.last_round
        return left and self.settings.method == "gauss_newton" and float(state.error) > FAR * self.settings.target

    def measure(self, state: FitState, key, density, context=None, floor: float = 0.0) -> FitState:
        """The state with its error measured on one more fresh draw. Arguments as for ``advance``."""
        fresh = self.sampler.draw(key, density, self.settings.points)
        return state._replace(error=self._final(state.theta[None], fresh, self._target(context, fresh.x), floor)[0])

    def misfit(self, state: FitState, key, density, context=None) -> float:
        """Relative error of a measured state in the norm of ``monitoring.estimate``, on the points of ``measure``."""
        if not self.network.log_density:
            return float(state.error)  # measured in that norm already
        fresh = self.sampler.draw(key, density, self.settings.points)
        target = self._target(context, fresh.x)
        return float(self._final(state.theta[None], self._reweighted(fresh, target), target, 0.0)[0])


def _candidates(theta, corrections, lengths):
    """theta, then theta with every correction (c, p) at every length (l,): (1 + l c, p)."""
    tried = theta + lengths[:, None, None] * corrections
    return jnp.concatenate([theta[None], tried.reshape(-1, theta.size)])


def _number(value):
    return jnp.asarray(np.float64(value))


def _count(value):
    return jnp.asarray(np.int64(value))


def _reweighted(points, target):
    """The points with weights under the density u = exp(target), for a field log u."""
    weights = error_weights(points, target, log_density=True)
    return points._replace(weights=weights / jnp.sum(weights))
