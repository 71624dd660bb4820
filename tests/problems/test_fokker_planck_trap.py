"""The trap's quadrature against direct quadrature, sampling, moment equations, and a solver with walls."""

import numpy as np
import pytest
from scipy.linalg import solve_banded

from nivp_dist.problems._gaussians import linear_transition
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap, smoothed_parabola


def transition_of(problem, t):
    d, alpha = problem.dimension, problem.alpha
    drift = -(1 + alpha) * np.eye(d) + alpha / d * np.ones((d, d))
    forcing = lambda s: np.full(d, problem.drift_target)  # noqa: E731
    return linear_transition(drift, forcing, 2 * problem.diffusion * np.eye(d), t)


def kernel_times_start(problem, x, t, nodes):
    """int N(x; E y + p, Sigma) u0(y) dy by a product Gauss-Legendre rule on the part of the box that matters."""
    flow, shift, spread = transition_of(problem, t)
    back = np.linalg.inv(flow)
    deviations = np.sqrt(np.diag(back @ spread @ back.T))
    whitening = np.linalg.inv(np.linalg.cholesky(spread))
    scale = np.linalg.det(whitening) / (2 * np.pi) ** (problem.dimension / 2)
    reference, weights = np.polynomial.legendre.leggauss(nodes)
    values = []
    for point in x:
        source = back @ (point - shift)
        lower = np.clip(source - 9 * deviations, -1, 1)
        upper = np.clip(source + 9 * deviations, -1, 1)
        axes = [(b + a) / 2 + (b - a) / 2 * reference for a, b in zip(lower, upper)]
        y = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(point))
        w = np.prod(np.stack(np.meshgrid(*[(b - a) / 2 * weights for a, b in zip(lower, upper)], indexing="ij")), 0)
        white = (point - shift - y @ flow.T) @ whitening.T
        start = np.prod(0.75 * (1 - y**2), axis=1)
        values.append(scale * np.sum(w.ravel() * start * np.exp(-np.sum(white**2, axis=1) / 2)))
    return np.array(values)


def bulk_points(problem, t, n, seed=0):
    rng = np.random.default_rng(seed)
    statistics = problem.statistics(t)
    bulk = rng.multivariate_normal(statistics["mean"], 1.5 * statistics["covariance"], n)
    return np.concatenate([bulk, rng.uniform(-1, 1, (n, problem.dimension))])


@pytest.mark.parametrize("alpha", [0.25, 3.0, 0.0, -0.5, -1.0])
@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(("dimension", "nodes"), [(1, 100), (2, 70)])
def test_against_direct_quadrature(dimension, nodes, t, alpha):
    problem = FokkerPlanckTrap(dimension=dimension, alpha=alpha)
    x = bulk_points(problem, t, 12)
    direct = kernel_times_start(problem, x, t, nodes)
    # At alpha = 3, t = 4 the direct rule inverts a matrix of condition e^24 and is itself good to 1e-7 only.
    tolerance = 1e-7 if alpha * t > 6 else 1e-10
    np.testing.assert_allclose(problem.reference(x, t), direct, atol=tolerance * direct.max())


@pytest.mark.parametrize("t", [0.05, 0.7])
def test_against_direct_quadrature_in_three_dimensions(t):
    problem = FokkerPlanckTrap(dimension=3, alpha=1.0, drift_target=-0.3, diffusion=0.05)
    x = bulk_points(problem, t, 4)
    direct = kernel_times_start(problem, x, t, 50)
    np.testing.assert_allclose(problem.reference(x, t), direct, atol=1e-10 * direct.max())


@pytest.mark.parametrize("dimension", [5, 20])
def test_without_coupling_it_is_a_product(dimension):
    problem = FokkerPlanckTrap(dimension=dimension, alpha=0.0)
    for t in (0.01, 1.0, 5.0):
        x = bulk_points(problem, t, 200)
        single = FokkerPlanckTrap(dimension=1).reference(x.reshape(-1, 1), t).reshape(x.shape)
        product = np.prod(single, axis=1)
        np.testing.assert_allclose(problem.reference(x, t), product, rtol=1e-9, atol=1e-12 * product.max())


@pytest.mark.parametrize("dimension", [5, 20])
def test_continuous_in_the_coupling(dimension):
    """alpha = +-h use different integrals (imaginary and real shifts); alpha = 0 uses none."""
    t, h = 0.5, 1e-3
    x = bulk_points(FokkerPlanckTrap(dimension=dimension), t, 100)
    below, centre, above = (FokkerPlanckTrap(dimension=dimension, alpha=a).reference(x, t) for a in (-h, 0.0, h))
    np.testing.assert_allclose((below + above) / 2, centre, atol=1e-3 * centre.max())
    wide = (
        FokkerPlanckTrap(dimension=dimension, alpha=-2 * h).reference(x, t)
        + FokkerPlanckTrap(dimension=dimension, alpha=2 * h).reference(x, t)
    ) / 2 - centre
    np.testing.assert_allclose(wide, 4 * ((below + above) / 2 - centre), atol=3e-5 * centre.max())


def test_moments_of_the_density_in_two_dimensions():
    problem, t = FokkerPlanckTrap(dimension=2), 0.6
    axis = np.linspace(-1.6, 1.6, 321)  # the trapezoidal rule is spectral here: the density vanishes at the ends
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    mass_density = problem.reference(x, t) * (axis[1] - axis[0]) ** 2
    statistics = problem.statistics(t)
    mean = mass_density @ x
    covariance = np.einsum("n,ni,nj->ij", mass_density, x - mean, x - mean)
    np.testing.assert_allclose(mass_density.sum(), statistics["mass"], rtol=1e-9)
    np.testing.assert_allclose(mean, statistics["mean"], rtol=1e-9)
    np.testing.assert_allclose(covariance, statistics["covariance"], atol=1e-9)


@pytest.mark.parametrize(("dimension", "t"), [(5, 1.0), (5, 4.0), (20, 0.5), (20, 2.0)])
def test_moments_of_the_density_by_importance_sampling(dimension, t):
    """Coupled, in the dimensions that matter: mass and second moments within five standard errors."""
    problem = FokkerPlanckTrap(dimension=dimension, alpha=1.0)
    statistics = problem.statistics(t)
    rng = np.random.default_rng(3)
    proposal = 1.1 * statistics["covariance"]
    n = 4000
    x = rng.multivariate_normal(statistics["mean"], proposal, n)
    white = np.linalg.solve(np.linalg.cholesky(proposal), (x - statistics["mean"]).T)
    log_q = -np.sum(white**2, 0) / 2 - np.linalg.slogdet(2 * np.pi * proposal)[1] / 2
    weight = problem.reference(x, t) / np.exp(log_q)
    along = (x - statistics["mean"]).sum(axis=1) / np.sqrt(dimension)
    for sample, exact in (
        (weight, 1.0),
        (weight * along**2, statistics["covariance"].sum() / dimension),
        (weight * (x[:, 0] - x[:, 1]) ** 2, 2 * (statistics["covariance"][0, 0] - statistics["covariance"][0, 1])),
    ):
        standard_error = sample.std() / np.sqrt(n)
        assert standard_error < 0.05 * exact
        assert abs(sample.mean() - exact) < 5 * standard_error


@pytest.mark.parametrize("alpha", [0.25, 0.0, -1.0])
def test_statistics_against_moment_equations(alpha):
    problem = FokkerPlanckTrap(dimension=4, alpha=alpha)
    for t in (0.0, 0.3, 3.0):
        flow, shift, spread = transition_of(problem, t)
        statistics = problem.statistics(t)
        np.testing.assert_allclose(statistics["mean"], shift, atol=1e-11)
        np.testing.assert_allclose(statistics["covariance"], 0.2 * flow @ flow.T + spread, atol=1e-11)


def test_small_times_tend_to_the_start():
    problem = FokkerPlanckTrap()
    x = np.random.default_rng(1).uniform(-0.95, 0.95, (500, 5))
    start = np.prod(0.75 * (1 - x**2), axis=1)
    np.testing.assert_allclose(problem.reference(x, 0.0), start, rtol=1e-14)
    errors = [np.max(np.abs(problem.reference(x, t) - start)) for t in (1e-5, 1e-6, 1e-7)]
    np.testing.assert_allclose(errors[0] / errors[1], 10, rtol=0.02)  # first order in t
    np.testing.assert_allclose(errors[1] / errors[2], 10, rtol=0.02)
    assert np.all(problem.reference(np.full((1, 5), 1.5), 0.0) == 0)


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.7j])
@pytest.mark.parametrize("s", [1.0, 3.0])
def test_closed_form_and_quadrature_agree(shift, s):
    z = np.linspace(-4, 4, 41)
    closed = smoothed_parabola(z, complex(shift), s, closed_form_below=np.inf)
    np.testing.assert_allclose(closed, smoothed_parabola(z, complex(shift), s, closed_form_below=0.0), atol=1e-13)


def test_smoothed_parabola_without_cut_off():
    """For a narrow Gaussian well inside, the integral of 1 - y^2 is 1 - z^2 - s^2; outside, a tail keeps its digits."""
    np.testing.assert_allclose(smoothed_parabola(np.array([0.3]), 0j, 0.05), 1 - 0.3**2 - 0.05**2, rtol=1e-12)
    z, s = 2.0, 0.1
    nodes, weights = np.polynomial.legendre.leggauss(60)
    y = 0.75 + 0.25 * nodes
    tail = 0.25 * weights @ ((1 - y**2) * np.exp(-((y - z) ** 2) / (2 * s**2))) / (np.sqrt(2 * np.pi) * s)
    np.testing.assert_allclose(smoothed_parabola(np.array([z]), 0j, s), tail, rtol=1e-9)


def density_with_walls(t, cells, steps):
    """Crank-Nicolson and central differences in one dimension, zero at -1 and 1: interior nodes and values."""
    h, k, diffusion = 2 / cells, t / steps, 0.01
    x = np.linspace(-1, 1, cells + 1)[1:-1]
    upper = diffusion / h**2 - (0.2 - (x + h)) / (2 * h)
    lower = diffusion / h**2 + (0.2 - (x - h)) / (2 * h)
    centre = -2 * diffusion / h**2
    bands = np.zeros((3, len(x)))
    bands[0, 1:], bands[1], bands[2, :-1] = -k / 2 * upper[:-1], 1 - k / 2 * centre, -k / 2 * lower[1:]
    u = 0.75 * (1 - x**2)
    for _ in range(steps):
        right = (1 + k / 2 * centre) * u
        right[:-1] += k / 2 * upper[:-1] * u[1:]
        right[1:] += k / 2 * lower[1:] * u[:-1]
        u = solve_banded((1, 1), bands, right)
    return x, u


@pytest.mark.parametrize(
    ("t", "bound_1d", "bound_5d"), [(0.05, 9e-4, 1.9e-3), (0.25, 7e-4, 1.5e-3), (1.0, 4e-4, 1.0e-3)]
)
def test_relative_distance_to_the_solution_with_walls(t, bound_1d, bound_5d):
    """The whole-space reference against a solution with walls: the figures in the class's docstring."""
    x, walls = density_with_walls(t, 2000, 1000)
    free = FokkerPlanckTrap(dimension=1).reference(x[:, None], t)
    distance = np.linalg.norm(walls - free) / np.linalg.norm(free)
    assert 0.8 * bound_1d < distance < bound_1d
    assert 2e-4 < 1 - walls.sum() * (x[1] - x[0]) < 3.7e-4
    # Without coupling the five-dimensional solution with walls is the product of one-dimensional ones.
    a, b, c = walls @ walls, walls @ free, free @ free
    assert 0.9 * bound_5d < np.sqrt((a**5 - 2 * b**5 + c**5) / c**5) < bound_5d
    _, coarse = density_with_walls(t, 1000, 500)
    np.testing.assert_allclose(coarse, walls[1::2], atol=4e-4 * walls.max())
