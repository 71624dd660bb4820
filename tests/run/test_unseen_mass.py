"""A run says so when the points of its first density do not see the whole mass of a probability density."""

import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.points.mixture import Density
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.run.simulation import Simulation
from nivp_dist.settings.model import Config

SETTINGS = {"sampling": {"components": 2, "points": 200}, "network": {"width": 4, "depth": 1}, "devices": 1}


class FarApart(LinearFokkerPlanck):
    """Two Gaussians in the plane, twenty of their widths apart, with weights 0.6 and 0.4."""

    dimension: int = 2
    separation: float = 10.0


def test_a_part_of_the_density_that_no_point_sees_is_said():
    problem = FarApart()
    simulation = Simulation(Config(problem={"name": "linear_fokker_planck"}, **SETTINGS), problem)
    weights, means, covariances = (jnp.asarray(part) for part in problem.mixture())
    assert simulation.fits.unseen(Density(weights, means, covariances)) is None
    # Both Gaussians of the points are on the first part.
    message = simulation.fits.unseen(Density(jnp.full(2, 0.5), jnp.stack([means[0]] * 2), covariances))
    assert message is not None and message.startswith("points: they see a mass of 0.6 of initial(x)")


def test_the_first_density_of_a_run_sees_all():
    problem = FarApart()
    simulation = Simulation(Config(problem={"name": "linear_fokker_planck"}, **SETTINGS), problem)
    density, _ = simulation.fits.begin_initial(random_keys.run_key(0))
    assert simulation.fits.unseen(density) is None
    np.testing.assert_allclose(sorted(np.asarray(density.weights)), [0.4, 0.6], atol=0.02)
