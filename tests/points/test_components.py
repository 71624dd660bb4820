"""How many parts a population of the initial density shows to have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import InputError
from nivp_dist.points import components
from nivp_dist.points.components import parts_of, population_of
from nivp_dist.points.tails import stays_quadratic
from nivp_dist.problems import Problem, WholeSpace, divergence, gradient, laplacian
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


def found(problem, seed=0, count=None):
    """The number of parts, whether they are distinct, and whether they are all of the density."""
    population = population_of(problem, seed)
    assert population is not None
    parts = parts_of(problem, population, seed, count)
    return len(parts.mixture.weights), parts.distinct, parts.exact


@pytest.mark.parametrize("seed", [0, 1])
def test_distant_parts_are_counted_whatever_the_mass(seed):
    assert found(ThreeParts(), seed)[:2] == (3, True)


def test_a_mixture_is_known_as_one():
    assert found(ThreeParts(), 1) == (3, True, True)


def test_another_number_than_theirs_leaves_something():
    assert found(ThreeParts(), count=2)[::2] == (2, False)


@pytest.mark.parametrize("problem, exact", [(OneGaussian(), True), (Sech(), False)])
def test_one_gaussian_is_taken_where_more_do_not_make_up_the_density(problem, exact):
    assert found(problem) == (1, True, exact)


def test_gaussians_of_one_centre_are_no_parts():
    count, distinct, _ = found(HeavyTails())
    assert 2 <= count <= 4 and not distinct


def test_samples_of_the_problem_take_the_place_of_a_search(monkeypatch):
    monkeypatch.setattr(components, "annealed", None)
    assert found(TwoGiven()) == (2, True, True)


class Drifting(OneGaussian):
    """A Gaussian that a drift -x |x|^(power - 1) contracts, with diffusion: d log u / dt is of the order power + 1."""

    power: int = 1

    def rhs(self, u, x, t):
        drift = lambda x: x * jnp.sum(x**2) ** ((self.power - 1) / 2)  # noqa: E731
        return laplacian(u, x) + divergence(lambda x: drift(x) * u(x), x)


class Pulled(OneGaussian):
    """The same with a force that depends on its mean, as rhs takes it."""

    def integrals(self, u, x, t):
        return x[:1] * u(x)

    def rhs(self, u, x, t, integrals):
        return laplacian(u, x) + integrals[0] * gradient(u, x)[0]


@pytest.mark.parametrize("problem, stays", [(Drifting(), True), (Drifting(power=3), False), (Pulled(), True)])
def test_a_rate_that_grows_faster_than_a_quadratic_form_is_seen(problem, stays):
    population = population_of(problem, 0)
    mixture = parts_of(problem, population, 0).mixture
    assert stays_quadratic(problem, mixture, 0, 0.0) is stays


def test_samples_that_are_none_are_refused():
    class Wrong(TwoGiven):
        def initial_samples(self, key, n):
            return jnp.zeros((n, 3))

    with pytest.raises(InputError, match=r"initial_samples\(key, n\) must give finite numbers \(n, 8\), not"):
        population_of(Wrong(), 0)
