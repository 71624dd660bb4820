"""Densities as results: integrals, marginals and samples against exact Gaussian mixtures."""

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal, norm

from nivp_dist.points import densities
from nivp_dist.problems import Axes, Periodic, Real


def test_drawn_points_come_with_one_over_their_density():
    random = np.random.default_rng(2)
    root = random.normal(size=(2, 3, 3))
    covariances = root @ root.swapaxes(1, 2)
    stored = {"density_weights": np.array([0.3, 0.7]), "density_means": random.normal(size=(2, 3))}
    stored["density_covariances"] = covariances
    x, inverse = densities.draw_points(stored, 2000)
    q = 0
    for share, factor in ((0.8, 1.5), (0.2, 6.0)):
        for k in range(2):
            gaussian = multivariate_normal(stored["density_means"][k], factor * covariances[k])
            q = q + share * stored["density_weights"][k] * gaussian.pdf(x)
    np.testing.assert_allclose(inverse, 1 / q, rtol=1e-9)


def test_points_of_a_domain_with_bounded_and_real_axes():
    """A fifth is uniform along the periodic axis, and of the mixture along the real one."""
    domain, covariance = Axes(Periodic(0, 2), Real()), np.array([[0.5, 0.2], [0.2, 0.4]])
    stored = {"density_weights": np.ones(1), "density_means": np.array([[1.5, 0.3]])}
    x, inverse = densities.draw_points(stored | {"density_covariances": covariance[None]}, 20_000, domain=domain)
    inside = domain.contains(x)
    q = 0
    for share, factor in ((0.8, 1.5), (0.2, 6.0)):
        q = q + 0.8 * share * multivariate_normal([1.5, 0.3], factor * covariance).pdf(x)
        q = q + 0.2 * share * inside / 2 * norm(0.3, np.sqrt(factor * 0.4)).pdf(x[:, 1])
    np.testing.assert_allclose(inverse, 1 / q, rtol=1e-9)
    integrals = inside * inverse * norm(0, 0.5).pdf(x[:, 1]) * np.stack([np.ones(len(x)), x[:, 0] ** 2])
    error = integrals.std(axis=1) / np.sqrt(len(x))
    assert np.all(np.abs(integrals.mean(axis=1) - [2.0, 8 / 3]) < 4 * error) and np.all(error < 0.05)


def test_marginals_against_the_exact_ones():
    """Of two Gaussians in d = 3, from points of a mixture that fits neither."""
    stored = {
        "density_weights": np.ones(1),
        "density_means": np.zeros((1, 3)),
        "density_covariances": np.diag([1.3, 0.4, 0.3])[None],
    }
    x, inverse = densities.draw_points(stored, 100_000)
    u = 0.6 * multivariate_normal([-1, 0, 0], 0.25).pdf(x) + 0.4 * multivariate_normal([1, 0.3, 0], 0.25).pdf(x)
    edges = np.linspace(-3, 3, 31)
    first = 0.6 * np.diff(norm(-1, 0.5).cdf(edges)) + 0.4 * np.diff(norm(1, 0.5).cdf(edges))
    second = 0.6 * np.diff(norm(0, 0.5).cdf(edges)) + 0.4 * np.diff(norm(0.3, 0.5).cdf(edges))
    for i, exact in ((0, first), (1, second)):
        np.testing.assert_allclose(densities.marginal(x[:, [i]], u * inverse, [edges]) * 0.2, exact, atol=0.004)


def mixture(d):
    """0.3 N(-1.5 e1, I/4) + 0.7 N(+1.5 e1, I): its density (unnormalised), and the cdf of x1."""
    low, high = -1.5 * np.eye(d)[0], 1.5 * np.eye(d)[0]

    def density(x):
        first = 0.3 * np.exp(-2 * np.sum((x - low) ** 2, axis=1)) * 2.0**d
        return 5.0 * (first + 0.7 * np.exp(-np.sum((x - high) ** 2, axis=1) / 2))

    return density, lambda x: 0.3 * norm(-1.5, 0.5).cdf(x) + 0.7 * norm(1.5, 1.0).cdf(x)


def crude(d):
    """One Gaussian of the mixture's mean and some of its spread: it fits neither component."""
    covariance = np.diag(np.append(2.6, np.full(d - 1, 0.8)))
    return {
        "density_weights": np.ones(1),
        "density_means": 0.6 * np.eye(d)[:1],
        "density_covariances": covariance[None],
    }


def fitted(d):
    """Two Gaussians as a run fits them: off by a tenth of a width, and a third too wide."""
    means = np.array([-1.4, 1.6])[:, None] * np.eye(d)[0]
    covariances = 1.3 * np.array([0.25, 1.0])[:, None, None] * np.eye(d)
    return {"density_weights": np.array([0.4, 0.6]), "density_means": means, "density_covariances": covariances}


@pytest.mark.parametrize("stored, d, tolerance", [(crude, 2, 0.03), (fitted, 20, 0.05)])
def test_samples_have_the_exact_marginals(stored, d, tolerance):
    density, cdf = mixture(d)
    x = densities.samples(stored(d), density, 4000, seed=3)
    assert x.shape == (4000, d)
    assert len(np.unique(x, axis=0)) > 3900  # the walk has parted what resampling had duplicated
    # 0.03 is where 4000 independent samples would be refused at 1e-3; common ancestors make them fewer.
    assert kstest(x[:, 0], cdf).statistic < tolerance
    other = lambda y: 0.3 * norm(0, 0.5).cdf(y) + 0.7 * norm(0, 1).cdf(y)  # noqa: E731
    assert kstest(x[:, 1], other).statistic < tolerance


def test_samples_depend_on_the_seed_only():
    density = mixture(2)[0]
    one, same, other = (densities.samples(crude(2), density, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.all(one != other)


def test_a_density_that_vanishes_everywhere_is_an_error():
    stored = {"density_weights": np.ones(1), "density_means": np.zeros((1, 2)), "density_covariances": np.eye(2)[None]}
    with pytest.raises(ValueError, match="vanishes at all points"):
        densities.samples(stored, lambda x: np.zeros(len(x)), 10)
