"""The training of a PINN: Adam, then Gauss-Newton or L-BFGS, with its error along the way."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nivp_dist.bench.pinn import Pinn

STEPS = 0.5 ** jnp.arange(8)  # what the line search of Gauss-Newton tries of its step, all together
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-14, 1.0  # relative to the mean of the diagonal of J^T J
LBFGS_MEMORY = 50
DENSER = 1.3  # an error is recorded when the iterations of a stage have grown by this factor


class Stage(NamedTuple):
    """A part of a training. Its state is (theta (p,), ..., loss ()).

    Attributes:
        begin: theta -> state. step: (state, points, key) -> state; a key differs from step to step.
        points: (key of the stage) -> what every step takes as points, or None where a step draws its own.
    """

    name: str
    steps: int
    begin: Callable[[jax.Array], Any]
    step: Callable[[Any, Any, jax.Array], Any]
    points: Callable[[jax.Array], Any]


class Training:
    """The stages of a PINN, compiled when they are first used, for all seeds."""

    def __init__(self, pinn: Pinn):
        self.pinn = pinn
        self.stages = _adam(pinn), FINISHES[pinn.settings.finish](pinn)
        self._programs = {}

    def course(self, seed: int, error: Callable[[jax.Array], float]) -> list[dict]:
        """The course of a training: {stage, iteration, seconds, loss, error} at iterations that grow by DENSER.

        error: of theta (p,). The seconds are those of the processor, without compiling and without the errors.
        """
        start, *keys = jax.random.split(jax.random.key(seed), 1 + len(self.stages))
        theta, seconds, course = self.pinn.initialise(start), 0.0, []
        for stage, key in zip(self.stages, keys):
            state, done = stage.begin(theta), 0
            advance = self._program(stage, state, key)
            while done < stage.steps:
                until = min(stage.steps, max(done + 1, round(DENSER * done)))
                began = time.process_time()
                state = jax.block_until_ready(advance(state, key, done, until))
                seconds, done = seconds + time.process_time() - began, until
                facts = {"stage": stage.name, "iteration": done, "seconds": seconds, "loss": float(state[-1])}
                course.append(facts | {"error": error(state[0])})
            theta = state[0]
        return course

    def _program(self, stage: Stage, state, key):
        """(state, key, first, last) -> state after the steps from first to last."""

        def advance(state, key, first, last):
            points = stage.points(key)
            step = lambda i, state: stage.step(state, points, jax.random.fold_in(key, i))  # noqa: E731
            return jax.lax.fori_loop(first, last, step, state)

        if stage.name not in self._programs:
            self._programs[stage.name] = jax.jit(advance).lower(state, key, 0, 0).compile()
        return self._programs[stage.name]


def _adam(pinn: Pinn) -> Stage:
    settings = pinn.settings
    adam = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.adam_steps, 0.01))

    def step(state, _, key):
        theta, moments, _ = state
        loss, gradient = jax.value_and_grad(pinn.causal_loss)(theta, pinn.points(key, settings.batch))
        change, moments = adam.update(gradient, moments, theta)
        return optax.apply_updates(theta, change), moments, loss

    begin = lambda theta: (theta, adam.init(theta), jnp.zeros(()))  # noqa: E731
    return Stage("adam", settings.adam_steps, begin, step, lambda key: None)


def _lbfgs(pinn: Pinn) -> Stage:
    """L-BFGS, with the line search of optax; it needs the same points in all steps."""
    optimiser = optax.lbfgs(memory_size=LBFGS_MEMORY)

    def step(state, points, _):
        theta, memory, _ = state
        loss = lambda theta: pinn.loss(theta, points)  # noqa: E731
        value, gradient = optax.value_and_grad_from_state(loss)(theta, state=memory)
        change, memory = optimiser.update(gradient, memory, theta, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(theta, change), memory, value

    begin = lambda theta: (theta, optimiser.init(theta), jnp.zeros(()))  # noqa: E731
    return Stage("lbfgs", pinn.settings.steps, begin, step, lambda key: pinn.points(key, pinn.settings.points))


def _gauss_newton(pinn: Pinn) -> Stage:
    """Gauss-Newton on new points for every step."""
    begin = lambda theta: GaussNewton(theta, jnp.asarray(FIRST_DAMPING), jnp.zeros(()))  # noqa: E731
    step = lambda state, _, key: gauss_newton_step(pinn, state, pinn.points(key, pinn.settings.points))  # noqa: E731
    return Stage("gauss_newton", pinn.settings.steps, begin, step, lambda key: None)


FINISHES = {"gauss_newton": _gauss_newton, "lbfgs": _lbfgs}


class GaussNewton(NamedTuple):
    """theta (p,), the damping relative to the mean diagonal of J^T J, and the loss."""

    theta: jax.Array
    damping: jax.Array
    loss: jax.Array


def direction(jacobian, residuals, damping):
    """The solution v (p,) of the least squares |J v - r|^2 + damping trace(J^T J) / p |v|^2, J (n, p), r (n,)."""
    gram = jacobian.T @ jacobian
    shift = damping * jnp.mean(jnp.diagonal(gram))
    factor = jax.scipy.linalg.cho_factor(gram + shift * jnp.eye(len(gram)))
    return jax.scipy.linalg.cho_solve(factor, jacobian.T @ residuals)


def gauss_newton_step(pinn: Pinn, state: GaussNewton, points) -> GaussNewton:
    """One step, on points as ``Pinn.points`` gives them: the best of STEPS along the direction, if the loss decreases.

    The damping falls after a whole step, and grows after a short one, or none.
    """
    residuals, jacobian = pinn.jacobian(state.theta, points)
    loss = jnp.sum(residuals**2)
    v = direction(jacobian, residuals, state.damping)
    losses = jax.lax.map(lambda step: pinn.loss(state.theta - step * v, points), STEPS)
    losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
    best = jnp.argmin(losses)
    better = losses[best] < loss
    theta = jnp.where(better, state.theta - STEPS[best] * v, state.theta)
    factor = jnp.where(better, jnp.where(best == 0, 0.3, jnp.where(best < 3, 1.0, 3.0)), 10.0)
    damping = jnp.clip(state.damping * factor, LEAST_DAMPING, MOST_DAMPING)
    return GaussNewton(theta, damping, jnp.minimum(losses[best], loss))
