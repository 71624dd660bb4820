"""Observables of stored solutions: against an exact Gaussian mixture, and in a box against quadrature."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.stats import chi2, kstest, multivariate_normal, norm

from nivp_dist import Config, open_run
from nivp_dist.network.network import build_network
from nivp_dist.problems.registry import load
from nivp_dist.run.observables import StoredDensity
from nivp_dist.storage import run_directory, snapshots

MASSES, MEANS = np.array([0.3, 0.7]), np.array([[-1.0, 0.2, 0.0], [1.0, 0.0, 0.5]])
COVARIANCES = np.array([0.25, 0.64])[:, None, None] * np.array([[1, 0.3, 0], [0.3, 1, 0], [0, 0, 1]])
ERRORS = 4.0  # standard errors within which results are asked to be; the points are the same in every run of the tests


def stored(folder, config, theta, density):
    """A run with one snapshot, at t = 0."""
    directory = run_directory.create(config, folder, "run")
    names = ("density_weights", "density_means", "density_covariances")
    snapshots.save(directory, 0.0, {"theta": theta} | dict(zip(names, density)))
    return open_run(directory)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """log u is exactly that of 5 times a mixture of two Gaussians; its points are drawn from one that fits neither."""
    settings = {"network": {"gaussians": 2, "width": 4, "depth": 1}, "sampling": {"components": 2}}
    problem = {"name": "linear_fokker_planck", "parameters": {"dimension": 3}}
    config = Config(problem=problem, **settings)
    network = build_network(config.network, load(config.problem))
    theta = np.array(network.initialise_near(jax.random.key(0), 5 * MASSES, MEANS, COVARIANCES))
    (head,) = (layer for layer in network.layers if layer.path[-1] == "head")
    theta[head.start : head.stop] = 0.0
    density = np.ones(1), np.array([[0.4, 0.0, 0.3]]), np.diag([1.5, 0.7, 0.7])[None]
    return stored(tmp_path_factory.mktemp("mixture") / "run", config, theta, density)


def near(estimate, exact):
    assert np.all(np.abs(estimate.value - exact) <= ERRORS * estimate.error), (estimate, exact)


def cdf(axis):
    parts = [norm(mean[axis], np.sqrt(covariance[axis, axis])) for mean, covariance in zip(MEANS, COVARIANCES)]
    return lambda x: sum(mass * part.cdf(x) for mass, part in zip(MASSES, parts))


def test_the_density_is_the_mixture(mixture):
    x = np.random.default_rng(0).normal(size=(20, 3))
    exact = sum(5 * mass * multivariate_normal(*part).pdf(x) for mass, *part in zip(MASSES, MEANS, COVARIANCES))
    np.testing.assert_allclose(mixture.solution(0)(x)[:, 0], exact, rtol=1e-9)


def test_expectations_of_functions(mixture):
    moments = mixture.expectation(0, lambda x: np.stack([x[:, 0], x[:, 0] * x[:, 1], np.exp(x[:, 2])], axis=1))
    mean, product = MASSES @ MEANS[:, 0], MASSES @ (COVARIANCES[:, 0, 1] + MEANS[:, 0] * MEANS[:, 1])
    near(moments, [mean, product, MASSES @ np.exp(MEANS[:, 2] + COVARIANCES[:, 2, 2] / 2)])
    assert moments.value.shape == moments.error.shape == (3,)
    assert np.all((moments.error > 0) & (moments.error < 0.05))
    one = mixture.expectation(0, lambda x: np.ones(len(x)))
    assert one.value == pytest.approx(1, rel=1e-12) and one.error < 1e-12
    more = mixture.expectation(0, lambda x: x[:, 0], points=160_000)
    assert more.error == pytest.approx(moments.error[0] / 2, rel=0.05)
    with pytest.raises(ValueError, match="one value for each of 40000 points, got the shape"):
        mixture.expectation(0, lambda x: x[:5, 0])


def test_the_probability_of_a_set(mixture):
    near(mixture.probability(0, lambda x: x[:, 0] > 0.3), 1 - cdf(0)(0.3))
    ball = mixture.probability(0, lambda x: np.linalg.norm(x - MEANS[1], axis=1) < 1)
    random = np.random.default_rng(1)
    which = random.choice(2, 400_000, p=MASSES)
    normals = np.linalg.cholesky(COVARIANCES)[which] @ random.standard_normal((400_000, 3, 1))
    near(ball, np.mean(np.linalg.norm(MEANS[which] + normals[..., 0] - MEANS[1], axis=1) < 1))


def test_quantiles_of_a_coordinate_and_of_a_function(mixture):
    levels = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    found = mixture.quantiles(0, 0, levels)
    grid = np.linspace(-5, 5, 100_001)
    near(found, np.interp(levels, cdf(0)(grid), grid))
    assert np.all(found.error < [0.1, 0.05, 0.05, 0.05, 0.1])
    scaled = mixture.quantiles(0, lambda x: 1 + 2 * x[:, 0], levels)
    np.testing.assert_allclose(scaled.value, 1 + 2 * found.value, rtol=1e-9)
    assert mixture.quantiles(0, 1, 0.5).value.shape == ()
    with pytest.raises(ValueError, match="levels must lie between 0 and 1, got"):
        mixture.quantiles(0, 0, [0.5, 1.0])


def test_marginals_and_the_size_of_their_errors(mixture):
    """Over 60 bins the squares of (value - exact) / error have the mean that those of normal deviates have."""
    edges, squares = np.linspace(-2, 2, 21), []
    for axis in range(3):
        found, exact = mixture.marginal(0, axis, edges), np.diff(cdf(axis)(edges)) / 0.2
        near(found, exact)
        squares.append(((found.value - exact) / found.error) ** 2)
    assert chi2(60).ppf(1e-3) < np.sum(squares) < chi2(60).ppf(1 - 1e-3)


def test_the_joint_marginal_of_two_coordinates(mixture):
    edges = np.linspace(-3, 3, 7), np.linspace(-2, 2, 5)
    found = mixture.marginal(0, (0, 2), edges)
    assert found.value.shape == (6, 4)
    boxes = np.zeros((6, 4))
    for mass, mean, covariance in zip(MASSES, MEANS, COVARIANCES):  # x1 and x3 are independent in each Gaussian
        first, third = (norm(mean[axis], covariance[axis, axis] ** 0.5) for axis in (0, 2))
        boxes += mass * np.outer(np.diff(first.cdf(edges[0])), np.diff(third.cdf(edges[1])))
    seen = boxes > 1e-4  # few points lie in the others
    assert np.all((np.abs(found.value - boxes) <= ERRORS * found.error)[seen])
    alone = mixture.marginal(0, 0, edges[0])
    wide = mixture.marginal(0, (0, 2), (edges[0], np.array([-50.0, 50.0])))
    np.testing.assert_allclose(wide.value[:, 0] * 100, alone.value, rtol=1e-9)


def test_samples_of_a_log_density(mixture):
    x = mixture.samples(0, 4000, seed=1)
    assert all(kstest(x[:, axis], cdf(axis)).statistic < 0.03 for axis in range(3))


def test_too_few_effective_points_are_a_warning(mixture):
    with pytest.warns(UserWarning, match=r"only \d+ of 100 points are effective: .*take more points"):
        mixture.expectation(0, lambda x: x[:, 0], points=100)


# ------------------------------------------------------------------------------------------------- in a box


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """u = exp(network) in a box with walls, and a quadrature: nodes (n, 2) and weights times u (n,), of sum one. The
    points are drawn from a Gaussian in one corner."""
    config = Config(problem={"name": "heat"}, network={"form": "exponential", "width": 5, "depth": 1, "frequencies": 1})
    network = build_network(config.network, load(config.problem))
    theta = np.asarray(network.initialise(jax.random.key(3)))
    density = np.ones(1), np.array([[0.5, 0.5]]), 0.02 * np.eye(2)[None]
    run = stored(tmp_path_factory.mktemp("box") / "run", config, theta, density)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.outer(weights, weights).ravel() * run.solution(0)(x)[:, 0]
    return run, x, mass / mass.sum()


def test_observables_in_a_box(box):
    """Also where the mixture of the run does not reach the solution: a share of the points is uniform."""
    run, x, mass = box
    near(run.expectation(0, lambda x: np.sin(2 * x[:, 0]) * x[:, 1] ** 2), mass @ (np.sin(2 * x[:, 0]) * x[:, 1] ** 2))
    edges = np.array([-1.0, 0.0, 1.0])  # between nodes
    halves = [mass[x[:, 0] < 0].sum(), mass[x[:, 0] > 0].sum()]
    near(run.marginal(0, 0, edges), halves)
    near(run.probability(0, lambda x: x[:, 0] < 0), halves[0])


def test_samples_in_a_box(box):
    """Samples of an exponential form lie inside of the walls, and have its mean."""
    run, x, mass = box
    drawn = run.samples(0, 4000)
    assert np.all(np.abs(drawn) < 1)
    spread = np.sqrt(mass @ x**2 - (mass @ x) ** 2)
    np.testing.assert_allclose(drawn.mean(axis=0), mass @ x, atol=4 * spread.max() / np.sqrt(2000))


def test_a_solution_without_mass_is_no_density(box):
    run, _, _ = box
    negative = snapshots.load(snapshots.find(run.directory, 0).path)
    density = StoredDensity(negative, lambda x: -np.ones((len(x), 1)), run.problem.domain)
    with pytest.raises(ValueError, match="not positive: it is no density"):
        density.expectation(lambda x: x[:, 0], 1000)


def test_correlations_of_two_times_against_the_exact_ones(mixture):
    """Of a linear drift A x + c(t): E[X(s) | x] = e^(As) x + b, b the solution that begins at 0."""
    problem, later = mixture.problem, 0.4
    drift = jax.jit(problem.drift)
    matrix = np.stack([np.asarray(drift(e, 0.0) - drift(0 * e, 0.0)) for e in np.eye(3)], axis=1)
    flow, b = expm(later * matrix), solve_ivp(lambda t, x: drift(x, t), (0, later), np.zeros(3), rtol=1e-8).y[:, -1]
    second = sum(mass * (c + np.outer(m, m)) for mass, m, c in zip(MASSES, MEANS, COVARIANCES))
    exact = second @ flow.T + np.outer(MASSES @ MEANS, b)
    found = mixture.two_time(0, later, lambda x, y: x[:, :, None] * y[:, None, :])
    near(found, exact)
    assert np.abs(second - exact).max() > 10 * found.error.max()
    with pytest.raises(ValueError, match="later = -1 lies before t = 0"):
        mixture.two_time(0, -1.0, lambda x, y: x[:, 0])
