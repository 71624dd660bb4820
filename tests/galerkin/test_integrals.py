"""Right-hand sides that depend on integrals of the solution, against sums by numpy over all points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.host_numbers import read
from nivp_dist.backend.mesh import AXIS
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.norms import ResidualCheck
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.problems import PeriodicBox, Problem, WholeSpace, derivatives, gradient
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS, TIME = 85, 0.7  # points: not a multiple of the devices


class Population(Problem):
    """Growth that is limited by the whole population, and transport with its dipole."""

    @property
    def domain(self):
        return PeriodicBox(2)

    def integrals(self, u, x, t):
        return u(x) * jnp.stack([1.0 + t, jnp.sin(np.pi * x[0])])

    def rhs(self, u, x, t, integrals):
        return u(x) * (1 - integrals[0]) + integrals[1] * gradient(u, x)[1]


class Rule(Population):
    """The same with nodes of its own, whose number is not a multiple of the devices."""

    def quadrature(self):
        nodes = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5, endpoint=False)] * 2), axis=-1).reshape(-1, 2)
        return nodes, np.full(25, 4 / 25)


class FewNodes(Rule):
    """One node: most devices have a node of weight zero alone."""

    def quadrature(self):
        return np.array([[0.3, -0.2]]), np.array([4.0])


class MeanField(Problem):
    """A density whose particles are drawn to their mean: (u x, u) are integrated, and the field is log u."""

    linear = True
    density = True

    @property
    def domain(self):
        return WholeSpace(2, (0.3, -0.2), 0.5)

    def integrals(self, u, x, t):
        return u(x) * jnp.append(x, 1.0)

    def rhs(self, u, x, t, integrals):
        mean = integrals[:2] / integrals[2]
        value, slope, curvature = derivatives(u, x)
        return 0.1 * curvature + (x - mean) @ slope + 2 * value


def case(problem, mesh):
    network = build_network(NetworkSettings(width=6, depth=1), problem)
    discretisation = Discretisation(network, problem, SamplingSettings(points=POINTS), mesh)
    theta = jax.jit(network.initialise)(jax.random.key(3))
    return Galerkin(discretisation, SolverSettings(method="primal", mu=1e-6)), theta


def rates(galerkin, theta, points):
    """f at all points (n, m), by the program of all devices."""
    split = galerkin.points_spec
    f = lambda theta, t, points: galerkin.discretisation.rhs(theta, t, points)  # noqa: E731
    return np.asarray(galerkin.program(f, P(), P(), split, out_specs=P(AXIS))(theta, TIME, points))


@pytest.mark.devices
@pytest.mark.parametrize("problem", [Population(), Rule(), FewNodes()], ids=["points", "nodes", "few nodes"])
def test_integrals_over_the_points_of_all_devices(mesh, make_points, problem):
    galerkin, theta = case(problem, mesh)
    points = make_points(problem.domain, POINTS, mesh)
    x, measure = problem.quadrature() if isinstance(problem, Rule) else (points.x, points.measure)
    values = np.asarray(galerkin.network.values(theta, jnp.asarray(x)))[:, 0]
    mass = np.sum(measure * values) * (1 + TIME)
    dipole = np.sum(measure * values * np.sin(np.pi * np.asarray(x)[:, 0]))
    u = lambda x: galerkin.network.values(theta, x[None])[0, 0]  # noqa: E731
    at_points = [np.asarray(jax.vmap(function)(points.x)) for function in (u, jax.grad(u))]
    expected = at_points[0] * (1 - mass) + dipole * at_points[1][:, 1]
    assert abs(mass) > 0.1 and abs(dipole) > 0.01
    np.testing.assert_allclose(rates(galerkin, theta, points)[:, 0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.devices
def test_a_mean_field_of_a_density(mesh, make_points):
    """The equation for q = log u with the mean by all points."""
    galerkin, theta = case(problem := MeanField(), mesh)
    points = make_points(problem.domain, POINTS, mesh)
    u = np.asarray(galerkin.network.values(theta, points.x))[:, 0] * points.measure
    mean = u @ points.x / np.sum(u)
    q = lambda x: galerkin.network.field(theta, x[None])[0, 0]  # noqa: E731

    def rate(x):
        slope = jax.grad(q)(x)
        return 0.1 * (jnp.trace(jax.hessian(q)(x)) + slope @ slope) + (x - mean) @ slope + 2

    np.testing.assert_allclose(rates(galerkin, theta, points)[:, 0], jax.vmap(rate)(points.x), rtol=1e-10, atol=1e-12)


@pytest.mark.devices
def test_the_velocity_and_its_residual_have_the_same_integrals(mesh, make_points):
    """The least-squares velocity against a dense solve with the right-hand side above."""
    galerkin, theta = case(Population(), mesh)
    points = make_points(galerkin.problem.domain, POINTS, mesh)
    f = rates(galerkin, theta, points)[:, 0]
    rows = np.asarray(jax.jacobian(lambda theta: galerkin.network.field(theta, points.x)[:, 0])(theta))
    weighted = rows.T * np.asarray(points.weights)
    matrix = weighted @ rows
    expected = np.linalg.solve(matrix + 1e-6 * np.trace(matrix) * np.eye(len(matrix)), weighted @ f)
    shared = galerkin.prepare(theta, points, jax.random.key(0), 0, adapted_basis=False)
    found = galerkin.velocity(theta, TIME, points, shared, jnp.zeros_like(theta))
    np.testing.assert_allclose(found.v, expected, rtol=1e-6, atol=1e-8)
    misfit = np.sqrt(points.weights @ (rows @ expected - f) ** 2 / (points.weights @ f**2))
    check = read(ResidualCheck, galerkin.check_residual(theta, TIME, found.v, points))
    np.testing.assert_allclose(check.residual, misfit, rtol=1e-6)
