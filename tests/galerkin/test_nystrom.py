"""The Nystrom sketch against the theory of Frangella, Tropp and Udell (arXiv 2110.02820)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.galerkin import nystrom, pcg
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.vectors import Whole
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems import Box, Problem, laplacian
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

SIZE = 80
HERE = Whole(SIZE, "no axis, for nothing communicates")


def positive(spectrum, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(spectrum), len(spectrum))))[0]
    return (q * spectrum) @ q.T


@partial(jax.jit, static_argnames="rank")
def sketched(matrix, key, rank):
    omega = nystrom.test_matrix(HERE, key, rank)
    return omega, nystrom.sketch(HERE, omega, matrix @ omega)


def sketch(matrix, rank, seed=0):
    return sketched(jnp.asarray(matrix), jax.random.key(seed), rank)[1]


def test_the_test_matrix_is_orthonormal_and_follows_its_key():
    omega = nystrom.test_matrix(HERE, jax.random.key(0), 7)
    np.testing.assert_allclose(omega.T @ omega, np.eye(7), atol=1e-13)
    assert (omega == nystrom.test_matrix(HERE, jax.random.key(0), 7)).all()
    assert (omega != nystrom.test_matrix(HERE, jax.random.key(1), 7)).all()


@pytest.mark.parametrize("rank", [7, 12, SIZE])
def test_exact_at_the_true_rank_and_above(rank):
    spectrum = np.zeros(SIZE)
    spectrum[:7] = np.logspace(0, -3, 7)
    matrix = positive(spectrum)
    vectors, eigenvalues = map(np.asarray, sketch(matrix, rank))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose((vectors * eigenvalues) @ vectors.T, matrix, atol=1e-12)
    np.testing.assert_allclose(eigenvalues[:7], spectrum[:7], atol=1e-12)
    assert np.all(eigenvalues[7:] < 1e-12)


@pytest.mark.parametrize("decay", [1.0, 3.0])
def test_eigenvalues_are_never_above_the_true_ones(decay):
    spectrum = np.arange(1.0, SIZE + 1) ** -decay
    for seed in range(5):
        omega, (vectors, eigenvalues) = sketched(jnp.asarray(positive(spectrum, seed)), jax.random.key(seed), 15)
        eigenvalues = np.asarray(eigenvalues)
        assert np.all(np.diff(eigenvalues) <= 0) and np.all(eigenvalues >= 0)
        assert np.all(eigenvalues <= spectrum[:15] + 1e-13)
        # U Lambda U^T is M Omega (Omega^T M Omega)^-1 Omega^T M, not merely something below M.
        m, o = positive(spectrum, seed), np.asarray(omega)
        nystrom_matrix = m @ o @ np.linalg.solve(o.T @ m @ o, o.T @ m)
        np.testing.assert_allclose((vectors * eigenvalues) @ vectors.T, nystrom_matrix, atol=1e-9)


def test_the_preconditioner_is_the_inverse_of_its_formula():
    mu = 1e-3
    s = sketch(positive(np.arange(1.0, SIZE + 1) ** -2), 9)
    u, e = map(np.asarray, s)
    p = (u * (e + mu)) @ u.T / (e[-1] + mu) + np.eye(SIZE) - u @ u.T
    applied = jax.vmap(nystrom.preconditioner(HERE, s, mu), in_axes=1, out_axes=1)(jnp.eye(SIZE))
    np.testing.assert_allclose(applied, np.linalg.inv(p), atol=1e-10)


@pytest.mark.parametrize("decay, mu", [(1.0, 1.0), (2.0, 1e-2), (4.0, 1e-4), (8.0, 1e-9)])
def test_condition_number_at_the_rank_of_the_theorem(decay, mu):
    """Theorem 1.1: rank 2 ceil(1.5 d_eff) + 1 gives an expected condition number below 28."""
    spectrum = np.arange(1.0, SIZE + 1) ** -decay
    dimension = np.sum(spectrum / (spectrum + mu))
    rank = int(2 * np.ceil(1.5 * dimension) + 1)
    assert rank < SIZE
    matrix = positive(spectrum)
    conditions = []
    for seed in range(10):
        s = sketch(matrix, rank, seed)
        inverse = np.asarray(jax.vmap(nystrom.preconditioner(HERE, s, mu))(jnp.eye(SIZE)))
        values = np.linalg.eigvals(inverse @ (matrix + mu * np.eye(SIZE))).real
        conditions.append(values.max() / values.min())
    assert np.mean(conditions) < 28
    if decay > 1:  # the unpreconditioned condition number is above 90
        assert (1 + mu) / (spectrum[-1] + mu) > 90


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_sketch_beyond_the_precision_of_the_products(precision):
    """A rank past the rounding error of the products: the sketch stays finite and still preconditions."""

    class Heat(Problem):
        @property
        def domain(self):
            return Box(1)

        def rhs(self, u, x, t):
            return laplacian(u, x)

    network = build_network(NetworkSettings(width=10, depth=2, frequencies=2), Heat())
    theta = jax.jit(network.initialise)(jax.random.key(0))
    solver = SolverSettings(method="pcg", mu=1e-6, rtol=1e-5, precision=precision)
    galerkin = Galerkin(Discretisation(network, Heat(), SamplingSettings(points=200), make_mesh(1)), solver)
    x, weights = jnp.linspace(-0.99, 0.99, 200)[:, None], jnp.full(200, 1 / 200)
    points = Points(x, weights, weights)
    shared = galerkin.prepare(theta, points, jax.random.key(1), 80)
    for leaf in shared.sketch:
        assert np.isfinite(leaf).all()
    result = galerkin.velocity(theta, 0.0, points, shared, jnp.zeros(network.size))
    assert result.quality.code == pcg.CONVERGED and result.quality.iterations < 30
