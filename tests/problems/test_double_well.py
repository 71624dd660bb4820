"""Rotated double wells: the one-dimensional density against finite volumes and Gibbs, and what the rotation does."""

import numpy as np
import pytest
from scipy.linalg import solve_banded

from nivp_dist.problems.double_well import DoubleWell, well_density

RANDOM = np.random.default_rng(0)


def finite_volumes(cells, steps, t, diffusion, mean, spread, reach=5.5):
    """Centred fluxes and Crank-Nicolson, second order in both, with closed ends: centres (cells,), density (cells,)."""
    h, k = 2 * reach / cells, t / steps
    walls = np.linspace(-reach, reach, cells + 1)
    y = (walls[1:] + walls[:-1]) / 2
    drift = 2 * (walls - walls**3)[1:-1]
    left, right = (
        diffusion / h + drift / 2,
        -diffusion / h + drift / 2,
    )  # flux through a wall = left p_i + right p_(i+1)
    main, upper, lower = np.zeros(cells), np.zeros(cells), np.zeros(cells)
    main[:-1] -= left / h
    main[1:] += right / h
    upper[1:], lower[:-1] = -right / h, left / h
    p = np.exp(-((y - mean) ** 2) / (2 * spread**2)) / np.sqrt(2 * np.pi * spread**2)
    implicit = np.stack([-k / 2 * upper, 1 - k / 2 * main, -k / 2 * lower])
    for _ in range(steps):
        explicit = p + k / 2 * main * p
        explicit[:-1] += k / 2 * upper[1:] * p[1:]
        explicit[1:] += k / 2 * lower[:-1] * p[:-1]
        p = solve_banded((1, 1), implicit, explicit)
    return y, p


@pytest.mark.parametrize(("t", "diffusion", "mean", "spread"), [(0.3, 0.25, 0.3, 0.6), (1.5, 0.5, -0.8, 0.3)])
def test_density_against_finite_volumes(t, diffusion, mean, spread):
    """Second order on three grids; extrapolated twice, within 1e-8 of it."""
    reference = well_density(t, diffusion, mean, spread)
    densities = []
    for factor in (1, 3, 9):  # thirds of cells share their centres
        y, p = finite_volumes(300 * factor, int(150 * t + 1) * factor, t, diffusion, mean, spread)
        densities.append(p[factor // 2 :: factor])
        centres = y[factor // 2 :: factor]
    exact = reference(centres)
    errors = [np.abs(p - exact).max() for p in densities]
    assert errors[2] < 3e-4 and 8 < errors[1] / errors[2] < 10  # 3^2 = 9
    first, second = (9 * fine - coarse for coarse, fine in zip(densities, densities[1:]))
    extrapolated = (81 * second - first) / 80 / 8
    assert np.abs(extrapolated - exact).max() < 1e-8


def test_gibbs_density_at_late_times():
    problem, t = DoubleWell(dimension=2, diffusion=0.5), 100.0
    gibbs = lambda y: np.exp((y**2 - y**4 / 2) / 0.5)  # noqa: E731
    grid = np.linspace(-4, 4, 2001)
    weights = gibbs(grid) / gibbs(grid).sum()
    y = RANDOM.uniform(-1.8, 1.8, (300, 2))
    expected = np.prod(gibbs(y), axis=1) / (gibbs(grid).sum() * 4e-3) ** 2
    np.testing.assert_allclose(problem.reference(y @ problem.rotation().T, t), expected, atol=1e-10)
    statistics = problem.statistics(t)
    np.testing.assert_allclose(statistics["mean"], 0, atol=1e-9)
    np.testing.assert_allclose(statistics["covariance"], weights @ grid**2 * np.eye(2), atol=1e-9)


def test_moments_and_mass_by_quadrature_of_the_density():
    problem, t = DoubleWell(dimension=2, rotation_seed=3), 0.7
    axis = np.linspace(-3.5, 3.5, 211)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    density = problem.reference(x, t) * (axis[1] - axis[0]) ** 2
    mean, statistics = density @ x, problem.statistics(t)
    np.testing.assert_allclose(density.sum(), statistics["mass"], atol=1e-9)
    np.testing.assert_allclose(mean, statistics["mean"], atol=1e-9)
    covariance = np.einsum("n,ni,nj->ij", density, x - mean, x - mean)
    np.testing.assert_allclose(covariance, statistics["covariance"], atol=1e-8)


def test_the_rotation_is_fixed_by_its_seed_and_hides_the_axes():
    problem = DoubleWell(dimension=6)
    rotation = problem.rotation()
    np.testing.assert_array_equal(rotation, DoubleWell(dimension=6).rotation())
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(6), atol=1e-14)
    assert np.abs(rotation).max() < 0.95
    assert np.abs(rotation - DoubleWell(dimension=6, rotation_seed=1).rotation()).max() > 0.1
    np.testing.assert_allclose(problem.domain.centre, 0.3 * rotation.sum(axis=1), atol=1e-14)


def test_nothing_beyond_the_reach_and_never_negative():
    density = well_density(0.5, 0.25, 0.3, 0.6)
    values = density(np.array([-100.0, 7.0, 5.0, -4.0, 0.0]))
    assert values[0] == values[1] == 0 and np.all(values >= 0) and values[4] > 0.1
    np.testing.assert_allclose(density(np.linspace(-5, 5, 500)).sum() * 10 / 499, 1.0, atol=1e-9)
