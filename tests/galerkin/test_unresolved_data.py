"""What a step does not resolve of the data on its walls, on 1, 2 and 4 devices."""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems import Axes, Open, Problem, Wall
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

X = np.random.default_rng(0).uniform(0, 1, (24, 2))
WEIGHTS = np.random.default_rng(1).uniform(0.5, 1, 24)


class Heated(Problem):
    """u = g(t) x on the unit interval: the lifting."""

    jump: float = 0.0
    domain = property(lambda self: Axes(Wall(0, 1), Open(0, 1)))

    def wall_data(self, x, t, axis, end):
        return (jnp.sin(3 * t) + self.jump * (t > 0.507)) * (end == "upper")


def unresolved(problem, devices, t, h):
    settings, mesh = NetworkSettings(width=3, depth=1), make_mesh(devices)
    network = build_network(settings, problem)
    galerkin = Galerkin(
        Discretisation(network, problem, SamplingSettings(points=24, chunk=5), mesh), SolverSettings(method="primal")
    )
    points = Points(*map(jnp.asarray, (X, WEIGHTS, WEIGHTS)))
    return float(galerkin.unresolved_data(t, h, points))


@pytest.mark.devices
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_it_is_the_change_that_the_rate_does_not_explain(devices):
    size = np.sqrt(np.sum(WEIGHTS * X[:, 0] ** 2))
    assert unresolved(Heated(), devices, 0.5, 0.02) < 1e-14 * size
    assert unresolved(Heated(jump=0.7), devices, 0.5, 0.02) == pytest.approx(0.7 * size, rel=1e-12)
    assert unresolved(Heated(jump=0.7), devices, 0.51, 0.02) < 1e-14 * size
