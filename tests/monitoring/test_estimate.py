"""The error that a run estimates against the error that it has, on problems whose errors do not grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.monitoring.estimate import INDEPENDENT, Estimate
from nivp_dist.points.points import Points, error_weights


def test_contributions_add_up():
    estimate = Estimate(initial=1e-3)
    for rate in (0.1, 0.3):
        estimate = estimate.after_step(h=0.01, residual=rate, step=2e-4)
    estimate = estimate.after_refit(5e-3)
    squares = 1e-6 + 9e-6 + 2 * 4e-8 + 25e-6
    assert estimate == pytest.approx((1e-3, 4e-3, 4e-4, 5e-3, squares))
    assert estimate.bound == pytest.approx(10.4e-3)
    assert estimate.entries()["estimate_bound"] == estimate.bound and estimate.entries()["estimate"] == estimate.error
    assert estimate.entries()["estimate_residual"] == pytest.approx(4e-3)
    assert estimate.error == estimate.bound  # which is less than twice the root of the squares


def test_independent_contributions_grow_as_the_root_of_their_number():
    estimate, random, errors = Estimate(), np.random.default_rng(0), np.zeros((400, 3))
    for _ in range(400):
        estimate = estimate.after_step(h=0.1, residual=1e-3, step=0.0)
        errors += 1e-4 * random.choice([-1, 1], (400, 1)) * np.eye(3)[random.integers(3, size=400)]
    assert estimate.bound == pytest.approx(0.04) and estimate.error == pytest.approx(INDEPENDENT * 2e-3)
    # Steps in random directions: the mean square of their sum is the sum of the squares.
    assert np.sqrt(np.mean(np.sum(errors**2, axis=1))) == pytest.approx(2e-3, rel=0.1)


def test_the_error_of_the_start_is_counted_once():
    assert Estimate(initial=3e-3).error == 3e-3


def test_weights_of_a_log_density_are_those_of_the_density():
    """E_u g from points of another law, against the exact Gaussian moment; padding counts for nothing."""
    x = np.random.default_rng(0).normal(0.3, 1.5, (200_000, 1))
    proposal = np.exp(-((x[:, 0] - 0.3) ** 2) / 4.5) / np.sqrt(4.5 * np.pi)
    measure = np.append(1 / proposal, 0.0) / len(x)
    x = np.append(x, [[0.0]], axis=0)
    log_u = 700.0 - x**2 / 2  # unnormalised, as a log density may be
    points = Points(jnp.asarray(x), jnp.ones(len(x)), jnp.asarray(measure))
    weights = np.asarray(jax.jit(lambda p, q: error_weights(p, q, True))(points, jnp.asarray(log_u)))
    assert weights[-1] == 0 and np.isfinite(weights).all()
    assert np.sum(weights * x[:, 0] ** 4) / np.sum(weights) == pytest.approx(3.0, rel=0.02)
    assert error_weights(points, jnp.asarray(log_u), False) is points.weights
