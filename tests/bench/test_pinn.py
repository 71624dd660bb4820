"""The PINN of the comparison: its residuals, weights and steps, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.bench.pinn import Pinn, Settings, causal, residual_of
from nivp_dist.bench.pinn_training import Training, direction
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.problems.periodic import PeriodicAllenCahn, PeriodicHeat
from nivp_dist.settings.model import NetworkSettings

NETWORK = NetworkSettings(width=6, depth=1, frequencies=1, activation="tanh")


@pytest.fixture(scope="module")
def pinn():
    settings = Settings(windows=4, adam_steps=30, batch=64, steps=12, points=256)
    return Pinn(PeriodicHeat(), NETWORK, 1.0, settings)


def test_an_exact_solution_of_the_heat_equation_has_no_residual():
    heat = PeriodicHeat()
    exact = lambda x, t: jnp.exp(-5 * heat.diffusion * t) * jnp.sin(2 * x[0]) * jnp.cos(x[1])  # noqa: E731
    assert abs(residual_of(heat, exact, jnp.array([0.3, 1.1]), jnp.asarray(0.7))) < 1e-14


def test_the_residual_of_a_nonlinear_equation_is_that_by_hand():
    problem, x, t = PeriodicAllenCahn(), np.array([0.4, 2.0]), 0.6
    u = np.sin(x[0]) * np.cos(t)
    by_hand = -np.sin(x[0]) * np.sin(t) + problem.diffusion * u - u + u**3
    found = residual_of(problem, lambda x, t: jnp.sin(x[0]) * jnp.cos(t), jnp.asarray(x), jnp.asarray(t))
    np.testing.assert_allclose(found, by_hand, rtol=1e-13)


def test_the_logarithm_of_an_exact_density_has_no_residual():
    """An Ornstein-Uhlenbeck process from a Gaussian."""
    problem = LinearFokkerPlanck(dimension=2, rotation=0.0, forcing_amplitude=0.0, separation=0.0, anisotropy=0.0)
    decay = 2 * problem.contraction

    def exact(x, t):
        faded = jnp.exp(-decay * t)
        variance = faded * problem.spread**2 + 2 * problem.diffusion / decay * (1 - faded)
        return -jnp.sum(x**2) / (2 * variance) - jnp.log(2 * jnp.pi * variance)

    for x in ([0.2, -0.1], [2.5, 3.0]):
        assert abs(residual_of(problem, exact, jnp.array(x), jnp.asarray(0.4), log_density=True)) < 1e-12


def test_a_pinn_starts_from_the_initial_condition_and_is_periodic(pinn):
    theta = pinn.initialise(jax.random.key(1))
    x = jax.random.uniform(jax.random.key(2), (5, 2))
    exact = jax.vmap(pinn.problem.initial)(x)
    np.testing.assert_allclose(pinn.solution_values(theta, 0.0, x)[:, 0], exact, rtol=1e-13)
    later, shifted = (pinn.solution_values(theta, 0.8, points) for points in (x, x + 2 * np.pi))
    np.testing.assert_allclose(shifted, later, rtol=1e-11)
    assert np.max(np.abs(later[:, 0] - exact)) > 1e-3


def test_points_are_stratified_in_time(pinn):
    x, t = pinn.points(jax.random.key(0), 64)
    assert x.shape == (64, 2) and np.all(np.floor(np.asarray(t) * 64) == np.arange(64))


def test_causal_weights_fall_with_the_losses_of_earlier_times():
    terms = jnp.array([0.5, 0.5, 1.0, 3.0, 0.0, 0.0])
    np.testing.assert_allclose(causal(terms, 3, 0.2), np.exp([0, 0, -0.2, -0.2, -1.0, -1.0]), rtol=1e-14)
    np.testing.assert_array_equal(causal(terms, 3, 0.0), 1.0)


def test_losses_and_the_jacobian_are_those_of_the_residuals(pinn):
    theta, (x, t) = pinn.initialise(jax.random.key(3)), pinn.points(jax.random.key(4), 8)
    along = jax.random.normal(jax.random.key(5), theta.shape)
    over_points = lambda theta: jax.vmap(lambda x, t: pinn.residual(theta, x, t))(x, t)  # noqa: E731
    derivatives = jax.jit(lambda theta, along: jax.jvp(over_points, (theta,), (along,)))
    values, changes = (np.asarray(each) / np.sqrt(8) for each in derivatives(theta, along))
    residuals, jacobian = jax.jit(pinn.jacobian)(theta, (x, t))
    np.testing.assert_allclose(residuals, values, rtol=1e-12)
    np.testing.assert_allclose(jacobian @ along, changes, rtol=1e-9, atol=1e-12)
    weighted = np.sum(np.asarray(causal(values**2, 4, pinn.settings.causality)) * values**2)
    both = jax.jit(lambda theta: (pinn.loss(theta, (x, t)), pinn.causal_loss(theta, (x, t))))(theta)
    np.testing.assert_allclose(both, [np.sum(values**2), weighted], rtol=1e-12)


def test_the_step_of_gauss_newton_solves_the_damped_least_squares():
    random = np.random.default_rng(0)
    jacobian, residuals, damping = random.standard_normal((20, 6)), random.standard_normal(20), 0.3
    shift = damping * np.sum(jacobian**2) / 6
    rows = np.concatenate([jacobian, np.sqrt(shift) * np.eye(6)])
    dense = np.linalg.lstsq(rows, np.concatenate([residuals, np.zeros(6)]), rcond=None)[0]
    np.testing.assert_allclose(direction(jnp.asarray(jacobian), jnp.asarray(residuals), damping), dense, rtol=1e-10)


@pytest.mark.parametrize("finish, factor", [("gauss_newton", 10.0), ("lbfgs", 2.0)])
def test_a_training_reduces_the_error(pinn, finish, factor):
    pinn = Pinn(pinn.problem, NETWORK, 1.0, pinn.settings._replace(finish=finish))
    x = np.random.default_rng(0).uniform(0, 2 * np.pi, (500, 2))
    reference = pinn.problem.reference(x, 1.0)
    values = jax.jit(lambda theta: pinn.solution_values(theta, 1.0, x)[:, 0])
    course = Training(pinn).course(0, lambda theta: float(np.linalg.norm(values(theta) - reference)))
    assert {entry["stage"] for entry in course} == {"adam", finish}
    assert course[-1]["iteration"] == 12 and course[-1]["error"] < course[0]["error"] / factor
    seconds = [entry["seconds"] for entry in course]
    assert seconds == sorted(seconds)
