"""Problems seen through an OpenBox: where their fronts are, and the log density against the density."""

import jax
import numpy as np
import pytest

from nivp_dist.problems.burgers import BurgersFront
from nivp_dist.problems.fisher_kpp import FisherKPP
from nivp_dist.problems.log_fokker_planck import LogFokkerPlanck

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dimension", [1, 5])
@pytest.mark.parametrize("t", [0.0, 0.4])
def test_fronts_travel_at_their_exact_speeds(dimension, t):
    """Along the diagonal, from u = 1 behind to u = 0 ahead; across it nothing changes."""
    direction = np.ones(dimension) / np.sqrt(dimension)
    across = RANDOM.normal(size=dimension)
    across -= across @ direction * direction
    burgers, kpp = BurgersFront(dimension=dimension), FisherKPP(dimension=dimension)
    # Burgers' front: s = sum(x) = sqrt(d) z moves at d / 2, half its height at the middle.
    middle = (burgers.start + dimension * t / 2) / np.sqrt(dimension)
    far = 30 * burgers.viscosity
    points = np.array([middle - far, middle, middle + far])[:, None] * direction + across
    np.testing.assert_allclose(burgers.reference(points, t), [1, 0.5, 0], atol=1e-5)
    # Ablowitz and Zeppetella's: 5 / sqrt(6), a quarter at the middle.
    middle = kpp.start + 5 / np.sqrt(6) * t
    points = np.array([middle - 40, middle, middle + 40])[:, None] * direction + across
    np.testing.assert_allclose(kpp.reference(points, t), [1, 0.25, 0], atol=1e-6)


def test_fronts_are_finite_far_away():
    x = np.full((1, 5), 1e4)
    for problem in (BurgersFront(), FisherKPP()):
        np.testing.assert_array_equal(problem.reference(x, 1.0), [0.0])
        np.testing.assert_array_equal(problem.reference(-x, 1.0), [1.0])
        assert np.all(np.isfinite(jax.vmap(problem.initial)(np.concatenate([x, -x]).astype(np.float32))))


def test_log_density_is_that_of_a_density_and_of_its_samples():
    problem, t = LogFokkerPlanck(dimension=1), 0.6
    x = np.linspace(-12, 12, 2401)
    density = np.exp(problem.reference(x[:, None], t)) * 0.01
    np.testing.assert_allclose(density.sum(), 1, atol=1e-12)
    samples = LogFokkerPlanck().samples(100_000, t)
    np.testing.assert_allclose(np.cov(samples.T), density @ x**2 * np.eye(9), atol=0.03)
    assert np.array_equal(samples, LogFokkerPlanck().samples(100_000, t)) and samples.shape == (100_000, 9)
    assert not np.array_equal(samples, LogFokkerPlanck().samples(100_000, t, seed=1))
