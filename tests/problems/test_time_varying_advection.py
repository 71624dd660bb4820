"""The packets' path and start against quadrature and the published numbers."""

import numpy as np
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from nivp_dist.problems.time_varying_advection import TimeVaryingAdvection


def test_displacement_is_the_integral_of_the_velocity():
    problem = TimeVaryingAdvection()
    for t in (0.0, 0.37, 1.8):
        by_quadrature = [quad(lambda s: float(problem.velocity(s)[i]), 0, t, epsabs=1e-12)[0] for i in range(5)]
        np.testing.assert_allclose(problem.displacement(t), by_quadrature, atol=1e-10)


def test_published_start_in_five_dimensions():
    """Means, variances and velocities of the published code, written out."""
    first = multivariate_normal([1.1] * 5, np.diag([0.01, 0.02, 0.03, 0.04, 0.05]))
    second = multivariate_normal([1.25, 0.875, 1.5, 0.625, 1.75], np.diag([0.025, 0.02, 0.015, 0.01, 0.005]))
    x = 1.1 + 0.3 * np.random.default_rng(0).normal(size=(200, 5))
    values = TimeVaryingAdvection().reference(x, 0.0)
    np.testing.assert_allclose(values, (first.pdf(x) + second.pdf(x)) / 2, rtol=1e-10)
    frequencies = np.pi * np.array([2, 2.5, 3, 3.5, 4])
    speed = np.arange(1, 6)
    velocity = speed * np.sin(0.3 * frequencies) + 1.25 * speed
    np.testing.assert_allclose(TimeVaryingAdvection().velocity(0.3), velocity, rtol=1e-12)


def test_statistics_move_with_the_displacement():
    problem, t = TimeVaryingAdvection(dimension=3), 0.9
    start, moved = problem.statistics(0.0), problem.statistics(t)
    np.testing.assert_allclose(moved["mean"] - start["mean"], problem.displacement(t))
    np.testing.assert_allclose(moved["covariance"], start["covariance"])
    np.testing.assert_allclose(moved["mass"], 1.0)
    np.testing.assert_allclose(np.sqrt(np.diag(start["covariance"])), problem.domain.scale)
