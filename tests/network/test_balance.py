"""Scales of the outputs: couplings against the symbol of the operator, balancing against its definition and scipy."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from nivp_dist import Box, Problem
from nivp_dist.errors import InputError
from nivp_dist.network.balance import HARMONICS, REACH, balance, couplings, output_scales
from nivp_dist.network.network import Network
from nivp_dist.network.wavenumbers import root_mean_square_wavenumber
from nivp_dist.problems import PeriodicBox
from nivp_dist.problems.wave import Wave
from nivp_dist.settings.model import NetworkSettings


class Reaction(Problem):
    """Three outputs, no derivatives: the couplings are the matrix itself."""

    outputs: ClassVar[int] = 3

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return (1 - x[0] ** 2) * jnp.array([1.0, 2.0, 0.0])

    def rhs(self, u, x, t):
        return jnp.asarray(MATRIX) @ u(x)


MATRIX = [[-1.0, 200.0, 0.0], [0.5, 3.0, 4.0], [0.0, 1e-3, 0.0]]


def test_couplings_of_a_linear_reaction_are_its_matrix():
    measured = couplings(Reaction(), 1.0)
    ratio = measured / np.abs(np.where(np.equal(MATRIX, 0), 1, MATRIX))
    assert np.all(measured[np.equal(MATRIX, 0)] == 0)
    # All entries are measured with the same waves, whose RMS is one up to sampling: 1 / sqrt(2 x 64) = 0.09.
    np.testing.assert_allclose(ratio[np.not_equal(MATRIX, 0)], ratio[0, 0], rtol=1e-12)
    assert 0.7 < ratio[0, 0] < 1.3  # three standard deviations


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_scales_of_the_wave_are_speed_times_wavenumber(dimension):
    wavenumber = 20 * np.pi
    problem = Wave(dimension=dimension, speed_squared=0.3)
    expected = np.sqrt(0.3 * dimension) * HARMONICS * wavenumber
    np.testing.assert_allclose(output_scales(problem, wavenumber), [expected, 1.0], rtol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_start_with_higher_wavenumbers_than_the_embedding_is_balanced_at_its_own(dimension):
    problem = Wave(dimension=dimension, speed_squared=0.3)
    wavenumber = 1 / (np.sqrt(2) * problem.width)  # of exp(-x^2 / (2 s^2)): its mean square is 1 / (2 s^2)
    expected = np.sqrt(0.3 * dimension) * REACH * wavenumber
    # About 130 random points fall into the pulse in three dimensions: three standard deviations are 15 %.
    np.testing.assert_allclose(output_scales(problem, np.pi / 2), [expected, 1.0], rtol=0.15)


def test_balanced_rows_and_columns_have_equal_norms():
    matrix = np.random.default_rng(3).lognormal(0, 2, (5, 5))
    scales = balance(matrix)
    balanced = scales[:, None] * matrix / scales
    np.fill_diagonal(balanced, 0)
    np.testing.assert_allclose(np.linalg.norm(balanced, axis=0), np.linalg.norm(balanced, axis=1), rtol=1e-6)
    assert scales.min() == 1.0
    # Osborne's iteration minimises the norm over all scales; LAPACK's scales are powers of two.
    by_lapack = scipy.linalg.matrix_balance(matrix - np.diag(np.diag(matrix)), permute=False)[0]
    assert np.linalg.norm(balanced) <= np.linalg.norm(by_lapack) * (1 + 1e-9)


def test_an_output_without_coupling_in_both_directions_keeps_its_scale():
    np.testing.assert_array_equal(balance(np.array([[1.0, 50.0], [0.0, 2.0]])), [1.0, 1.0])


def test_a_field_is_the_scaled_solution_and_its_rate_the_scaled_right_hand_side():
    problem = Wave()
    network = Network(NetworkSettings(width=6, depth=1, output_scales=[5.0, 0.5]), problem)
    u, f = np.array([[1.0, 2.0]]), np.array([3.0, 4.0])
    np.testing.assert_array_equal(network.as_field(u), [[5.0, 1.0]])
    np.testing.assert_array_equal(network.as_field_rate(f, u[0]), [15.0, 2.0])
    theta = jnp.linspace(-1.0, 1.0, network.size)
    x = np.random.default_rng(0).uniform(-1, 1, (7, 2))
    np.testing.assert_allclose(network.as_field(network.values(theta, x)), network.field(theta, x), rtol=1e-14)


def test_as_many_scales_as_outputs():
    with pytest.raises(InputError, match="network.output_scales has 3 entries for 2 outputs"):
        Network(NetworkSettings(output_scales=[1.0, 2.0, 3.0]), Wave())


class Waves(Problem):
    """Two outputs with known wavenumbers in a box whose axes differ: waves of modes 3 and 5, the second far smaller."""

    outputs: ClassVar[int] = 2

    @property
    def domain(self):
        return PeriodicBox(2, lower=(0.0, -3.0), upper=(1.0, 4.0))

    def initial(self, x):
        xi = (x - self.domain.centre) / self.domain.scale
        return jnp.stack(
            [jnp.sin(3 * jnp.pi * xi[0]), 1e-3 * jnp.sin(5 * jnp.pi * xi[0]) * jnp.cos(5 * jnp.pi * xi[1])]
        )

    def rhs(self, u, x, t):
        return u(x)[::-1]


def test_the_wavenumber_of_periodic_waves_is_exact_up_to_sampling():
    # The second output has 5 pi along both axes, the first 3 pi along one. The standard deviation is 0.3 %.
    np.testing.assert_allclose(root_mean_square_wavenumber(Waves()), 5 * np.pi, rtol=0.01)


class Unseen(Waves):
    """A pulse of width 0.01 in six dimensions, which no random point finds."""

    @property
    def domain(self):
        return Box(6)

    def initial(self, x):
        return jnp.stack([jnp.exp(-jnp.sum(x**2) / 2e-4), 0.0])


def test_a_pulse_that_no_point_finds_leaves_the_balance_to_the_embedding():
    assert root_mean_square_wavenumber(Unseen()) == 0.0
