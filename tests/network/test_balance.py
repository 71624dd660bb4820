"""Scales of the outputs: couplings against the symbol of the operator, balancing against its definition and scipy."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from nivp_dist import Box, Problem
from nivp_dist.errors import InputError
from nivp_dist.network.balance import HARMONICS, balance, couplings, output_scales
from nivp_dist.network.network import Network
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
    wavenumber = 4 * np.pi
    problem = Wave(dimension=dimension, speed_squared=0.3)
    expected = np.sqrt(0.3 * dimension) * HARMONICS * wavenumber
    np.testing.assert_allclose(output_scales(problem, wavenumber), [expected, 1.0], rtol=1e-9)


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
