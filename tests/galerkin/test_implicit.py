"""The equation of an implicit step against dense linear algebra by jax.jacobian, on 1, 2 and 4 devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.host_numbers import read
from nivp_dist.bench import hlo
from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.implicit import Equation, ImplicitSteps
from nivp_dist.galerkin.implicit_cg import Approximation, IterativeCorrections
from nivp_dist.galerkin.linear_solver import LEAST_RESIDUAL
from nivp_dist.galerkin.norms import ResidualCheck
from nivp_dist.galerkin.nystrom import Sketch
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.problems import Box, Problem, laplacian
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS = 45  # not a multiple of the devices
TIME, GAMMA, DAMPING = 0.7, 0.3, 1e-5
PULLED = 0.7  # the anchor over theta
COEFFICIENTS = np.array([1.5, -0.8, 0.3])


class Reaction(Problem):
    """Two outputs with diffusion, a reaction and a source that moves."""

    outputs = 2

    @property
    def domain(self):
        return Box(2)

    def rhs(self, u, x, t):
        value = u(x)
        return 0.3 * laplacian(u, x) + jnp.stack([value[1], jnp.sin(x[0] - t) - value[0] ** 3])


@pytest.fixture(scope="module")
def case(mesh, make_points):
    """The programs on a mesh, points, thetas, and the equation as numpy functions of theta alone."""
    problem = Reaction()
    network = build_network(NetworkSettings(width=4, depth=1, frequencies=1, output_scales=[1.5, 0.5]), problem)
    sampling = SamplingSettings(points=POINTS, chunk=16)
    programs = ImplicitSteps(Discretisation(network, problem, sampling, mesh))
    points = make_points(problem.domain, POINTS, mesh)
    theta, *earlier = [network.initialise(jax.random.key(i)) for i in range(4)]
    x = np.asarray(points.x)

    def rhs(theta, point):
        u = network.function(theta)
        value = u(point)
        curvature = jnp.trace(jax.hessian(u)(point), axis1=1, axis2=2)
        f = 0.3 * curvature + jnp.stack([value[1], jnp.sin(point[0] - TIME) - value[0] ** 3])
        return network.as_field_rate(f, value)

    left = jax.jit(lambda theta: (network.field(theta, x) - GAMMA * jax.vmap(rhs, (None, 0))(theta, x)).reshape(-1))
    target = sum(c * network.field(each, x) for c, each in zip(COEFFICIENTS, earlier))
    return programs, points, theta, jnp.stack(earlier), left, np.asarray(target)


def equation(case):
    programs, points, theta, earlier, *_ = case
    return Equation(GAMMA, TIME, programs.combination(earlier, COEFFICIENTS, points), points, PULLED * theta)


def test_earlier_fields_at_the_present_points(case):
    np.testing.assert_allclose(equation(case).target, case[-1], atol=1e-13)


def test_a_correction_is_that_of_dense_least_squares(case):
    programs, points, theta, _, left, target = case
    correction = programs.correction(theta, equation(case), DAMPING)
    rows, misfit = np.asarray(jax.jacobian(left)(theta)), target.reshape(-1) - np.asarray(left(theta))
    weights = np.repeat(np.asarray(points.weights), 2)
    matrix = rows.T @ (weights[:, None] * rows)
    mu = DAMPING * np.trace(matrix)
    right = rows.T @ (weights * misfit) + mu * (PULLED - 1) * np.asarray(theta)
    delta = np.linalg.solve(matrix + mu * np.eye(len(theta)), right)
    np.testing.assert_allclose(correction.delta, delta, rtol=1e-7, atol=1e-9 * np.abs(delta).max())
    np.testing.assert_allclose(np.ravel(correction.predicted), misfit - rows @ delta, atol=1e-8 * np.abs(misfit).max())


def test_the_misfit_and_what_was_not_predicted_of_it(case):
    programs, points, theta, _, left, target = case
    predicted = jax.device_put(np.full(target.shape, 0.1), jax.sharding.NamedSharding(case_mesh(case), P("points")))
    found = programs.misfit(theta, equation(case), predicted)
    misfit, weights = target - np.asarray(left(theta)).reshape(target.shape), np.asarray(points.weights)[:, None]
    np.testing.assert_allclose(found, [np.sqrt(np.sum(weights * part**2)) for part in (misfit, misfit - 0.1)])


def test_distances_of_fields(case):
    programs, points, theta, earlier, *_ = case
    thetas, rows = jnp.concatenate([theta[None], earlier]), np.array([[1.0, 0, 0, 0], [1.0, *-COEFFICIENTS]])
    fields = np.stack([programs.discretisation.network.field(each, np.asarray(points.x)) for each in thetas])
    combined, weights = np.tensordot(rows, fields, axes=1), np.asarray(points.weights)[:, None]
    expected = np.sqrt(np.sum(weights * combined**2, axis=(1, 2)))
    np.testing.assert_allclose(programs.differences(thetas, rows, points), expected)


def test_the_check_is_the_misfit_over_gamma(case):
    """In the units of a residual: relative to f, and to the field."""
    programs, points, theta, earlier, left, target = case
    check = read(ResidualCheck, programs.check(theta, earlier, COEFFICIENTS, GAMMA, TIME, points))
    misfit = target - np.asarray(left(theta)).reshape(target.shape)
    field = np.asarray(programs.discretisation.network.field(theta, np.asarray(points.x)))
    f = (field - np.asarray(left(theta)).reshape(target.shape)) / GAMMA
    norm = lambda values: np.sqrt(np.sum(np.asarray(points.weights)[:, None] * values**2))  # noqa: E731
    assert check.residual == pytest.approx(norm(misfit) / GAMMA / norm(f))
    assert check.residual_rate == pytest.approx(norm(misfit) / GAMMA / norm(field))


def test_one_all_reduce_for_a_correction(case):
    programs, _, theta, *_ = case
    compiled = programs.correction.lower(theta, equation(case), DAMPING).compile().as_text()
    count = len(re.findall(r"= .* all-reduce(?:-start)?\(", compiled))
    assert count == 1


def case_mesh(case):
    return case[0].discretisation.mesh


# Without the matrix ---------------------------------------------------------------------------------------------------
#
# Stored derivatives of all points are more than the chunk allows on one and on two devices, and are kept on four. The
# vectors of CG are split on two devices, and whole on one and on four.

RANK = 20


@pytest.fixture(scope="module")
def dense(case):
    """A (n m, p), A^T W A, and the misfit (n m,), of the equation at theta."""
    _, points, theta, _, left, target = case
    rows, weights = np.asarray(jax.jacobian(left)(theta)), np.repeat(np.asarray(points.weights), 2)
    return rows, rows.T @ (weights[:, None] * rows), target.reshape(-1) - np.asarray(left(theta)), weights


@pytest.fixture(scope="module")
def iterative(case):
    """The programs, the approximation at theta, and (limit, accuracy) -> a correction."""
    programs, _, theta, *_ = case
    solver = SolverSettings(method="pcg", shard_vectors=case_mesh(case).size == 2)
    found = IterativeCorrections(programs, Galerkin(programs.discretisation, solver))
    approximation = found.approximation(theta, equation(case), jax.random.key(1), RANK)
    arguments = (theta, equation(case), DAMPING, approximation)
    return found, approximation, lambda limit, accuracy: found.correction(*arguments, limit, accuracy)


@pytest.mark.devices
def test_a_correction_by_conjugate_gradients_is_that_of_the_matrix(case, dense, iterative):
    """And so are the products with A, in `predicted`, and with A^T, in the residual."""
    rows, matrix, misfit, weights = dense
    _, approximation, solve = iterative
    np.testing.assert_allclose(approximation.trace, np.trace(matrix))
    mu = DAMPING * np.trace(matrix)
    correction, right = solve(100, 0.0), rows.T @ (weights * misfit) + mu * (PULLED - 1) * np.asarray(case[2])
    shifted = matrix + mu * np.eye(len(matrix))
    assert int(correction.code) == pcg.CONVERGED and int(correction.iterations) < 2 * RANK
    residual = np.linalg.norm(shifted @ np.asarray(correction.delta) - right) / np.linalg.norm(right)
    assert residual < 1.01 * LEAST_RESIDUAL and float(correction.residual) == pytest.approx(residual, rel=1e-2)
    predicted = misfit - rows @ np.asarray(correction.delta)
    np.testing.assert_allclose(np.ravel(correction.predicted), predicted, atol=1e-12 * np.abs(misfit).max())


@pytest.mark.devices
def test_conjugate_gradients_stop_where_they_are_told_to(case, dense, iterative):
    """By a number of products, or by the error of A delta."""
    rows, matrix, misfit, weights = dense
    limited, coarse, fine = (iterative[2](*each) for each in ((4, 0.0), (100, 0.1), (100, 0.0)))
    assert (int(limited.iterations), int(limited.code)) == (4, pcg.ITERATION_LIMIT)
    assert int(coarse.code) == pcg.CONVERGED and int(coarse.iterations) < int(fine.iterations)
    shifted = matrix + DAMPING * np.trace(matrix) * np.eye(len(matrix))
    size = lambda v: np.sqrt(v @ shifted @ v)  # noqa: E731
    pull = DAMPING * np.trace(matrix) * (PULLED - 1) * np.asarray(case[2])
    exact = np.linalg.solve(shifted, rows.T @ (weights * misfit) + pull)
    assert size(np.asarray(coarse.delta) - exact) <= 0.1 * size(exact)


@pytest.mark.devices
def test_one_sum_of_p_numbers_in_an_iteration(case, iterative):
    found, approximation, _ = iterative
    theta, devices = case[2], case_mesh(case).size
    arguments = (theta, equation(case), DAMPING, approximation, 100, 0.0)
    text = found.correction.lower(*arguments).compile().as_text()
    parts = hlo.computations(text)
    bodies = [re.search(r"body=%?([\w.\-]+)", line)[1] for line in text.splitlines() if " while(" in line]
    found = [sorted((one.kind, one.elements) for one in hlo.collectives(parts, body)) for body in bodies]
    padded = -(-len(theta) // devices) * devices
    split = [("all-gather", padded), ("all-reduce", 3), ("all-reduce", 3), ("all-reduce", RANK)]
    expected = split + [("reduce-scatter", padded // 2)] if devices == 2 else [("all-reduce", len(theta))]
    assert [each for each in found if each] in ([expected], [] if devices == 1 else [expected])


def test_derivatives_that_do_not_fit_are_computed_anew(case, monkeypatch):
    """In blocks: of 16 points by the chunk of the settings, and of so many as fit without one."""
    programs, _, theta, *_ = case
    discretisation, n = programs.discretisation, len(equation(case).points.x) // case_mesh(case).size
    whole = ImplicitSteps(discretisation._replace(sampling=SamplingSettings(points=POINTS, chunk=0)))
    solver = SolverSettings(method="pcg")

    def computes_anew(steps):
        found = IterativeCorrections(steps, Galerkin(steps.discretisation, solver))
        approximation = Approximation(Sketch(jnp.zeros((len(theta), RANK)), jnp.ones(RANK)), 1.0)
        program = jax.make_jaxpr(found.correction)(theta, equation(case), DAMPING, approximation, 9, 0.1)
        return re.search("remat|checkpoint", str(program)) is not None

    assert computes_anew(programs) == (n > 16)
    assert not computes_anew(whole)
    monkeypatch.setattr("nivp_dist.galerkin.implicit_cg.memory_of", lambda _: 2**16)
    assert computes_anew(whole)
