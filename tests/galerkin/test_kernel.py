"""The Nystrom approximation of the kernel against the dense matrix of all samples."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, make_mesh
from nivp_dist.galerkin import kernel
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.network.network import build_network
from nivp_dist.problems import Box, Problem
from nivp_dist.settings.model import NetworkSettings

SPEC = kernel.Factor(P(None, AXIS), P(), P())
POINTS = 85  # not a multiple of the devices
SETTINGS = {"width": 5, "depth": 2, "frequencies": 2, "output_scales": [3.0, 0.5]}


class System(Problem):
    outputs = 2

    @property
    def domain(self):
        return Box(1)


class Case:
    """A network, its points on a mesh, and K by a dense Jacobian."""

    def __init__(self, mesh, trunk, make_points, dense):
        self.mesh, problem = mesh, System()
        self.network = build_network(NetworkSettings(**SETTINGS, trunk=trunk), problem)
        self.theta = jax.jit(self.network.initialise)(jax.random.key(0))
        self.points = make_points(problem.domain, POINTS, mesh)
        j, w = dense(self.network, self.theta, self.points)
        self.k = np.sqrt(w)[:, None] * (j @ j.T) * np.sqrt(w)
        self.spectrum = np.linalg.eigvalsh(self.k)[::-1]

    def factor(self, rank, seed=0, chunk=0, then=lambda found: found, out=SPEC):
        def program(theta, x, weights):
            operator = Operator.build(self.network, theta, x, weights, chunk)
            return then(kernel.factor(operator, jax.random.key(seed), rank, AXIS))

        mapped = jax.shard_map(program, mesh=self.mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=out)
        return jax.jit(mapped)(self.theta, self.points.x, self.points.weights)


@pytest.fixture(scope="module", params=["shared", "separate"])
def case(request, mesh, make_points, dense):
    return Case(mesh, request.param, make_points, dense)


@pytest.mark.devices
@pytest.mark.parametrize("chunk", [0, 7])
def test_the_remainder_is_positive_semidefinite_and_zero_at_the_pivots(case, chunk):
    rows, gram, left = map(np.asarray, case.factor(16, chunk=chunk))
    remainder, trace = case.k - rows.T @ rows, np.trace(case.k)
    assert np.linalg.eigvalsh(remainder).min() > -1e-13 * trace  # never above K
    np.testing.assert_allclose(left, np.trace(remainder), rtol=1e-9)
    np.testing.assert_allclose(gram, rows @ rows.T, rtol=0, atol=1e-14 * trace)
    # The remainder is zero at 8 points, the pivots, in both outputs.
    chosen = np.flatnonzero(np.diag(remainder) < 1e-12 * np.diag(case.k).max())
    weighty = chosen[np.diag(case.k)[chosen] > 1e-9 * trace]
    assert len(weighty) == 16 and set(weighty) == {2 * (k // 2) for k in weighty} | {2 * (k // 2) + 1 for k in weighty}
    assert np.abs(remainder[weighty]).max() < 1e-12 * trace


@pytest.mark.devices
def test_the_remaining_trace_is_within_the_bound_of_pivoted_cholesky(case):
    """At most 3 times that of the best approximation of half the rank: the paper's theorem 3.1 bounds the mean."""
    for seed in range(3):
        assert float(case.factor(32, seed).remaining_trace) < 3 * np.sum(case.spectrum[16:])


def test_pivots_depend_on_their_key_and_avoid_eliminated_points(make_points, dense):
    """Half of the points are copies of one: a draw by the diagonal of K alone would choose it many times."""
    case = Case(make_mesh(1), "shared", make_points, dense)
    x = case.points.x.at[:40].set(case.points.x[0])
    case.points = case.points._replace(x=x)
    first, again, other = (np.asarray(case.factor(24, seed).rows) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3 * np.abs(first).max()
    assert np.all(np.isfinite(first))
    j, w = dense(case.network, case.theta, case.points)
    k = np.sqrt(w)[:, None] * (j @ j.T) * np.sqrt(w)
    assert np.trace(k - first.T @ first) < 3 * np.sum(np.linalg.eigvalsh(k)[:-12])


@pytest.mark.devices
def test_full_rank_reproduces_the_kernel(case):
    rows, _, left = map(np.asarray, case.factor(2 * POINTS))
    np.testing.assert_allclose(rows.T @ rows, case.k, rtol=0, atol=1e-12 * np.trace(case.k))
    assert 0 <= left < 1e-11 * np.trace(case.k)
    assert np.all(rows[:, 2 * POINTS :] == 0)  # padding


@pytest.mark.devices
def test_the_preconditioner_against_dense_matrices(case):
    mu, r = 1e-6 * np.trace(case.k), np.random.default_rng(0).standard_normal(len(case.k))

    def both(found, r):
        return found.rows, kernel.preconditioner(found, mu, AXIS)(r)

    def program(theta, x, weights, r):
        operator = Operator.build(case.network, theta, x, weights)
        return both(kernel.factor(operator, jax.random.key(0), 24, AXIS), r)

    specs = (P(), P(AXIS), P(AXIS), P(AXIS)), (P(None, AXIS), P(AXIS))
    mapped = jax.shard_map(program, mesh=case.mesh, in_specs=specs[0], out_specs=specs[1])
    rows, applied = map(np.asarray, jax.jit(mapped)(case.theta, case.points.x, case.points.weights, r))
    approximation = rows.T @ rows
    shifted = approximation + mu * np.eye(len(approximation))
    expected = np.linalg.solve(shifted, r)
    np.testing.assert_allclose(applied, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
