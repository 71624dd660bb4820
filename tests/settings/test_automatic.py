"""The numbers that stand for 'auto' in the settings of points."""

import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import Box, OpenBox, WholeSpace
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.automatic import LEAST_POINTS, number_of_points, uniform_fraction, with_points
from nivp_dist.settings.model import Config, SamplingSettings

HEAT = {"problem": {"name": "heat"}}


@pytest.mark.parametrize("parameters, points", [(100, LEAST_POINTS), (1000, 5000)])
def test_points_follow_from_the_parameters(parameters, points):
    assert number_of_points(with_points(Config(**HEAT), parameters).sampling) == points


def test_points_that_are_set_stay():
    config = Config(**HEAT, sampling={"points": 7})
    assert with_points(config, 1000) is config


@pytest.mark.parametrize(
    "domain, log_density, sampling, share",
    [
        (Box(2), False, {}, 0.5),
        (OpenBox(2), False, {"method": "residual"}, 0.1),
        (Box(2), False, {"uniform_fraction": 0.2}, 0.2),
        (Box(2), False, {"method": "uniform"}, 1.0),
        (WholeSpace(2, 0.0, 1.0), True, {}, 0.1),
    ],
)
def test_the_share_of_uniform_points(domain: Domain, log_density, sampling, share):
    """A field in a box has half of its points spread over it, as `Sampler` draws them."""
    settings = SamplingSettings(points=1000, **sampling)
    sampler = Sampler(settings, domain, log_density, make_mesh(1), squares=not log_density)
    assert sampler._uniform_share() == share == uniform_fraction(settings, field=not log_density)
