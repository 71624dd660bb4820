"""On ordered meshes a velocity has the same bits on any number of devices, and is the velocity."""

import jax
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh, multiple_of_points, replicate
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.points.points import pad
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

POINTS = 150  # two or three in a part
PROBLEM = LinearFokkerPlanck(dimension=2)  # the basis of its parameters is fitted to the points
NETWORK = build_network(NetworkSettings(width=4, depth=1), PROBLEM)


def velocity(make_points, mesh, method: str, chunk="auto"):
    """A velocity and what it was solved with."""
    sampling, solver = SamplingSettings(points=POINTS, chunk=chunk), SolverSettings(mu=1e-6, method=method)
    galerkin = Galerkin(Discretisation(NETWORK, PROBLEM, sampling, mesh), solver)
    points = pad(make_points(PROBLEM.domain, POINTS, make_mesh(1)), multiple_of_points(mesh))
    points, theta = replicate((points, NETWORK.initialise(jax.random.key(0))), mesh)
    shared = galerkin.prepare(theta, points, jax.random.key(1), galerkin.initial_rank)
    return galerkin.velocity(theta, 0.1, points, shared, 0 * theta), shared


@pytest.fixture(scope="module")
def plain(make_points):
    """J v without a fixed order: (n, 1)."""
    return velocity(make_points, make_mesh(1), "primal")[0].rate


@pytest.mark.devices
@pytest.mark.parametrize("method, chunk", [("primal", 40), ("dual", "auto")])
def test_a_velocity_has_the_same_bits_on_one_device_and_on_four(make_points, plain, method, chunk):
    """Conjugate gradients are tried with a whole run (tests/run). With the chunk the factors are made again for every
    product on one device, and kept on four."""
    one, four = (velocity(make_points, make_mesh(devices, ordered=True), method, chunk) for devices in (1, 4))
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True)
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    np.testing.assert_allclose(one[0].rate[:POINTS], plain, rtol=0, atol=1e-8)
