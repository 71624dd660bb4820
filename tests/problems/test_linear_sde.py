"""Moments and densities of linear SDEs against matrix exponentials, closed forms, sampling and scipy."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm, solve_continuous_lyapunov
from scipy.stats import multivariate_normal

from nivp_dist.problems._gaussians import linear_transition, mixture_density, mixture_moments, move_mixture
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.problems.moving_trap import MovingTrap


def test_transition_against_matrix_exponentials():
    rng = np.random.default_rng(0)
    drift = rng.normal(size=(4, 4)) - 2 * np.eye(4)
    noise = rng.normal(size=(4, 3))
    constant, t = rng.normal(size=4), 1.3
    flow, shift, spread = linear_transition(drift, lambda s: constant, noise @ noise.T, t)
    exact = expm(drift * t)
    np.testing.assert_allclose(flow, exact, atol=1e-11)
    np.testing.assert_allclose(shift, np.linalg.solve(drift, (exact - np.eye(4)) @ constant), atol=1e-11)
    # Sigma = S - E S E^T with A S + S A^T + B B^T = 0
    stationary = solve_continuous_lyapunov(drift, -noise @ noise.T)
    np.testing.assert_allclose(spread, stationary - exact @ stationary @ exact.T, atol=1e-11)


def test_transition_at_time_zero_is_the_identity():
    flow, shift, spread = linear_transition(-np.eye(2), lambda s: np.ones(2), np.eye(2), 0.0)
    np.testing.assert_array_equal(flow, np.eye(2))
    assert not shift.any() and not spread.any()


def test_mixture_density_against_scipy():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(2, 3, 3))
    weights, means, covariances = np.array([0.3, 0.7]), rng.normal(size=(2, 3)), roots @ roots.transpose(0, 2, 1)
    x = rng.normal(size=(50, 3))
    exact = sum(w * multivariate_normal(m, c).pdf(x) for w, m, c in zip(weights, means, covariances))
    np.testing.assert_allclose(mixture_density(x, weights, means, covariances, np), exact, rtol=1e-9)


def test_mixture_moments_by_sampling():
    weights, means = np.array([0.25, 0.75]), np.array([[2.0, 0.0], [-1.0, 1.0]])
    covariances = np.array([np.diag([1.0, 0.5]), [[0.5, 0.2], [0.2, 0.4]]])
    rng = np.random.default_rng(2)
    which = rng.random(400_000) < 0.25
    x = np.where(which[:, None], *(rng.multivariate_normal(m, c, 400_000) for m, c in zip(means, covariances)))
    mass, mean, covariance = mixture_moments(weights, means, covariances)
    assert mass == 1
    np.testing.assert_allclose(mean, x.mean(0), atol=0.02)
    np.testing.assert_allclose(covariance, np.cov(x.T), atol=0.02)


@pytest.mark.parametrize("t", [0.5, 8.0])
def test_moving_trap_against_closed_forms(t):
    """The mean splits into its average and the rest, the covariance into the diagonal direction and the rest."""
    problem = MovingTrap()
    d, start = 8, np.linspace(0.9, 3, 8)
    trap = lambda s: 1.25 * (np.sin(np.pi * s) + 1.5)  # noqa: E731
    driven = quad(lambda s: np.exp(s - t) * trap(s), 0, t, epsabs=1e-13, limit=200)[0]
    mean = np.exp(-t) * start.mean() + driven + np.exp(-1.25 * t) * (start - start.mean())
    variance = lambda rate: 0.1 * np.exp(-2 * rate * t) - 0.01 / rate * np.expm1(-2 * rate * t)  # noqa: E731
    average = np.ones((d, d)) / d
    statistics = problem.statistics(t)
    np.testing.assert_allclose(statistics["mass"], 1.0)
    np.testing.assert_allclose(statistics["mean"], mean, rtol=1e-11)
    np.testing.assert_allclose(
        statistics["covariance"], variance(1.0) * average + variance(1.25) * (np.eye(d) - average), atol=1e-12
    )
    x = mean + 0.1 * np.random.default_rng(3).normal(size=(20, d))
    exact = multivariate_normal(mean, statistics["covariance"]).pdf(x)
    np.testing.assert_allclose(problem.reference(x, t), exact, rtol=1e-9)


def test_mixture_against_simulated_paths():
    """Euler-Maruyama paths of the default problem: mean, covariance and the weight of one component's side."""
    problem, t, steps, n = LinearFokkerPlanck(dimension=2), 0.7, 350, 40_000
    rng = np.random.default_rng(4)
    h, drift, noise = t / steps, problem.drift_matrix(), problem.diffusion_matrix()
    weights, means, covariances = problem.mixture()
    which = rng.choice(2, n, p=weights)
    x = means[which] + rng.normal(size=(n, 2)) @ np.linalg.cholesky(covariances[0]).T
    for step in range(steps):
        forcing = 0.5 * np.sin(np.pi * (step + 0.5) * h) * np.ones(2)
        x = x + h * (x @ drift.T + forcing) + np.sqrt(h) * rng.normal(size=(n, 2)) @ noise.T
    statistics = problem.statistics(t)
    np.testing.assert_allclose(x.mean(0), statistics["mean"], atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), statistics["covariance"], atol=0.025)
    for component in (0, 1):
        moved = move_mixture(problem.mixture(), linear_transition(drift, problem.forcing, noise @ noise.T, t))[1][
            component
        ]
        np.testing.assert_allclose(x[which == component].mean(0), moved, atol=0.025)


def test_density_integrates_to_its_statistics():
    problem, t = LinearFokkerPlanck(dimension=2), 1.1
    axis = np.linspace(-5, 5, 301)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    density = problem.reference(x, t) * (axis[1] - axis[0]) ** 2
    mean = density @ x
    statistics = problem.statistics(t)
    np.testing.assert_allclose(density.sum(), 1, atol=1e-10)
    np.testing.assert_allclose(mean, statistics["mean"], atol=1e-10)
    np.testing.assert_allclose(
        np.einsum("n,ni,nj->ij", density, x - mean, x - mean), statistics["covariance"], atol=1e-9
    )


def test_whole_space_domain_follows_the_start():
    problem = LinearFokkerPlanck()
    np.testing.assert_allclose(problem.domain.centre, [-0.2, 0, 0], atol=1e-14)
    np.testing.assert_allclose(problem.domain.scale, [np.sqrt(0.25 + 4 * 0.24), 0.5, 0.5])
    np.testing.assert_allclose(MovingTrap().domain.centre, np.linspace(0.9, 3, 8))
    np.testing.assert_allclose(MovingTrap().domain.scale, np.sqrt(0.1))
