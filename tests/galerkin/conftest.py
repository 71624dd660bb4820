"""Meshes over 1, 2 and 4 devices (those that the process has), points on them, and dense Jacobians by jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.points.points import Points, pad


@pytest.fixture(scope="module", params=[k for k in (1, 2, 4) if k <= jax.device_count()], ids="{}dev".format)
def mesh(request):
    return make_mesh(request.param)


@pytest.fixture(scope="session")
def make_points():
    """(domain, n, mesh, seed) -> n points with nonuniform weights, padded to a multiple of the devices."""

    def make(domain, n, mesh, seed=0):
        random = np.random.default_rng(seed)
        x = domain.sample(random, n)
        weights = random.uniform(0.1, 2.0, n)
        measure = random.uniform(0.1, 2.0, n)
        points = pad(Points(jnp.asarray(x), jnp.asarray(weights / weights.sum()), jnp.asarray(measure)), mesh.size)
        return jax.device_put(points, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("points")))

    return make


@pytest.fixture(scope="session")
def dense():
    """(network, theta, points) -> J (n m, p) and the diagonal of W (n m,), numpy, by jax.jacobian of the field."""

    def make(network, theta, points):
        x = np.asarray(points.x)
        jacobian = jax.jit(jax.jacobian(lambda theta: network.field(theta, x)))(theta)
        weights = np.repeat(np.asarray(points.weights), network.outputs)
        return np.asarray(jacobian, np.float64).reshape(-1, network.size), weights

    return make
