"""The measured spectrum and conditioning against dense linear algebra with an explicit Jacobian."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.galerkin import methods, pcg
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.spectrum import Coefficients, Eigen, Measured, least_eigenvalue
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.monitoring import conditioning
from nivp_dist.network.network import build_network
from nivp_dist.problems import Box, Problem
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS, RANK, MU, RTOL = 125, 24, 1e-7, 1e-8  # points: not a multiple of the devices


class Rotation(Problem):
    """Two outputs that turn into each other while they are carried along."""

    outputs = 2

    @property
    def domain(self):
        return Box(2)

    def rhs(self, u, x, t):
        value, slope = u(x), jax.jacfwd(u)(x)
        return jnp.stack([-value[1], value[0]]) - slope[:, 0] + t


class Case:
    """The programs of a small network by method, and its matrix M and right-hand side F from an explicit Jacobian."""

    def __init__(self, mesh, make_points, dense):
        self.problem, self.mesh = Rotation(), mesh
        settings = NetworkSettings(width=6, depth=2, frequencies=2, output_scales=[3.0, 0.5])
        self.network = build_network(settings, self.problem)
        self.theta = jax.jit(self.network.initialise)(jax.random.key(0))
        self.points = make_points(self.problem.domain, POINTS, mesh)
        j, w = dense(self.network, self.theta, self.points)
        f = jax.vmap(self.rate)(np.asarray(self.points.x)).reshape(-1)
        self.m, self.f = j.T @ (w[:, None] * j), j.T @ (w * np.asarray(f))
        self.mu = MU * np.trace(self.m)
        self.values, self.vectors = np.linalg.eigh(self.m)
        self.dimension = np.sum(self.values / (self.values + self.mu))
        filtered = np.diag(self.mu * np.linalg.inv(self.m + self.mu * np.eye(len(self.m))))
        layers = self.network.layers
        self.shares = np.array([filtered[layer.start : layer.stop].sum() for layer in layers]) / filtered.sum()

    def rate(self, x):
        scales = np.array([3.0, 0.5])
        u = lambda y: self.network.field(self.theta, y[None])[0] / scales  # noqa: E731
        return scales * self.problem.rhs(u, x, 0.7)

    def numbers(self, method, key=3, norm="field", **solver):
        settings = SolverSettings(method=method, mu=MU, rtol=RTOL, max_iterations=10_000, **solver)
        sampling = SamplingSettings(points=POINTS)
        galerkin = Galerkin(Discretisation(self.network, self.problem, sampling, self.mesh, norm), settings)
        rank = RANK if method in methods.ITERATIVE else 0
        regularisation = galerkin.prepare(self.theta, self.points, jax.random.key(5), rank)
        measured = galerkin.spectrum.measure(self.theta, 0.7, self.points, regularisation, jax.random.key(key))
        guess = galerkin.initial_guess(np.zeros(self.network.size), self.points)
        self.velocity = lambda: galerkin.velocity(self.theta, 0.7, self.points, regularisation, guess)
        self.sketch = regularisation.sketch
        layers = ["_".join(layer.path) for layer in self.network.layers]
        bound = partial(pcg.most_iterations, stop=galerkin.linear_solver.stopping_rule()) if rank else None
        least = least_eigenvalue(galerkin, self.mu, np.trace(self.m))
        facts = len(self.m), self.mu, layers, least, method == "dual_pcg", bound
        return conditioning.numbers(measured, conditioning.Solver(*facts)), measured

    def found_shares(self, found):
        return np.array([found["small_share_" + "_".join(layer.path)] for layer in self.network.layers])


@pytest.fixture(scope="module")
def case(mesh, make_points, dense):
    return Case(mesh, make_points, dense)


@pytest.fixture
def lanczos(monkeypatch):
    """No matrix is small enough to be decomposed."""
    monkeypatch.setattr(methods, "MOST_DECOMPOSED", 0)
    monkeypatch.setattr(methods, "MEASUREMENT_RANK", RANK)


@pytest.mark.devices
def test_the_decomposition_is_the_dense_one(case):
    found, measured = case.numbers("primal")
    largest = case.values[-1]
    np.testing.assert_allclose(measured.eigen.values, case.values, rtol=0, atol=1e-14 * len(case.m) * largest)
    np.testing.assert_allclose(found["lambda_max"], largest, rtol=1e-12)
    np.testing.assert_allclose(found["effective_dimension"], case.dimension, rtol=1e-6)
    assert found["numerical_rank"] == np.sum(case.values > case.mu) < len(case.m)
    np.testing.assert_allclose(found["condition"], (largest + case.mu) / (case.values[0] + case.mu), rtol=1e-5)
    below = case.vectors[:, case.values <= case.mu].T @ case.f
    np.testing.assert_allclose(found["rhs_below_mu"], below @ below / (case.f @ case.f), rtol=1e-4)
    np.testing.assert_allclose(case.found_shares(found), case.shares, rtol=1e-5)
    assert not {"condition_preconditioned", "cg_iterations_bound", "effective_dimension_error"} & found.keys()


@pytest.mark.devices
@pytest.mark.parametrize(
    "method, settings",
    [("pcg", {"shard_vectors": True, "precision": "float32"}), ("dual_pcg", {})],
    ids=["pcg", "dual_pcg"],
)
def test_quadratures_enclose_the_dense_numbers(case, lanczos, method, settings):
    found, measured = case.numbers(method, **settings)
    assert measured.eigen is None and "numerical_rank" not in found
    np.testing.assert_allclose(found["lambda_max"], case.values[-1], rtol=1e-8)
    # Three standard errors of the probes; the bound of the quadrature is in the error too.
    assert abs(found["effective_dimension"] - case.dimension) < 3 * found["effective_dimension_error"]
    assert found["effective_dimension_error"] < 0.3 * case.dimension
    below = case.vectors[:, case.values <= case.mu].T @ case.f
    share, error = below @ below / (case.f @ case.f), found["rhs_below_mu_error"]
    assert abs(found["rhs_below_mu"] - share) <= error + 1e-12 and error < 0.01
    condition = (case.values[-1] + case.mu) / (case.values[0] + case.mu)
    assert abs(found["condition"] - condition) <= 1.0001 * found["condition_error"] < 0.5 * condition
    assert np.abs(case.found_shares(found) - case.shares).max() < 3 * found["small_share_error"] < 0.5


def test_a_direct_solve_is_measured_with_a_sketch_of_its_own(make_points, dense, lanczos):
    case = Case(make_mesh(1), make_points, dense)
    found, _ = case.numbers("primal")
    assert abs(found["effective_dimension"] - case.dimension) < 3 * found["effective_dimension_error"]
    assert found["effective_dimension_error"] < 0.15 * case.dimension and "condition_preconditioned" not in found


def test_the_norm_of_an_energy(make_points, dense, monkeypatch):
    """M is then that of the energy's components, here of twice the first output and of the second."""
    case = Case(make_mesh(1), make_points, dense)
    energy = lambda self, u, x: u(x) * np.array([2.0, 1.0])  # noqa: E731
    monkeypatch.setattr(Rotation, "energy", energy)
    j, w = dense(case.network, case.theta, case.points)
    j = np.tile([2.0 / 3.0, 1.0 / 0.5], len(j) // 2)[:, None] * j  # the field is (3 u_0, u_1 / 2)
    values = np.linalg.eigvalsh(j.T @ (w[:, None] * j))
    case.mu = MU * np.sum(values)
    whole, measured = case.numbers("primal", norm="energy")
    np.testing.assert_allclose(measured.eigen.values, values, rtol=0, atol=1e-13 * values[-1])
    np.testing.assert_allclose(whole["effective_dimension"], np.sum(values / (values + case.mu)), rtol=1e-6)
    monkeypatch.setattr(methods, "MOST_DECOMPOSED", 0)
    monkeypatch.setattr(methods, "MEASUREMENT_RANK", RANK)
    found, _ = case.numbers("primal", norm="energy")
    difference = abs(found["effective_dimension"] - whole["effective_dimension"])
    assert difference < 3 * found["effective_dimension_error"]


@pytest.mark.devices
def test_the_condition_of_the_preconditioned_system_and_the_bound_of_its_iterations(case):
    found, _ = case.numbers("pcg")
    np.testing.assert_allclose(found["effective_dimension"], case.dimension, rtol=1e-6)  # of the decomposition
    u, values = np.asarray(case.sketch.vectors), np.asarray(case.sketch.eigenvalues)
    root = np.sqrt((values[-1] + case.mu) / (values + case.mu)) - 1
    half = np.eye(len(u)) + (u * root) @ u.T
    exact = np.linalg.eigvalsh(half @ (case.m + case.mu * np.eye(len(u))) @ half)
    condition, middle = exact[-1] / exact[0], found["condition_preconditioned"]
    assert abs(middle - condition) <= 1.0001 * found["condition_preconditioned_error"] < 0.2 * condition
    # The number of iterations after which 2 q^k has become so small that the residual must be below its bound.
    high = middle + found["condition_preconditioned_error"]
    q, k = (np.sqrt(high) - 1) / (np.sqrt(high) + 1), found["cg_iterations_bound"] - 2
    k -= k // (pcg.REFRESH + 1)  # without those that measure residuals
    target = RTOL / np.sqrt(case.values[-1] / case.mu + 1)
    assert 2 * q**k <= target < 2 * q ** (k - 1)
    assert 1 < case.velocity().quality.iterations <= found["cg_iterations_bound"]


def test_numbers_that_rounding_decides_are_left_out():
    eigen = Eigen(np.array([1e-17, 1e-8, 1.0]), np.full(3, 1 / 3), np.full((2, 3), 0.5))
    solver = conditioning.Solver(3, 1e-9, ["a", "b"], 1e-9, False, None)
    found = conditioning.numbers(Measured(eigen, None, None), solver)
    assert "lambda_min" not in found and found["numerical_rank"] == 2 and found["small_share_a"] == 0.5
    np.testing.assert_allclose([found["condition"], found["effective_dimension"]], [1e9, 1 + 10 / 11], rtol=1e-6)
    found = conditioning.numbers(Measured(eigen, None, None), solver._replace(mu=1e-16))
    assert found.keys() == {"lambda_max"}
    eigen = eigen._replace(values=np.array([1e-3, 1e-2, 1.0]))
    assert conditioning.numbers(Measured(eigen._replace(values=np.full(3, np.nan)), None, None), solver) == {}
    known = conditioning.numbers(Measured(eigen, None, None), solver)
    assert known["lambda_min"] == 1e-3


def test_a_decomposition_that_does_not_converge_leaves_the_numbers_out(monkeypatch):
    """A measurement must not end a run."""
    coefficients = Coefficients(np.array([0.5, 0.25]), np.array([0.1, 0.05]), np.array([1.0, 0.5]))
    solver = conditioning.Solver(3, 1e-3, ["head"], 1e-3, False, None)
    assert "rhs_below_mu" in conditioning.numbers(Measured(None, coefficients, None), solver)

    def fail(*_):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigh", fail)
    assert conditioning.numbers(Measured(None, coefficients, None), solver) == {}


def test_a_right_hand_side_of_zero_has_no_share():
    nothing = Coefficients(*np.zeros((3, 5)))
    solver = conditioning.Solver(3, 1e-9, ["a", "b"], 1e-9, False, None)
    assert conditioning.numbers(Measured(None, nothing, None), solver) == {}


def test_measurements_are_rare_enough_for_their_cost():
    """A fiftieth of the operations of the steps: more seldom for larger matrices, which take longer to decompose."""
    problem = Rotation()
    intervals = []
    for width in (8, 30, 44):
        network = build_network(NetworkSettings(width=width, depth=2, output_scales=[1.0, 1.0]), problem)
        intervals.append(methods.measurement_interval("primal", network, 5 * network.size, 1e-9, 0, 6))
        assert methods.decomposes(network) == (width < 44)
    assert 1 < intervals[0] <= intervals[1] < 100 and intervals[2] < 100
