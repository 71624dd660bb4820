"""Networks of users in the four solvers: Jacobian and velocity against dense linear algebra, on 1, 2 and 4 devices."""

from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, make_mesh
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network import own_network
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems import Axes, Open, Periodic, Problem
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS = 45  # not a multiple of 2, of 4 or of the chunk
MU, RTOL, RANK = 1e-6, 1e-12, 12


class Mixed(nn.Module):
    """Affine layers with and without bias, one that is applied twice, a normalisation and a parameter of its own."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        a = jnp.tanh(
            nn.Dense(4)(jnp.concatenate([jnp.sin(jnp.pi * x[:, :1]), jnp.cos(jnp.pi * x[:, :1]), x[:, 1:]], 1))
        )
        shared = nn.Dense(4, name="shared")
        a = a + shared(jnp.tanh(shared(a)))
        a = nn.LayerNorm()(a) + self.param("own", nn.initializers.normal(), (4,)) * nn.Dense(4, use_bias=False)(a)
        return nn.Dense(self.outputs)(jnp.tanh(a))


class Carried(Problem):
    """u_t = -u_x + (u_2, -u_1), a system of two outputs."""

    outputs = 2

    @property
    def domain(self):
        return Axes(Periodic(0, 2), Open(-1, 3))

    def rhs(self, u, x, t):
        return -jax.jacfwd(u)(x)[:, 0] + jnp.array([1.0, -1.0]) * u(x)[::-1]


@pytest.fixture(scope="module")
def network():
    with mock.patch.dict(own_network.SHIPPED, Mixed=Mixed):
        return build_network(NetworkSettings(class_="Mixed", output_scales=[1.0, 1.0]), Carried())


@pytest.fixture(scope="module")
def theta(network):
    theta = np.asarray(network.initialise(jax.random.key(3)))
    return jnp.asarray(theta + 0.1 * np.random.default_rng(0).standard_normal(theta.shape))


@pytest.mark.devices
def test_products_against_a_dense_jacobian(network, theta, mesh, make_points, dense):
    points, random = make_points(network.domain, POINTS, mesh), np.random.default_rng(1)
    j, w = dense(network, theta, points)
    v, r = random.standard_normal(network.size), random.standard_normal((len(points.x), network.outputs))

    def products(theta, points, v, r):
        results = []
        for chunk in (0, 7):
            operator = Operator.build(network, theta, points.x, points.weights, chunk)
            sums = operator.transpose(r), operator.matrix(), operator.traces()
            results.append((operator.apply(v), *jax.lax.psum(sums, AXIS)))
        return results

    split = Points(P(AXIS), P(AXIS), P(AXIS))
    specs = {"in_specs": (P(), split, P(), P(AXIS)), "out_specs": 2 * [(P(AXIS), P(), P(), P())]}
    m = j.T @ (w[:, None] * j)
    parts = [np.trace(m[layer.start : layer.stop, layer.start : layer.stop]) for layer in network.layers]
    exact = (j @ v).reshape(r.shape), j.T @ (w * r.reshape(-1)), m, np.array(parts)
    for result in jax.jit(jax.shard_map(products, mesh=mesh, **specs))(theta, points, v, r):
        for got, want in zip(result, exact, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * np.abs(want).max())


@pytest.fixture(scope="module")
def system(network, theta, make_points, dense):
    """Points on two devices, and there W^(1/2) J and W^(1/2) f, with f by derivatives of the field."""
    points = make_points(network.domain, POINTS, make_mesh(2))
    j, w = dense(network, theta, points)
    field = lambda x: network.field(theta, x[None])[0]  # noqa: E731
    u, u_x = jax.jit(jax.vmap(lambda x: (field(x), jax.jacrev(field)(x)[:, 0])))(np.asarray(points.x))
    f = (-u_x + np.array([1.0, -1.0]) * u[:, ::-1]).reshape(-1)
    return points, np.sqrt(w)[:, None] * j, np.sqrt(w) * f


@pytest.mark.devices
@pytest.mark.parametrize("method, chunk", [("pcg", 7), ("dual_pcg", 0), ("primal", 7), ("dual", 0)])
def test_velocity_against_numpy(network, theta, system, method, chunk):
    """With layers of equal shares, because their scales have to reach the stored linearisations too."""
    points, a, f = system
    stops = [layer.stop for layer in network.layers]
    shares = [np.sum(part**2) for part in np.split(a, stops[:-1], axis=1)]
    a = a / np.sqrt(np.repeat(shares, np.diff([0, *stops])))
    exact = np.linalg.solve(a.T @ a + MU * len(stops) * np.eye(network.size), a.T @ f)  # tr A^T A is their number
    settings = SamplingSettings(points=POINTS, chunk=chunk)
    solver = SolverSettings(method=method, mu=MU, rtol=RTOL, equal_shares=True)
    galerkin = Galerkin(Discretisation(network, Carried(), settings, make_mesh(2)), solver)
    shared = galerkin.prepare(theta, points, jax.random.key(5), RANK)
    guess = galerkin.initial_guess(jnp.zeros(network.size), points)
    result = galerkin.velocity(theta, 0.0, points, shared, guess)
    found = result.v * np.sqrt(np.repeat(shares, np.diff([0, *stops])))
    # Cholesky's error is 2 p eps / mu = 7e-8 (Higham 2002, th. 10.3), that of conjugate gradients RTOL / mu.
    assert np.linalg.norm(found - exact) < 1e-6 * np.linalg.norm(exact)
    residual = np.linalg.norm(a @ exact - f) / np.linalg.norm(f)
    assert 1e-3 < residual < 0.99
    np.testing.assert_allclose(result.quality.residual, residual, rtol=1e-6)
