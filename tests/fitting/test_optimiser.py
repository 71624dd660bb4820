"""Minibatch steps of the optimisers of optax, on a linear least-squares problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.fitting.optimiser import FINAL_RATE, ROUND, OptimiserSteps
from nivp_dist.points.points import Points
from nivp_dist.settings.fits import FitSettings
from nivp_dist.settings.optimisers import OPTIMISERS

BATCH, STAR = 4, np.array([1.0, -2.0, 0.5])


class Linear:
    """u(x; theta) = theta . x, with three parameters."""

    size = 3

    def field(self, theta, x):
        return x @ theta[:, None]


class Draws:
    """Draws of points as a sampler makes them, uniform in a cube."""

    mesh = make_mesh(1)

    def draw(self, key, density, n):
        return Points(jax.random.uniform(key, (n, 3), minval=-1.0), jnp.full(n, 1 / n), jnp.zeros(n))


def steps_of(name, **settings):
    settings = {"steps": 2 * ROUND, "batch": BATCH, "learning_rate": 0.05} | settings
    fit = FitSettings(method="optimiser", optimiser=name, **settings)
    return OptimiserSteps(Linear(), Draws(), fit, lambda _, x: x @ STAR[:, None])


def rounds(steps, theta, count, copy=lambda array: array):
    state = jnp.asarray(steps.first)
    for k in range(count):
        theta, state = steps.round(copy(theta), copy(state), jax.random.key(k), None, None)
    return np.asarray(theta)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_goes_on_from_a_copy_of_its_state(name):
    """In checkpoints the state is a vector of float64, whatever the tree of optax is."""
    steps, zero = steps_of(name), jnp.zeros(3)
    through_host = lambda array: jnp.asarray(np.array(array))  # noqa: E731
    whole, copied = rounds(steps, zero, 2), rounds(steps_of(name), zero, 2, through_host)
    np.testing.assert_array_equal(copied, whole)
    assert 0 < np.linalg.norm(whole - STAR) < np.linalg.norm(STAR)
    assert steps.first.dtype == np.float64
    # The state matters: at its first value in the second round the optimiser goes elsewhere.
    one, _ = steps.round(zero, jnp.asarray(steps.first), jax.random.key(0), None, None)
    again, _ = steps.round(one, jnp.asarray(steps.first), jax.random.key(1), None, None)
    assert not np.array_equal(again, whole)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_first_state_is_that_of_all_parameters(name):
    rule = getattr(optax, name)(1e-2)
    states = [jax.tree.leaves(rule.init(jnp.asarray(theta))) for theta in (np.zeros(3), STAR)]
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_steps_are_those_of_optax_under_a_cosine_schedule():
    """Gradient descent, written out with numpy."""
    steps = steps_of("sgd")
    points = Draws().draw(jax.random.key(0), None, BATCH * ROUND)
    theta = np.zeros(3)
    for k in range(ROUND):
        x = np.asarray(points.x)[k::ROUND]
        gradient = 2 * x.T @ (x @ (theta - STAR)) / BATCH
        rate = 0.05 * ((1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * k / (2 * ROUND))) + FINAL_RATE)
        theta = theta - rate * gradient
    np.testing.assert_allclose(rounds(steps, jnp.zeros(3), 1), theta, rtol=1e-9)


@pytest.mark.parametrize("wrong, words", [("adm", "did you mean adam"), ("lbfgs", "there are adabelief, adadelta")])
def test_an_unknown_optimiser_is_one_line(wrong, words):
    with pytest.raises(ValueError, match=rf"fit.optimiser must be an optimiser of optax .*, got '{wrong}'; {words}"):
        FitSettings(optimiser=wrong)
    assert FitSettings(optimiser="AdamW").optimiser == "adamw"


def test_adam_is_a_method_too():
    both = FitSettings(method="adam_then_gauss_newton")
    assert (both.method, both.optimiser) == ("optimiser_then_gauss_newton", "adam")
    with pytest.raises(ValueError, match="fit.method = 'adam' is not fit.optimiser = 'lion': set fit.method = 'optim"):
        FitSettings(method="adam", optimiser="lion")
