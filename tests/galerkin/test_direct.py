"""Dense solves against numpy, and the dual matrix against J J^T."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.galerkin import direct
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.network.network import build_network
from nivp_dist.problems import Box, Problem
from nivp_dist.settings.model import NetworkSettings


@pytest.mark.parametrize("mu", [1e-2, 1e-8])
def test_solve_positive_against_numpy(mu):
    random = np.random.default_rng(0)
    root = random.standard_normal((30, 20))
    matrix, b = root @ root.T, random.standard_normal(30)  # rank 20: mu alone makes it definite
    exact = np.linalg.solve(matrix + mu * np.eye(30), b)
    got = direct.solve_positive(jnp.asarray(matrix), mu, jnp.asarray(b))
    np.testing.assert_allclose(got, exact, rtol=0, atol=1e-15 * 100 / mu * np.abs(exact).max())


def test_scales_that_differ_by_many_orders():
    random = np.random.default_rng(1)
    root, scale = random.standard_normal((12, 40)), np.logspace(0, -10, 12)
    matrix, b = scale[:, None] * (root @ root.T) * scale, random.standard_normal(12)
    # Solved in the scaled variables, where numpy is accurate; unscaled the condition number is 1e20.
    exact = np.linalg.solve(root @ root.T, b / scale) / scale
    got = direct.solve_positive(jnp.asarray(matrix), 0.0, jnp.asarray(b))
    np.testing.assert_allclose(got, exact, rtol=1e-9)


def test_a_matrix_that_is_not_positive_gives_nan():
    assert np.isnan(direct.solve_positive(jnp.diag(jnp.array([1.0, -1.0])), 1e-3, jnp.ones(2))).any()


@pytest.mark.parametrize("trunk", ["shared", "separate"])
@pytest.mark.parametrize("chunk", [0, 4])
def test_dual_matrix_is_j_j_transposed(trunk, chunk, make_points, dense):
    class System(Problem):
        outputs = 2

        @property
        def domain(self):
            return Box(2)

    network = build_network(
        NetworkSettings(width=4, depth=2, frequencies=1, trunk=trunk, output_scales=[3.0, 0.5]), System()
    )
    theta = jax.jit(network.initialise)(jax.random.key(0))
    points = make_points(network.domain, 9, make_mesh(1))
    j, _ = dense(network, theta, points)

    @jax.jit
    def some_rows(theta, x):
        whole = Operator.build(network, theta, x, jnp.ones(len(x)), chunk)
        part = Operator.build(network, theta, x[2:6], jnp.ones(4))
        return whole.kernel(part.point_factors()), whole.squared_row_norms()

    rows, squares = some_rows(theta, points.x)
    np.testing.assert_allclose(rows, j[4:12] @ j.T, atol=1e-13 * np.abs(j @ j.T).max())
    np.testing.assert_allclose(squares.reshape(-1), np.sum(j**2, axis=1), rtol=1e-12)
