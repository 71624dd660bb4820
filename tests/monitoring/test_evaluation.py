"""Scores against errors that are known in closed form."""

import jax.numpy as jnp
import numpy as np

from nivp_dist import Box, Problem
from nivp_dist.backend.mesh import make_mesh
from nivp_dist.monitoring.evaluation import Scorer
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import WholeSpace
from nivp_dist.settings.model import SamplingSettings


class Parabola(Problem):
    """Known until t = 1."""

    @property
    def domain(self):
        return Box(1)

    @property
    def reference_until(self):
        return 1.0

    def reference(self, x, t):
        return 1 - x[:, 0] ** 2


class Gaussian(Problem):
    @property
    def domain(self):
        return WholeSpace(1)

    def reference(self, x, t):
        return np.exp(-(x[:, 0] ** 2) / 2)


class Exact:
    """A network that is the reference plus theta x^2 times it."""

    def __init__(self, values):
        self.reference = values

    def solution_values(self, theta, t, x):
        return self.reference(x) * (1 + theta * x**2)


def scorer(problem, values):
    sampler = Sampler(SamplingSettings(), problem.domain, False, make_mesh(1))
    return Scorer(problem, Exact(values), sampler, 20_000, 0), sampler.broadest()


def test_relative_error_on_a_box_and_none_past_the_reference():
    """|x^2 u| / |u| for u = 1 - x^2 on [-1, 1]: squares 2 (1/5 - 2/7 + 1/9) and 16/15."""
    score, density = scorer(Parabola(), lambda x: 1 - x**2)
    exact = np.sqrt(2 * (1 / 5 - 2 / 7 + 1 / 9) / (16 / 15))
    np.testing.assert_allclose(score.score(0.01, density, 1.0, 0).relative_l2, 0.01 * exact, rtol=0.02)
    past = score.score(0.01, density, 1.001, 0)
    assert np.isnan(past.relative_l2)
    np.testing.assert_allclose(past.mass, 4 / 3, rtol=0.02)


def test_relative_error_on_the_whole_space_is_weighted_by_the_reference():
    """E x^4 r^3 over E r^3 with r = exp(-x^2 / 2): the fourth moment of variance 1/3, of which the root."""
    score, density = scorer(Gaussian(), lambda x: jnp.exp(-(x**2) / 2))
    found = score.score(0.01, density, 0.0, 0).relative_l2
    np.testing.assert_allclose(found, 0.01 * np.sqrt(3 / 9), rtol=0.02)
