"""Velocities, residuals and norms against dense linear algebra on a right-hand side from jax.hessian."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.host_numbers import read
from nivp_dist.backend.mesh import AXIS, make_mesh
from nivp_dist.bench import hlo
from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.hardware import CORE
from nivp_dist.galerkin.methods import choose_method
from nivp_dist.galerkin.norms import ResidualCheck, StepNorms
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.frames import Basis, Frame
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems import Box, Problem, WholeSpace, divergence, gradient, laplacian
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS = 85  # not a multiple of the devices
TIME = 0.7
MU = 1e-6
RTOL = 1e-12  # of CG
RANK = 12


class Wave(Problem):
    """A nonlinear wave with a source that moves: two outputs, depends on x and t."""

    outputs = 2

    @property
    def domain(self):
        return Box(2, (-1.0, 0.0), (1.0, 3.0))

    def rhs(self, u, x, t):
        value = u(x)
        return jnp.stack([value[1], 0.3 * laplacian(lambda y: u(y)[0], x) - value[0] ** 3 + jnp.sin(x[0] - t)])


class Drifted(Problem):
    """A Fokker-Planck equation with a nonlinear drift."""

    density = True

    @property
    def domain(self):
        return WholeSpace(2)

    def rhs(self, u, x, t):
        return 0.2 * laplacian(u, x) - divergence(lambda y: jnp.sin(y + t) * u(y), x)


class Shifted(Problem):
    """Transport at unit velocity along the first coordinate."""

    density, linear = True, True

    @property
    def domain(self):
        return WholeSpace(2)

    def rhs(self, u, x, t):
        return -jax.grad(u)(x)[0]


class Case:
    """One problem on one mesh, its Galerkin programs by method, and the dense system."""

    def __init__(self, problem, settings, mesh, make_points, dense, balance):
        self.problem, self.mesh, self.balance = problem, mesh, balance
        self.network = build_network(NetworkSettings(**settings), problem)
        self.theta = jax.jit(self.network.initialise)(jax.random.key(0))
        self.programs = {}
        self.points = make_points(self.network.domain, POINTS, mesh)
        self.j, self.w = dense(self.network, self.theta, self.points)
        self.basis = self._basis()
        self.m = self.basis.T @ self.j.T @ (self.w[:, None] * self.j) @ self.basis
        self.f = np.asarray(jax.jit(jax.vmap(self.rhs))(np.asarray(self.points.x)))
        self.b = self.basis.T @ self.j.T @ (self.w * self.f.reshape(-1))

    def _basis(self):
        """(p, p): theta by the parameters that mu sees: whitened coordinates, layers of equal shares."""
        basis, x, network = np.eye(self.network.size), np.asarray(self.points.x), self.network
        parts = [np.exp(_quadratic(x) @ np.asarray(self.theta)[k.start : k.stop]) for k in network.quadratics]
        parts = [(_quadratic, layer, self.w * part / sum(parts)) for layer, part in zip(network.quadratics, parts)]
        if parts and self.balance:
            first = next(layer for layer in network.layers if layer.path == ("trunk", "hidden_00"))
            parts.append((_linear, first, self.w))
        for features, layer, w in parts:
            mean = w @ x / np.sum(w)
            covariance = (w[:, None] * (x - mean)).T @ (x - mean) / np.sum(w)
            z = (x - mean) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
            change = np.linalg.lstsq(features(x), features(z), rcond=None)[0]
            basis[layer.start : layer.stop, layer.start : layer.stop] = np.kron(change, np.eye(layer.columns))
        if not self.balance:
            return basis
        diagonal = np.sum(self.w[:, None] * (self.j @ basis) ** 2, axis=0)
        traces = [np.sum(diagonal[layer.start : layer.stop]) for layer in network.layers]
        scales = [np.full(layer.stop - layer.start, trace**-0.5) for layer, trace in zip(network.layers, traces)]
        return np.sqrt(np.sum(traces) / len(traces)) * basis * np.concatenate(scales)

    def rhs(self, x):
        """f at x by full Hessians of the field, not by the operators of the package."""
        units = 1.0 if self.network.log_density else SCALES
        field = lambda y: self.network.field(self.theta, y[None])[0] / units  # noqa: E731
        value, slope, hessian = field(x), jax.jacrev(field)(x), jax.hessian(field)(x)
        if self.network.log_density:
            # q = log u, q_t = D (lap q + |grad q|^2) - h . grad q - div h
            spread = 0.2 * (jnp.trace(hessian[0]) + slope[0] @ slope[0])
            return (spread - jnp.sin(x + TIME) @ slope[0] - jnp.sum(jnp.cos(x + TIME)))[None]
        acceleration = 0.3 * jnp.trace(hessian[0]) - value[0] ** 3 + jnp.sin(x[0] - TIME)
        return units * jnp.stack([value[1], acceleration])

    def galerkin(self, method, chunk=0, **solver):
        """One for each configuration: its programs are compiled once for all tests."""
        method, solver = ("pcg", {"shard_vectors": True} | solver) if method == "sharded" else (method, solver)
        name = (method, chunk, *sorted(solver.items()))
        if name not in self.programs:
            self.programs[name] = self._galerkin(method, chunk, solver)
        return self.programs[name]

    def _galerkin(self, method, chunk, solver):
        solver = SolverSettings(**({"method": method, "mu": MU, "rtol": RTOL, "equal_shares": self.balance} | solver))
        return Galerkin(
            Discretisation(self.network, self.problem, SamplingSettings(points=POINTS, chunk=chunk), self.mesh), solver
        )

    def velocity(self, galerkin, guess=None):
        shared = galerkin.prepare(self.theta, self.points, jax.random.key(5), RANK)
        guess = galerkin.initial_guess(jnp.zeros(self.network.size), self.points) if guess is None else guess
        return shared, galerkin.velocity(self.theta, TIME, self.points, shared, guess)

    def solution(self):
        return self.basis @ np.linalg.solve(self.m + MU * np.trace(self.m) * np.eye(len(self.m)), self.b)

    def assert_solved(self, result, method, rtol=0.0, mu=MU, factors=np.float64):
        """result.v against the dense solution, within the error that the method may have.

        Both are right to 2 p eps times the condition number of M + mu I, which is 1 + 1 / mu at most (Higham 2002,
        Accuracy and Stability, th. 10.3, for Cholesky with products in any order). CG adds the error that its residual
        r allows: |(M + mu)^-1 r| <= |r| / mu with |r| <= rtol |b|, and for the samples, where v = S^T alpha,
        |S^T (K + mu)^-1 r| <= |r| / (2 sqrt(mu)) with |r| <= rtol |W^(1/2) f|. All in the basis in which mu acts.

        factors: the type that mu and the basis are computed in, from traces of products of four numbers. Both are right
            to 4 u then, so that mu |v|^2 is right to 8 u in that basis, and v too: |(M + mu)^-1 mu| <= 1.
        """
        size, trace = self.network.size, np.trace(self.m)
        exact = np.linalg.solve(self.m + mu * trace * np.eye(size), self.b)
        rounding = 2 * size * np.finfo(np.float64).eps * (1 + 1 / mu) + 4 * np.finfo(factors).eps
        bound = rounding * np.linalg.norm(exact)
        if method in ("pcg", "sharded"):
            bound += rtol * np.linalg.norm(self.b) / (mu * trace)
        if method == "dual_pcg":
            bound += rtol * self.norm(self.f) / (2 * np.sqrt(mu * trace))
        error = np.linalg.norm(np.linalg.solve(self.basis, result.v) - exact)
        assert error <= bound, (method, error / np.linalg.norm(exact), bound / np.linalg.norm(exact))

    def residual(self, v, mu):
        """The relative residual of v (p,) for mu (absolute), and a bound on the rounding error of such a number."""
        coordinates, right = np.linalg.solve(self.basis, v), np.linalg.norm(self.b)
        rows = np.abs(self.j @ self.basis)
        sizes = rows.T @ (self.w * (rows @ np.abs(coordinates))) + mu * np.abs(coordinates)
        rounding = (len(rows) + self.network.size) * np.finfo(np.float64).eps * np.linalg.norm(sizes) / right
        return np.linalg.norm(self.b - self.m @ coordinates - mu * coordinates) / right, rounding

    def norm(self, values):
        return np.sqrt(np.sum(self.w * np.reshape(values, -1) ** 2))

    def under_the_density(self, values):
        """Root mean square under u, of a case whose field is log u."""
        mass = np.asarray(self.points.measure) * np.exp(self.network.field(self.theta, np.asarray(self.points.x)))[:, 0]
        return np.sqrt(np.sum(mass * values**2) / np.sum(mass))


def _linear(x):
    return np.column_stack([x, np.ones(len(x))])


def _quadratic(x):
    """Monomials of two coordinates in the order of the layer, the constant last."""
    return np.stack([x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2, np.ones(len(x))], axis=1)


SCALES = np.array([3.0, 0.5])  # units of the two outputs
SETTINGS = {"width": 5, "depth": 2, "frequencies": 1, "trunk": "separate", "output_scales": SCALES.tolist()}


@pytest.fixture(scope="module")
def wave(mesh, make_points, dense):
    return Case(Wave(), SETTINGS, mesh, make_points, dense, balance=True)


@pytest.fixture(scope="module")
def drifted(mesh, make_points, dense):
    return Case(Drifted(), {"width": 6, "depth": 1, "activation": "tanh"}, mesh, make_points, dense, balance=False)


@pytest.fixture(scope="module")
def mixture(mesh, make_points, dense):
    """Two quadratic forms, each in a frame of its own."""
    return Case(Drifted(), {"width": 4, "depth": 1, "gaussians": 2}, mesh, make_points, dense, balance=True)


def relative(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


@pytest.mark.devices
@pytest.mark.parametrize(
    "method, chunk",
    [(method, chunk) for method in ("pcg", "sharded", "dual_pcg", "primal", "dual") for chunk in (0, 7)],
)
def test_velocity_against_numpy(wave, method, chunk):
    shared, result = wave.velocity(wave.galerkin(method, chunk))
    np.testing.assert_allclose(shared.trace, np.trace(wave.m), rtol=1e-12)
    np.testing.assert_allclose(shared.mu, MU * np.trace(wave.m), rtol=1e-12)
    wave.assert_solved(result, method, RTOL)
    np.testing.assert_allclose(result.quality.rhs_norm, wave.norm(wave.f), rtol=1e-10)
    residual = wave.norm(wave.j @ wave.solution() - wave.f.reshape(-1)) / wave.norm(wave.f)
    assert 0.01 < residual < 0.99
    np.testing.assert_allclose(result.quality.residual, residual, rtol=1e-8)
    assert result.quality.code == pcg.CONVERGED
    if method in ("pcg", "sharded"):
        true, rounding = wave.residual(result.v, float(shared.mu))
        assert true <= RTOL + rounding and result.quality.solver_residual <= RTOL
        assert result.quality.iterations > 3


@pytest.mark.devices
def test_velocity_of_a_log_density(drifted):
    """Regularised in the frame of the density, whose mean and covariance are sums over all devices."""
    assert_dense_solution_in_frames(drifted)


@pytest.mark.devices
def test_velocity_of_a_log_density_of_several_forms(mixture):
    assert_dense_solution_in_frames(mixture)


def assert_dense_solution_in_frames(case):
    for method, chunk in (("pcg", 0), ("sharded", 7), ("dual_pcg", 7), ("primal", 0), ("dual", 0)):
        shared, result = case.velocity(case.galerkin(method, chunk))
        np.testing.assert_allclose(shared.trace, np.trace(case.m), rtol=1e-10)
        case.assert_solved(result, method, RTOL)
    galerkin = case.galerkin("pcg")
    _, warm = case.velocity(galerkin, case.velocity(galerkin)[1].v)
    assert warm.quality.iterations <= 3  # the guess is transformed to the frame


@pytest.mark.devices
def test_corrections_of_a_log_density(drifted):
    galerkin = drifted.galerkin("primal")
    shared = galerkin.prepare(drifted.theta, drifted.points, jax.random.key(5), RANK)
    misfit, dampings = np.random.default_rng(3).standard_normal((len(drifted.points.x), 1)), np.array([1e-5, 1e-1])
    corrections = galerkin.corrections(1)(drifted.theta, drifted.points, jnp.asarray(misfit), shared, dampings)[:, 0]
    right = drifted.basis.T @ drifted.j.T @ (drifted.w * misfit.reshape(-1))
    for correction, damping in zip(corrections, dampings, strict=True):
        system = drifted.m + damping * np.trace(drifted.m) * np.eye(len(drifted.m))
        # Right to 2 p eps times the condition number, 1e5 at most.
        assert relative(correction, drifted.basis @ np.linalg.solve(system, right)) < 1e-8


def test_the_velocity_of_a_distant_narrow_density_needs_its_frame(make_points):
    """A shifted Gaussian's q_t is a quadratic form: in the frame of the density it is found wherever the density is."""
    problem, mesh = Shifted(), make_mesh(1)
    network = build_network(NetworkSettings(width=4, depth=1), problem)
    galerkin = Galerkin(
        Discretisation(network, problem, SamplingSettings(points=400), mesh), SolverSettings(method="primal", mu=1e-9)
    )
    mean, spread = np.array([30.0, -20.0]), np.array([0.2, 0.1])
    theta = network.initialise_near(jax.random.key(0), np.ones(1), mean[None], np.diag(spread**2)[None])
    x = mean + spread * np.random.default_rng(0).standard_normal((400, 2))
    points = Points(jnp.asarray(x), jnp.full(400, 1 / 400), jnp.full(400, 1.0))
    result = galerkin.velocity(theta, 0.0, points, galerkin.prepare(theta, points, jax.random.key(1), 0), 0 * theta)
    assert result.quality.residual < 1e-6
    without_frame = galerkin.prepare(theta, points, jax.random.key(1), 0)._replace(
        basis=Basis(2 * (Frame(jnp.zeros(2), jnp.eye(2)),), jnp.ones(len(network.layers)))
    )
    lost = galerkin.velocity(theta, 0.0, points, without_frame, 0 * theta)
    assert lost.quality.residual > 1e3 * result.quality.residual


@pytest.mark.parametrize("equal_shares", [False, True])
def test_velocity_of_a_field_u_on_the_whole_space(make_points, equal_shares):
    """The first layer's inputs are coordinates. mu is so small that v is that of least squares in any basis."""
    problem, mesh = Drifted(), make_mesh(1)
    network = build_network(NetworkSettings(width=3, depth=1, form="direct"), problem)
    solver = SolverSettings(method="primal", mu=1e-13, equal_shares=equal_shares)
    galerkin = Galerkin(Discretisation(network, problem, SamplingSettings(points=200), mesh), solver)
    theta, points = jax.jit(network.initialise)(jax.random.key(1)), make_points(network.domain, 200, mesh)
    result = galerkin.velocity(theta, TIME, points, galerkin.prepare(theta, points, jax.random.key(0), 0), 0 * theta)
    x, w = np.asarray(points.x), np.sqrt(np.asarray(points.weights))
    field = lambda theta, x: network.field(theta, x[None])[0, 0]  # noqa: E731
    j = np.asarray(jax.vmap(jax.grad(field), (None, 0))(theta, x))

    def rate(x):
        value, slope, hessian = (d(field, 1)(theta, x) for d in (lambda g, _: g, jax.grad, jax.hessian))
        return 0.2 * jnp.trace(hessian) - jnp.sin(x + TIME) @ slope - jnp.sum(jnp.cos(x + TIME)) * value

    f = np.asarray(jax.vmap(rate)(x))
    v = np.linalg.lstsq(w[:, None] * j, w * f, rcond=None)[0]
    expected = np.linalg.norm(w * (j @ v - f)) / np.linalg.norm(w * f)
    assert 1e-3 < expected < 1
    np.testing.assert_allclose(result.quality.residual, expected, rtol=1e-5)


@pytest.mark.devices
@pytest.mark.parametrize("dtype, reach, tolerance", [("float64", 15.0, 1e-10), ("float32", 5.0, 1e-3)])
def test_a_density_of_50_dimensions_where_it_underflows(mesh, dtype, reach, tolerance):
    """f = L[u] / u by derivatives of log u, `reach` standard deviations from the mass in every coordinate."""
    problem = LinearFokkerPlanck(dimension=50)
    network = build_network(NetworkSettings(width=4, depth=1, dtype=dtype), problem)
    galerkin = Galerkin(
        Discretisation(network, problem, SamplingSettings(points=8), mesh), SolverSettings(method="primal")
    )
    centre, scale = np.asarray(network.domain.centre), np.asarray(network.domain.scale)
    theta = jax.jit(network.initialise_near)(jax.random.key(3), np.ones(1), centre[None], np.diag(scale**2)[None])
    x = centre + reach * scale * np.sign(np.random.default_rng(1).standard_normal((8, 50)))
    matrix, noise = problem.drift_matrix(), problem.diffusion_matrix()

    def exact(x):
        # q_t = tr(B B^T (Hess q + grad q grad q^T)) / 2 - (A x + b) . grad q - tr A
        q = lambda y: network.field(theta, y[None])[0, 0]  # noqa: E731
        slope, hessian = jax.grad(q)(x), jax.hessian(q)(x)
        spread = jnp.trace(noise.T @ hessian @ noise) / 2 + jnp.sum((noise.T @ slope) ** 2) / 2
        return spread - (matrix @ x + problem.forcing(TIME)) @ slope - np.trace(matrix)

    def everything(theta, x):
        return (
            network.values(theta, x),
            galerkin.discretisation.rhs(theta, TIME, Points(x, x[:, 0], x[:, 0])),
            jax.vmap(exact)(x.astype(dtype)),
        )

    u, f, expected = galerkin.program(everything, P(), P(AXIS), out_specs=P(AXIS))(theta, x)
    np.testing.assert_array_equal(u, 0)
    np.testing.assert_allclose(np.asarray(f)[:, 0], expected, rtol=tolerance)


@pytest.mark.parametrize("method", ["pcg", "dual_pcg"])
def test_a_good_guess_saves_iterations(wave, method):
    galerkin = wave.galerkin(method)
    _, cold = wave.velocity(galerkin)
    _, warm = wave.velocity(galerkin, cold.next_guess)
    assert warm.quality.iterations <= 3 < cold.quality.iterations
    wave.assert_solved(warm, method, RTOL)


@pytest.mark.devices
@pytest.mark.parametrize("method", ["pcg", "dual_pcg"])
@pytest.mark.parametrize("precision, mu", [("float32", MU), ("tensorfloat32", MU), ("bfloat16", 1e-3)])
def test_coarse_search_directions_do_not_limit_the_accuracy(wave, precision, mu, method):
    """Measured residuals are in float64: the error is that of the tolerance, far below the directions' rounding."""
    options = {"mu": mu, "rtol": 1e-11, "max_iterations": 2000}
    _, result = wave.velocity(wave.galerkin(method, precision=precision, **options))
    assert result.quality.code == pcg.CONVERGED
    wave.assert_solved(result, method, 1e-11, mu, np.float32)
    _, double = wave.velocity(wave.galerkin(method, **options))
    assert result.quality.iterations > double.quality.iterations  # the directions are coarser indeed


def equations(jaxpr):
    """The operations of a traced program, those of its loops and branches included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, (tuple, list)) else [value]:
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield from equations(part)


def traced_velocity(method, change=lambda galerkin, shared: shared, **solver):
    """The program of a velocity, traced without arrays. change: of the regularisation that it is given."""
    network = build_network(NetworkSettings(width=6, depth=1), Drifted())
    discretisation = Discretisation(network, Drifted(), SamplingSettings(points=POINTS), make_mesh(1))
    galerkin = Galerkin(discretisation, SolverSettings(method=method, **solver))
    theta, *points = (jax.ShapeDtypeStruct(shape, "float64") for shape in ((network.size,), (POINTS, 2), (POINTS,)))
    points = Points(points[0], points[1], points[1])
    shared = jax.eval_shape(galerkin.preparation(RANK), theta, points, jax.random.key(5))
    shared, guess = change(galerkin, shared), points.weights if method == "dual_pcg" else theta
    return jax.make_jaxpr(galerkin.velocity)(theta, TIME, points, shared, guess).jaxpr


def test_velocities_that_share_mu_and_an_approximation_share_its_cholesky_factor():
    with_mu = lambda galerkin, shared: jax.eval_shape(galerkin.with_mu, shared, shared.mu)  # noqa: E731
    for change, factors in ((lambda galerkin, shared: shared, 1), (with_mu, 0)):
        traced = traced_velocity("dual_pcg", change)
        assert [each.primitive.name for each in equations(traced)].count("cholesky") == factors


@pytest.mark.parametrize("method, of_the_preconditioner", [("pcg", 0), ("dual_pcg", 2)])
def test_with_float32_no_iteration_branches_or_multiplies_by_j_in_float64(method, of_the_preconditioner):
    """The measured residuals, which do the latter, are outside of the loop of the iterations."""
    traced = traced_velocity(method, precision="float32")

    def loops(jaxpr):
        found = [each.params["body_jaxpr"].jaxpr for each in equations(jaxpr) if each.primitive.name == "while"]
        return sorted(found, key=lambda body: -len([*equations(body)]))

    def products(jaxpr):
        """Those of float64 matrices with a row or column for each point of this device."""
        found = [each for each in equations(jaxpr) if each.primitive.name == "dot_general"]
        shapes = [(variable.aval.shape, variable.aval.dtype) for each in found for variable in each.invars]
        return len([shape for shape, dtype in shapes if len(shape) > 1 and POINTS in shape and dtype == jnp.float64])

    outer = loops(traced)[0]
    inner = loops(outer)[0]
    assert not [each for each in equations(inner) if each.primitive.name == "cond"]
    assert products(inner) == of_the_preconditioner < products(outer) - products(inner)


def test_the_iteration_limit_is_reported(drifted):
    shared, result = drifted.velocity(drifted.galerkin("pcg", precision="float32", max_iterations=400))
    true, rounding = drifted.residual(result.v, float(shared.mu))
    np.testing.assert_allclose(result.quality.solver_residual, true, rtol=0, atol=rounding)
    assert result.quality.code == pcg.CONVERGED and true <= RTOL + rounding
    _, result = drifted.velocity(drifted.galerkin("pcg", max_iterations=4))
    assert result.quality.code == pcg.ITERATION_LIMIT and result.quality.iterations == 4


@pytest.mark.devices
def test_norms_and_residuals(wave):
    galerkin = wave.galerkin("pcg", chunk=7)
    v = np.random.default_rng(2).standard_normal(wave.network.size)
    misfit = wave.j @ v - wave.f.reshape(-1)
    rate = galerkin.rate(wave.theta, jnp.asarray(v), wave.points)
    np.testing.assert_allclose(np.asarray(rate).reshape(-1), wave.j @ v, rtol=1e-11, atol=1e-12)
    error, scale, embedded = galerkin.step_norms(
        wave.theta, TIME, wave.theta, jnp.asarray(v), 0 * rate, 0 * rate, wave.points
    )
    np.testing.assert_allclose(error, wave.norm(wave.j @ v), rtol=1e-11)
    assert embedded == error  # without a step J does not change
    np.testing.assert_allclose(scale, wave.norm(wave.network.field(wave.theta, np.asarray(wave.points.x))), rtol=1e-11)
    squares = galerkin.residual_squares(wave.theta, TIME, jnp.asarray(v), wave.points)
    np.testing.assert_allclose(squares, np.sum(misfit.reshape(-1, 2) ** 2, axis=1), rtol=1e-10)


@pytest.mark.devices
def test_the_error_of_a_step_is_its_share_of_the_defect_where_that_is_larger(wave):
    v, e = np.random.default_rng(2).standard_normal((2, wave.network.size))
    x, new = np.asarray(wave.points.x), wave.theta + 0.3 * v
    moved = np.asarray(wave.network.field(new, x) - wave.network.field(wave.theta, x)).reshape(-1)
    defect, embedded = wave.norm(moved - 0.3 * wave.j @ v), wave.norm(wave.j @ e)
    increment = (0.3 * wave.j @ v).reshape(-1, 2)
    for size, of_field in ((1e-3, 1e-4), (1e-3, 1e-2), (1e3, 1e-4)):
        packed = wave.galerkin("pcg", chunk=7).step_norms(
            *(wave.theta, TIME, jnp.asarray(new), jnp.asarray(size * e), jnp.asarray(increment)),
            *(jnp.asarray(of_field * (wave.j @ e).reshape(-1, 2)), wave.points),
        )
        norms = read(StepNorms, packed)
        share = size / max(size, of_field)
        np.testing.assert_allclose(norms.error, max(share * defect, size * embedded), rtol=1e-10)
        np.testing.assert_allclose(norms.embedded, size * embedded, rtol=1e-10)
    assert 1e-3 * embedded < 0.1 * defect < 1e3 * embedded


def test_error_of_a_log_density_is_already_relative(drifted):
    galerkin = drifted.galerkin("primal")
    v = np.random.default_rng(2).standard_normal(drifted.network.size)
    zero = jnp.zeros((len(drifted.points.x), 1))
    packed = galerkin.step_norms(drifted.theta, 0.0, drifted.theta, jnp.asarray(v), zero, zero, drifted.points)
    norms = read(StepNorms, packed)
    np.testing.assert_allclose(norms.error, drifted.under_the_density(drifted.j @ v), rtol=1e-11)
    assert norms.scale == 1.0 and norms.embedded == norms.error


@pytest.mark.devices
def test_residual_check_against_numpy(wave):
    v = np.random.default_rng(2).standard_normal(wave.network.size)
    packed = wave.galerkin("pcg", chunk=7).check_residual(wave.theta, TIME, jnp.asarray(v), wave.points)
    residual_check = read(ResidualCheck, packed)
    misfit, x = wave.j @ v - wave.f.reshape(-1), np.asarray(wave.points.x)
    u = np.asarray(wave.network.field(wave.theta, x)) / SCALES
    np.testing.assert_allclose(residual_check.residual, wave.norm(misfit) / wave.norm(wave.f), rtol=1e-11)
    np.testing.assert_allclose(residual_check.residual_rate, wave.norm(misfit) / wave.norm(SCALES * u), rtol=1e-11)
    mass = np.asarray(wave.points.measure) * np.linalg.norm(u, axis=1)
    np.testing.assert_allclose(residual_check.coverage, mass.sum() ** 2 / (POINTS * (mass**2).sum()), rtol=1e-11)


def test_residual_check_of_a_log_density_is_weighted_by_the_density(drifted):
    v = np.random.default_rng(2).standard_normal(drifted.network.size)
    packed = drifted.galerkin("primal").check_residual(drifted.theta, TIME, jnp.asarray(v), drifted.points)
    residual_check = read(ResidualCheck, packed)
    misfit, x = drifted.j @ v - drifted.f.reshape(-1), np.asarray(drifted.points.x)
    mass = np.asarray(drifted.points.measure) * np.exp(drifted.network.field(drifted.theta, x))[:, 0]
    np.testing.assert_allclose(residual_check.residual, drifted.norm(misfit) / drifted.norm(drifted.f), rtol=1e-11)
    np.testing.assert_allclose(residual_check.residual_rate, drifted.under_the_density(misfit), rtol=1e-11)
    np.testing.assert_allclose(residual_check.coverage, mass.sum() ** 2 / (POINTS * (mass**2).sum()), rtol=1e-11)


@pytest.mark.devices
@pytest.mark.parametrize("method", ["pcg", "sharded", "dual_pcg", "primal", "dual"])
def test_corrections_for_several_dampings(wave, method):
    galerkin = wave.galerkin(method)
    shared = galerkin.prepare(wave.theta, wave.points, jax.random.key(5), RANK)
    dampings = np.array([1e-5, 1e-3, 1e-1])
    misfit = np.random.default_rng(3).standard_normal((len(wave.points.x), 2))
    misfit *= 0.03  # so that the terms of higher order are neither zero nor the larger ones
    curves = galerkin.corrections(3)(wave.theta, wave.points, jnp.asarray(misfit), shared, dampings)
    field = lambda theta: wave.network.field(theta, wave.points.x).reshape(-1)  # noqa: E731
    for curve, mu in zip(curves, dampings * np.trace(wave.m), strict=True):
        expected = dense_curve(wave, field, misfit.reshape(-1), mu)
        for term, exact, tolerance in zip(curve, expected, (1e-8, 1e-2, 1e-2), strict=True):
            assert relative(term, exact) < tolerance


def dense_curve(case, field, misfit, mu):
    """Three terms of a curve by dense solves and by nested differentiation."""
    matrix, transposed = case.m + mu * np.eye(len(case.m)), case.basis.T @ case.j.T

    def solve(f):
        return case.basis @ np.linalg.solve(matrix, transposed @ (case.w * np.asarray(f)))

    first = solve(misfit)
    along = lambda s, terms: field(case.theta + sum(s ** (i + 1) * term for i, term in enumerate(terms)))  # noqa: E731
    second = -solve(jax.jacfwd(jax.jacfwd(along))(0.0, (first,)) / 2)
    third = -solve(jax.jacfwd(jax.jacfwd(jax.jacfwd(along)))(0.0, (first, second)) / 6)
    return first, second, third


# Communication, read from the compiled programs ------------------------------------------------------------------


def all_reduces(parts, name):
    return communicated(parts, name, "all-reduce")


def communicated(parts, name, kind):
    """Numbers of elements, one list entry an operation of that kind, in a computation and all that it calls."""
    return [found.elements for found in hlo.collectives(parts, name) if found.kind == kind]


@pytest.mark.devices
def test_one_all_reduce_of_p_numbers_in_an_iteration(wave):
    galerkin = wave.galerkin("pcg")
    shared = galerkin.prepare(wave.theta, wave.points, jax.random.key(5), RANK)
    arguments = (wave.theta, TIME, wave.points, shared, jnp.zeros(wave.network.size))
    text = galerkin.velocity.lower(*arguments).compile().as_text()
    parts = hlo.computations(text)
    bodies = re.findall(r" while\(.*body=%?([\w.\-]+)", text)
    communicating = [sizes for body in bodies if (sizes := all_reduces(parts, body))]
    if wave.mesh.size == 1:
        assert communicating in ([], [[wave.network.size]])
    else:
        assert communicating == [[wave.network.size]]
    for other in ("all-gather", "all-to-all", "reduce-scatter", "collective-permute"):
        assert f" {other}" not in text


@pytest.mark.devices
def test_communication_of_an_iteration_of_dual_pcg(wave):
    """p numbers for the product, `rank` for the preconditioner, and dot products in two groups."""
    galerkin = wave.galerkin("dual_pcg")
    shared = galerkin.prepare(wave.theta, wave.points, jax.random.key(5), RANK)
    rank = shared.factor.gram.shape[0]
    assert {shard.data.shape for shard in shared.factor.rows.addressable_shards} == {
        (rank, len(wave.points.x) * 2 // wave.mesh.size)
    }
    arguments = (wave.theta, TIME, wave.points, shared, galerkin.initial_guess(None, wave.points))
    text = galerkin.velocity.lower(*arguments).compile().as_text()
    parts = hlo.computations(text)
    bodies = re.findall(r" while\(.*body=%?([\w.\-]+)", text)
    communicating = [sorted(sizes) for body in bodies if (sizes := all_reduces(parts, body))]
    expected = sorted([3, 3, rank, wave.network.size])
    assert communicating == [expected] or (wave.mesh.size == 1 and communicating == [])
    for other in ("all-gather", "all-to-all", "reduce-scatter", "collective-permute"):
        assert f" {other}" not in text


@pytest.mark.devices
def test_sharded_vectors_are_gathered_and_scattered_once_in_an_iteration(wave):
    galerkin = wave.galerkin("sharded")
    shared = galerkin.prepare(wave.theta, wave.points, jax.random.key(5), RANK)
    part = -(-wave.network.size // wave.mesh.size)
    assert {shard.data.shape for shard in shared.sketch.vectors.addressable_shards} == {(part, RANK)}
    arguments = (wave.theta, TIME, wave.points, shared, jnp.zeros(wave.network.size))
    text = galerkin.velocity.lower(*arguments).compile().as_text()
    parts = hlo.computations(text)
    kinds = ("all-gather", "reduce-scatter", "all-reduce")
    bodies = re.findall(r" while\(.*body=%?([\w.\-]+)", text)
    sizes = [[sorted(communicated(parts, body, kind)) for kind in kinds] for body in bodies]
    communicating = [entry for entry in sizes if any(entry)]
    expected = [[part * wave.mesh.size], [part], [3, 3, RANK]]
    if wave.mesh.size == 1:  # the compiler may remove communication of one device
        assert all(found in ([], wanted) for entry in communicating for found, wanted in zip(entry, expected))
    else:
        assert communicating == [expected]


@pytest.mark.devices
def test_one_all_reduce_of_p_times_rank_numbers_in_a_sketch(wave):
    galerkin = wave.galerkin("pcg")
    galerkin.prepare(wave.theta, wave.points, jax.random.key(5), RANK)
    program = galerkin._prepare[RANK, True]
    text = program.lower(wave.theta, wave.points, jax.random.key(5)).compile().as_text()
    parts = hlo.computations(text)
    (entry,) = re.findall(r"^ENTRY %?([\w.\-]+)", text, re.M)
    sizes = all_reduces(parts, entry)
    # Before it, the traces of the layers: the sketch is of a matrix that is balanced by them.
    assert sizes in ([len(wave.network.layers), wave.network.size * RANK], [])
    assert sizes or wave.mesh.size == 1


def test_velocity_is_compiled_once(wave):
    galerkin = wave.galerkin("primal")
    shared = galerkin.prepare(wave.theta, wave.points, jax.random.key(5), RANK)
    for theta, t in ((wave.theta, 0.0), (2 * wave.theta, 0.5)):
        galerkin.velocity(theta, t, wave.points, shared, jnp.zeros(wave.network.size))
    assert galerkin.velocity._cache_size() == 1


@pytest.mark.devices
def test_dual_gives_way_to_primal_where_more_points_are_drawn(drifted):
    """The same velocity comes from the primal matrix, and none of n x n is formed."""
    n, zero = len(drifted.points.x), jnp.zeros(drifted.network.size)
    solver = SolverSettings(method="dual", mu=MU)
    for planned, square in ((POINTS, True), (POINTS // 3, False)):
        sampling = SamplingSettings(points=planned)
        galerkin = Galerkin(Discretisation(drifted.network, drifted.problem, sampling, drifted.mesh), solver)
        shared, result = drifted.velocity(galerkin)
        drifted.assert_solved(result, "dual")
        program = str(jax.make_jaxpr(galerkin.velocity)(drifted.theta, TIME, drifted.points, shared, zero))
        assert (f"f64[{n},{n}]" in program) == square


@pytest.mark.parametrize(
    "width, points, mu, method",
    [(10, 4000, 1e-9, "primal"), (100, 100, 1e-13, "dual"), (100, 5000, 1e-8, "dual_pcg"), (200, 50_000, 1e-13, "pcg")],
)
def test_auto_chooses_by_size(width, points, mu, method):
    network = build_network(NetworkSettings(width=width, output_scales=[1.0, 1.0]), Wave())
    assert choose_method(SolverSettings(method="auto", mu=mu), network, points) == method
    assert choose_method(SolverSettings(method="dual"), network, points) == "dual"


def test_an_approximation_that_no_device_could_hold_is_not_chosen():
    """2^20 points of two outputs: rank 128 would fill 2 GiB on one device, and half a GiB on each of four."""
    network, solver = (
        build_network(NetworkSettings(width=100, output_scales=[1.0, 1.0]), Wave()),
        SolverSettings(mu=1e-6),
    )
    assert choose_method(solver, network, 2**20) == "pcg"
    assert choose_method(solver, network, 2**20, hardware=CORE._replace(devices=4)) == "dual_pcg"
    sampling = SamplingSettings(points=2**20)
    galerkin = Galerkin(Discretisation(network, Wave(), sampling, make_mesh(1)), SolverSettings(method="dual_pcg"))
    assert galerkin.largest_rank == galerkin.initial_rank == 64


@pytest.mark.parametrize(
    "width, points, mu, method",
    [
        (400, 20_000, 1e-13, "pcg"),  # "dual" has the least work, and a matrix of 12 GiB
        (100, 20_000, 1e-13, "primal"),  # "pcg" has the least work, if it may take the 710 iterations that are assumed
    ],
)
def test_auto_leaves_out_what_cannot_be_held_or_would_not_end(width, points, mu, method):
    network = build_network(NetworkSettings(width=width, output_scales=[1.0, 1.0]), Wave())
    assert choose_method(SolverSettings(mu=mu), network, points) == method


@pytest.mark.parametrize("devices, shard, largest", [(1, False, 314), (4, False, 314), (4, True, 1259)])
def test_the_sketch_grows_to_the_memory_of_a_device(devices, shard, largest):
    """A column of p = 3,409,902 numbers takes 26 MiB, of which each device may hold a part: 8 GiB are 314 columns."""
    network = build_network(NetworkSettings(width=1300, output_scales=[1.0, 1.0]), Wave())
    solver = SolverSettings(method="pcg", shard_vectors=shard)
    galerkin = Galerkin(Discretisation(network, Wave(), SamplingSettings(points=4000), make_mesh(devices)), solver)
    assert galerkin.largest_rank == largest and galerkin.initial_rank == 128


def test_a_right_hand_side_in_the_tangent_space_has_no_residual(make_points):

    class Growth(Problem):
        @property
        def domain(self):
            return Box(1)

        def rhs(self, u, x, t):
            return u(x) + 0 * jnp.sum(gradient(u, x))

    network = build_network(NetworkSettings(width=4, depth=1, frequencies=1), Growth())
    mesh = make_mesh(1)
    galerkin = Galerkin(
        Discretisation(network, Growth(), SamplingSettings(points=60), mesh), SolverSettings(method="primal", mu=1e-12)
    )
    theta, points = jax.jit(network.initialise)(jax.random.key(1)), make_points(network.domain, 60, mesh)
    shared = galerkin.prepare(theta, points, jax.random.key(0), 4)
    # u is linear in the head, u = J_head theta_head, so that u_t = u has an exact solution, up to mu.
    result = galerkin.velocity(theta, 0.0, points, shared, jnp.zeros(network.size))
    assert result.quality.residual < 1e-6
