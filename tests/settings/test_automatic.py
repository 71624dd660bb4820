"""The numbers that stand for 'auto' in the settings of points and mu."""

import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import Box, OpenBox, WholeSpace
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.automatic import (
    DIRECTLY_SOLVED,
    LARGEST_MU,
    LEAST_MU,
    LEAST_POINTS,
    inflation,
    mu_of,
    number_of_points,
    resolved,
    uniform_fraction,
)
from nivp_dist.settings.model import Config, SamplingSettings

HEAT = {"problem": {"name": "heat"}}


@pytest.mark.parametrize("parameters, points", [(100, LEAST_POINTS), (1000, 5000)])
def test_points_follow_from_the_parameters(parameters, points):
    assert number_of_points(resolved(Config(**HEAT), parameters, False).sampling) == points


def test_a_point_counts_twice_in_the_norm_of_the_energy():
    config = Config(problem={"name": "wave"}, solver={"norm": "energy", "method": "primal"})
    assert number_of_points(resolved(config, 2000, False).sampling) == 5000


def test_points_that_are_set_stay():
    config = Config(**HEAT, sampling={"points": 7})
    assert resolved(config, 1000, False) == config


@pytest.mark.parametrize(
    "accuracy, parameters, mu",
    [
        (1e-3, 1000, 1e-11),
        (1e-3, DIRECTLY_SOLVED, 1e-11),
        (1e-3, DIRECTLY_SOLVED + 1, 1e-10),  # iterations grow as mu falls
        (1e-7, 1000, LEAST_MU),  # below it float64 has no meaning for mu
        (0.5, 10_000, LARGEST_MU),  # above it nothing would move
        (None, 1000, 1e-9),
    ],
)
def test_mu_follows_from_the_accuracy_and_the_parameters(accuracy, parameters, mu):
    config = Config(**HEAT, accuracy=accuracy, solver={} if accuracy else {"mu": "auto"})
    assert config.solver.mu == "auto"
    assert mu_of(resolved(config, parameters, False).solver) == pytest.approx(mu, rel=1e-12)
    given = Config(**HEAT, accuracy=accuracy, solver={"mu": 3e-5})
    assert resolved(given, parameters, False).solver.mu == 3e-5


@pytest.mark.parametrize(
    "log_density, sampling, method, share, factor",
    [
        (True, {}, "solution", 0.02, 1.0),
        (True, {"uniform_fraction": 0.3}, "solution", 0.3, 1.0),
        (True, {"inflation": 2.0}, "solution", 0.02, 2.0),
        (True, {"redraw_every": 2}, "density", 0.1, 1.5),  # which resampling does not support
        (True, {"method": "density"}, "density", 0.1, 1.5),
        (False, {}, "density", 0.5, 1.5),
    ],
)
def test_points_follow_a_density_itself_where_its_logarithm_is_represented(
    log_density, sampling, method, share, factor
):
    found = resolved(Config(**HEAT, accuracy=1e-3, sampling=sampling), 1000, log_density).sampling
    assert (found.method, inflation(found)) == (method, factor)
    assert uniform_fraction(found, field=not log_density) == share


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
