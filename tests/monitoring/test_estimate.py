"""The error that a run estimates against the error that it has, on problems whose errors do not grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.monitoring.estimate import Estimate
from nivp_dist.points.points import Points, error_weights


def test_contributions_add_up():
    estimate = Estimate(initial=1e-3)
    for rate in (0.1, 0.3):
        estimate = estimate.after_step(h=0.01, residual=rate, step=2e-4)
    assert estimate == pytest.approx((1e-3, 4e-3, 4e-4, 0.0))
    assert estimate.total == pytest.approx(5.4e-3)
    assert estimate.entries()["estimate"] == estimate.total and estimate.entries()[
        "estimate_residual"
    ] == pytest.approx(4e-3)


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
