"""Wells with a mean field: the density in one dimension without coupling, its moments, and its state at late times."""

import numpy as np
import pytest
from scipy.optimize import brentq

from nivp_dist.problems.double_well import well_density
from nivp_dist.problems.mean_field_wells import MeanFieldWells, mean_field_density

GRID = np.linspace(-3.5, 3.5, 1401)
WEIGHT = GRID[1] - GRID[0]


def test_without_coupling_it_is_the_density_of_independent_particles():
    ours, independent = mean_field_density(0.7, 0.25, 0.3, 0.6, 0.0), well_density(0.7, 0.25, 0.3, 0.6)
    np.testing.assert_allclose(ours(GRID), independent(GRID), atol=1e-8)


def test_moments_obey_their_equations():
    """m' = E h(y), without the coupling; v' = 2 E (y - m) h(y) - 2 kappa v + 2 D. By differences in time."""
    t, h, coupling, diffusion = 0.4, 1e-3, 2.0, 0.25
    before, now, after = (mean_field_density(t + s, diffusion, 0.3, 0.6, coupling) for s in (-h, 0, h))
    p = now(GRID) * WEIGHT
    force = 2 * (GRID - GRID**3)
    rate = lambda name: (getattr(after, name) - getattr(before, name)) / (2 * h)  # noqa: E731
    assert rate("mean") == pytest.approx(p @ force, abs=1e-6)
    spread = 2 * p @ ((GRID - now.mean) * force) - 2 * coupling * now.variance + 2 * diffusion
    assert rate("variance") == pytest.approx(spread, abs=1e-5)


def test_late_times_have_the_mean_of_their_own_gibbs_density():
    """With D = 1/4 and kappa = 1 the particles stay on their side; without coupling the mean would vanish."""
    diffusion, coupling = 0.25, 1.0

    def gibbs(mean):
        p = np.exp((GRID**2 - GRID**4 / 2 + coupling * (mean * GRID - GRID**2 / 2)) / diffusion)
        return p / (p.sum() * WEIGHT)

    mean = brentq(lambda m: gibbs(m) @ GRID * WEIGHT - m, 0.2, 1.2)
    late = mean_field_density(20.0, diffusion, 0.3, 0.6, coupling)
    assert late.mean == pytest.approx(mean, abs=1e-6)
    np.testing.assert_allclose(late(GRID), gibbs(mean), atol=1e-6)


def test_the_start_is_the_initial_condition():
    problem = MeanFieldWells(dimension=3)
    x = problem.domain.sample(np.random.default_rng(0), 20)
    np.testing.assert_allclose(
        problem.reference(x, 0.0), [problem.initial(point) for point in x], rtol=1e-6, atol=1e-12
    )
