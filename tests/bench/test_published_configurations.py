"""The configurations with the settings of the paper: they are the paper's, and the guide's table is about them."""

import pytest
from documents import table

from nivp_dist.bench import cases, end_to_end
from nivp_dist.network.network import build_network
from nivp_dist.problems import registry
from nivp_dist.settings.files import describe_config, read_config, shipped_configs

NAMES = [name for name in shipped_configs() if name.startswith("published_")]
PAIRS = ("bogacki_shampine", "dormand_prince")  # RK23 and RK45


@pytest.mark.parametrize("name", NAMES)
def test_the_network_has_the_published_size(name):
    """Three layers of 100 on the coordinates and their sines and cosines; log u has a quadratic form beside them."""
    config = read_config(name)
    problem = registry.load(config.problem)
    network, d = build_network(config.network, problem), problem.domain.dimension
    hidden = 101 * 100 * 2 + (d + 2 * 5 * d + 1) * 100
    form = (d + 1) * (d + 2) // 2 if network.log_density else 0
    assert network.size == hidden + 101 * problem.outputs + form
    assert str(network.dtype) == "float32"


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_the_published_ones(name):
    config = read_config(name)
    published = end_to_end.FULL.get(str(config.problem.name), end_to_end.FULL["advection"]).published
    network = cases.NETWORK | {"form": config.network.form}
    assert config.network.model_dump(include=set(network)) == network and config.network.activation == "swish"
    assert config.sampling.points == published.points and not config.sampling.adapt_points
    assert config.solver.method == "pcg" and config.solver.precision == "float32"
    assert config.solver.rank == published.rank and not config.solver.adapt_mu
    assert 1e-8 <= config.solver.mu <= 1e-6 and config.solver.rtol in (1e-8, 1e-7)
    assert config.integrator.method in PAIRS and 1e-4 <= config.integrator.rtol <= published.rtol
    for fit in (config.fit, config.restart.fits(config.fit)):
        assert (fit.method, fit.optimiser, fit.head_tuning) == ("optimiser", "adam", True)
    assert config.restart.every is not None and config.restart.every < config.integrator.t_end


def test_the_table_of_the_guide_has_what_the_files_say():
    rows = {row[0].strip("`"): row for row in table("speed", "table: published")}
    assert list(rows) == NAMES
    for name, row in rows.items():
        comments = describe_config(shipped_configs()[name])
        assert comments.error.startswith(f"{row[3]} at t = {row[2]}") and comments.time.startswith(row[4])
