"""Velocities in the norm of an energy against dense linear algebra, with derivatives by jax and not by the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.host_numbers import read
from nivp_dist.backend.mesh import make_mesh
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.energy import EnergyOperator
from nivp_dist.galerkin.norms import ResidualCheck
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems import Box, Problem, gradient, laplacian
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS, TIME, MU, RANK = 85, 0.7, 1e-6, 12  # points: not a multiple of the devices
SPEED_SQUARED = 0.3


class Wave(Problem):
    """A wave with a force that moves, in a box of unequal sides."""

    outputs = 2

    @property
    def domain(self):
        return Box(2, (-1.0, 0.0), (1.0, 3.0))

    def energy(self, u, x):
        return jnp.append(np.sqrt(SPEED_SQUARED) * gradient(lambda y: u(y)[0], x), u(x)[1])

    def rhs(self, u, x, t):
        value = u(x)
        return jnp.stack([value[1], SPEED_SQUARED * laplacian(lambda y: u(y)[0], x) + jnp.sin(x[0] - t)])


class Dense:
    """The system in the norm of the energy, formed from derivatives of the network's values."""

    def __init__(self, network, theta, points):
        x, weights = np.asarray(points.x), np.asarray(points.weights)

        def energies(theta, x):
            slopes = jax.jacrev(lambda y: network.values(theta, y[None])[0, 0])(x)
            return jnp.append(np.sqrt(SPEED_SQUARED) * slopes, network.values(theta, x[None])[0, 1])

        def rates(theta, x):
            value = lambda y: network.values(theta, y[None])[0]  # noqa: E731
            force = SPEED_SQUARED * jnp.trace(jax.hessian(value)(x)[0]) + jnp.sin(x[0] - TIME)
            return jnp.append(np.sqrt(SPEED_SQUARED) * jax.jacrev(value)(x)[1], force)

        def dense(theta):
            return [jax.vmap(f, (None, 0))(theta, x) for f in (energies, jax.jacrev(energies), rates)]

        self.e, rows, self.f = (np.asarray(each) for each in jax.jit(dense)(theta))
        self.rows, self.w = rows.reshape(-1, network.size), np.repeat(weights, self.e.shape[1])
        self.matrix = self.rows.T @ (self.w[:, None] * self.rows)

    def solution(self, mu, scales):
        """v for mu relative to the trace, which acts on the parameters divided by `scales` (p,)."""
        m, b = scales[:, None] * self.matrix * scales, scales * (self.rows.T @ (self.w * self.f.reshape(-1)))
        return scales * np.linalg.solve(m + mu * np.trace(m) * np.eye(len(m)), b)

    def norm(self, values):
        return np.sqrt(self.w @ values.reshape(-1) ** 2)


@pytest.fixture(scope="module")
def case(mesh, make_points):
    problem = Wave()
    network = build_network(NetworkSettings(width=6, depth=2, frequencies=2, output_scales=[3.0, 1.0]), problem)
    theta, points = jax.jit(network.initialise)(jax.random.key(0)), make_points(problem.domain, POINTS, mesh)
    discretisation = Discretisation(network, problem, SamplingSettings(points=POINTS), mesh, "energy")
    return discretisation, theta, points, Dense(network, theta, points)


def galerkin_of(discretisation, **settings):
    return Galerkin(discretisation, SolverSettings(method="primal", mu=MU, norm="energy", **settings))


@pytest.mark.devices
def test_products_are_those_of_the_dense_jacobian(case):
    discretisation, theta, points, dense = case
    galerkin, network = galerkin_of(discretisation), discretisation.network
    v, columns = np.sin(np.arange(network.size)), np.cos(np.arange(2.0 * network.size)).reshape(-1, 2)
    split = jax.sharding.PartitionSpec("points")

    def products(theta, points, r):
        operator = EnergyOperator.build(discretisation, theta, points)
        sums = operator.matrix_parts(), operator.transpose(r), operator.normal_columns(columns), operator.traces()
        parts, *others = jax.lax.psum(sums, "points")
        return operator.apply(v), (operator.assemble(parts), *others)

    spec = Points._make((split, split, split))
    compiled = galerkin.program(
        products, jax.sharding.PartitionSpec(), spec, split, out_specs=(split, jax.sharding.PartitionSpec())
    )
    along, (matrix, transposed, several, traces) = compiled(theta, points, jnp.asarray(dense.f))
    assert along == pytest.approx((dense.rows @ v).reshape(dense.e.shape), rel=1e-10, abs=1e-12)
    size = np.abs(dense.matrix).max()
    assert np.abs(matrix - dense.matrix).max() < 1e-12 * size
    expected = dense.rows.T @ (dense.w * dense.f.reshape(-1))
    assert np.abs(transposed - expected).max() < 1e-12 * np.abs(expected).max()
    assert np.abs(several - dense.matrix @ columns).max() < 1e-11 * size
    parts = [np.trace(dense.matrix[layer.start : layer.stop, layer.start : layer.stop]) for layer in network.layers]
    assert traces == pytest.approx(np.array(parts), rel=1e-12)


@pytest.mark.devices
@pytest.mark.parametrize("equal_shares", [False, True])
def test_the_velocity_is_that_of_the_dense_system(case, equal_shares):
    discretisation, theta, points, dense = case
    galerkin, network = galerkin_of(discretisation, equal_shares=equal_shares), discretisation.network
    scales, diagonal = np.ones(network.size), np.diag(dense.matrix)
    if equal_shares:
        parts = [np.sum(diagonal[layer.start : layer.stop]) for layer in network.layers]
        shares = np.sqrt(np.sum(parts) / len(parts) / parts)
        scales = np.concatenate([np.full(k.stop - k.start, share) for k, share in zip(network.layers, shares)])
    expected = dense.solution(MU, scales)
    shared = galerkin.prepare(theta, points, jax.random.key(5), RANK)
    result = galerkin.velocity(theta, TIME, points, shared, jnp.zeros(network.size))
    # Rounding, times the condition number 1 / MU, see test_velocity.py.
    assert np.linalg.norm((result.v - expected) / scales) < 1e-9 / MU * 1e-3 * np.linalg.norm(expected / scales)
    misfit = dense.rows @ expected - dense.f.reshape(-1)
    assert result.quality.residual == pytest.approx(dense.norm(misfit) / dense.norm(dense.f), rel=1e-6)
    rate = jax.jvp(lambda theta: network.field(theta, np.asarray(points.x)), (theta,), (result.v,))[1]
    assert np.asarray(result.rate) == pytest.approx(np.asarray(rate), rel=1e-8, abs=1e-10)

    check = read(ResidualCheck, galerkin.check_residual(theta, TIME, result.v, points))
    assert check.residual == pytest.approx(result.quality.residual, rel=1e-6)
    assert float(check.residual_rate) == pytest.approx(dense.norm(misfit) / dense.norm(dense.e), rel=1e-6)


class FreeWave(Wave):
    def rhs(self, u, x, t):
        return jnp.stack([u(x)[1], SPEED_SQUARED * laplacian(lambda y: u(y)[0], x)])


def gauss_points(domain, count):
    """A product of Gauss-Legendre rules with `count` points on each axis."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    x = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(weights, weights).reshape(-1)
    measure = w * np.prod(domain.scale)
    return Points(jnp.asarray(domain.centre + domain.scale * x), jnp.asarray(w / w.sum()), jnp.asarray(measure))


def test_the_projected_equation_conserves_the_energy():
    """With the norm of the energy, <e(u), e(J v)> = <e(u), e(L u)> = 0: u is in the tangent space of its own head.

    The exact rate of the energy is zero, up to a quadrature of 48 points an axis and mu = 1e-12. Measured with four
    random theta, relative to the product of both norms: 2e-10 to 1e-9, and 3e-5 to 2e-3 in the norm of the field.
    """
    problem = FreeWave()
    network = build_network(NetworkSettings(width=6, depth=1, frequencies=2, output_scales=[3.0, 1.0]), problem)
    theta, points = jax.jit(network.initialise)(jax.random.key(1)), gauss_points(problem.domain, 48)
    mesh = make_mesh(1)
    points = jax.device_put(points, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("points")))
    rates = {}
    for norm in ("energy", "field"):
        discretisation = Discretisation(network, problem, SamplingSettings(points=48**2), mesh, norm)
        galerkin = Galerkin(discretisation, SolverSettings(method="primal", mu=1e-12, norm=norm))
        shared = galerkin.prepare(theta, points, jax.random.key(0), 4)
        v = galerkin.velocity(theta, 0.0, points, shared, jnp.zeros(network.size)).v
        dense = Dense(network, theta, points)
        along = dense.rows @ v
        rates[norm] = abs(dense.w @ (dense.e.reshape(-1) * along)) / (dense.norm(dense.e) * dense.norm(along))
    assert rates["energy"] < 1e-7
    assert rates["field"] > 1e-4
