"""Densities that importance sampling from a broad one does not find: annealed populations, and given samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, norm, uniform

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.errors import InputError
from nivp_dist.points import annealing
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import Axes, Box, Real, Wall, WholeSpace
from nivp_dist.problems._gaussians import mixture_density
from nivp_dist.settings.model import SamplingSettings

D, KEY = 12, jax.random.key(4)
WEIGHTS, SPREADS = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.5, 0.6])
MEANS = 4.0 * np.eye(D)[:3]  # ten standard deviations apart
COVARIANCES = np.eye(D) * SPREADS[:, None, None] ** 2
SPACE = WholeSpace(D, np.zeros(D), np.ones(D))


def mixture(x):
    """Three Gaussians in twelve dimensions: (n, d) -> (n, 1)."""
    return mixture_density(x, WEIGHTS, MEANS, COVARIANCES, jnp)[:, None]


@pytest.fixture(autouse=True)
def small_population(monkeypatch):
    monkeypatch.setattr(annealing, "POPULATION", 4096)


def by_weight(density):
    order = np.argsort(-np.asarray(density.weights))
    return [np.asarray(part)[order] for part in density]


def test_parts_that_lie_apart_are_found():
    log_values = lambda x: jnp.log(mixture(x)[:, 0])  # noqa: E731
    x = annealing.annealed(KEY, SPACE, log_values)
    assert x is not None and x.shape == (4096, D)
    nearest = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - MEANS, axis=-1), axis=1)
    for k in range(3):
        part = np.asarray(x)[nearest == k]
        # How many members a part has depends on when it was found: narrow parts have too few. None is missed.
        assert len(part) > 0.02 * 4096
        # Within it they are samples. Copies and slow steps leave no less than a tenth of them independent.
        error = 5 * SPREADS[k] / np.sqrt(len(part) / 10)
        np.testing.assert_allclose(part.mean(axis=0), MEANS[k], atol=error)
        np.testing.assert_allclose(part.std(axis=0), SPREADS[k], atol=error)


def test_a_mixture_that_importance_sampling_misses_is_fitted():
    """The weights are right to the sampling error of the last round of importance sampling."""
    sampler = Sampler(SamplingSettings(components=3), SPACE, True, make_mesh(1))
    density = sampler.start(KEY, mixture)
    weights, means, covariances = by_weight(density)
    np.testing.assert_allclose(weights, WEIGHTS, atol=0.02)
    np.testing.assert_allclose(means, MEANS, atol=0.05)
    np.testing.assert_allclose(covariances, COVARIANCES, atol=0.05)
    mass, error = sampler.mass_seen(KEY, density, mixture)
    assert abs(mass - 1) < 5 * error < 0.05


def test_a_narrow_pulse_in_a_box_of_six_dimensions_is_found():
    """It takes 1e-10 of the box, where a hundred thousand uniform points have none."""
    centre, width = np.linspace(-0.5, 0.5, 6), 0.02
    pulse = lambda x: jnp.exp(-jnp.sum((x - centre) ** 2, axis=1, keepdims=True) / (2 * width**2))  # noqa: E731
    density = Sampler(SamplingSettings(), Box(6), False, make_mesh(1)).start(KEY, pulse)
    np.testing.assert_allclose(density.means[0], centre, atol=0.1 * width)
    np.testing.assert_allclose(density.covariances[0], width**2 * np.eye(6), atol=0.1 * width**2)


def test_a_function_that_vanishes_at_all_points_is_not_found():
    assert annealing.annealed(KEY, SPACE, lambda x: jnp.full(len(x), -jnp.inf)) is None


def test_samples_that_the_problem_gives_take_the_place_of_the_search():
    def samples(key, n):
        part = jax.random.categorical(key, jnp.log(WEIGHTS), shape=(n,))
        return jnp.asarray(MEANS)[part] + jnp.asarray(SPREADS)[part, None] * jax.random.normal(key, (n, D))

    sampler = Sampler(SamplingSettings(components=3), SPACE, True, make_mesh(1))
    weights, means, _ = by_weight(sampler.start(KEY, mixture, samples))
    np.testing.assert_allclose(weights, WEIGHTS, atol=0.02)
    np.testing.assert_allclose(means, MEANS, atol=0.05)
    with pytest.raises(InputError, match=r"initial_samples\(key, n\) must give finite numbers \(n, 12\)"):
        sampler.start(KEY, mixture, lambda key, n: jnp.zeros((n, 3)))


def test_the_broad_density_where_one_axis_is_bounded_and_the_other_real():
    domain = Axes(Real(1, 0.5), Wall(0, 2))
    x = np.asarray(annealing._draw_base(domain, KEY))
    assert kstest(x[:, 0], norm(1, 1).cdf).statistic < 0.03 and kstest(x[:, 1], uniform(0, 2).cdf).statistic < 0.03
    logs = annealing._log_base(domain, jnp.asarray([[0.0, 1.0], [1.0, 0.1], [1.0, -0.1]]))
    np.testing.assert_allclose(logs, [-0.5, 0.0, -np.inf])
