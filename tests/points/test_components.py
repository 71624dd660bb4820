"""How many parts a population of the initial density shows to have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.points import components
from nivp_dist.points.components import Parts, parts_of
from nivp_dist.problems import Problem, WholeSpace
from nivp_dist.problems._gaussians import mixture_density


class Start(Problem):
    """An initial density alone."""

    density = True
    dimension: int = 4

    @property
    def domain(self):
        return WholeSpace(self.dimension, 0.0, 1.5)


class ThreeParts(Start):
    """Gaussians of three widths and weights, at distances of 5 to 10 of their widths."""

    dimension: int = 8

    def initial(self, x):
        means = 3.0 * np.eye(8)[:3]
        covariances = np.eye(8) * np.array([0.6, 0.4, 0.5])[:, None, None] ** 2
        return 7.0 * mixture_density(x, np.array([0.5, 0.3, 0.2]), means, covariances, jnp)


class OneGaussian(Start):
    def initial(self, x):
        return jnp.exp(-jnp.sum((x - 0.3) ** 2 / jnp.array([0.1, 0.3, 1.0, 2.0])))


class HeavyTails(Start):
    """Student's density with six degrees of freedom: one part, which takes several Gaussians of one centre."""

    def initial(self, x):
        return (1 + jnp.sum(x**2) / 2) ** -5.0


class Sech(Start):
    """A product that no few Gaussians make up."""

    def initial(self, x):
        return jnp.prod(1 / jnp.cosh(2 * x))


class TwoGiven(Start):
    """Two parts, of which the problem gives samples."""

    dimension: int = 8

    def initial_samples(self, key, n):
        sides = 2.0 * jax.random.bernoulli(key, shape=(n, 1)) - 1.0
        return 3.0 * sides * np.eye(8)[0] + 0.6 * jax.random.normal(jax.random.fold_in(key, 1), (n, 8))

    def initial(self, x):
        covariances = np.eye(8) * np.full(2, 0.6)[:, None, None] ** 2
        return mixture_density(x, np.full(2, 0.5), np.array([3.0, -3.0])[:, None] * np.eye(8)[0], covariances, jnp)


@pytest.mark.parametrize("seed", [0, 1])
def test_distant_parts_are_counted_whatever_the_mass(seed):
    assert parts_of(ThreeParts(), seed) == Parts(3, True)


@pytest.mark.parametrize("problem", [OneGaussian(), Sech()])
def test_one_gaussian_is_taken_where_more_do_not_make_up_the_density(problem):
    assert parts_of(problem, 0) == Parts(1, True)


def test_gaussians_of_one_centre_are_no_parts():
    found = parts_of(HeavyTails(), 0)
    assert 2 <= found.count <= 4 and not found.distinct


def test_samples_of_the_problem_take_the_place_of_a_search(monkeypatch):
    monkeypatch.setattr(components, "annealed", None)
    assert parts_of(TwoGiven(), 0) == Parts(2, True)


def test_a_density_that_is_not_found_has_one_part(monkeypatch):
    monkeypatch.setattr(components, "annealed", lambda *arguments: None)
    assert parts_of(ThreeParts(), 0) == Parts(1, True)
