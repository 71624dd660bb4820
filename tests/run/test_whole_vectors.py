"""Vectors of p numbers that are whole on every device: how many they are, and p that is too large for a device."""

import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.bench import compile_check
from nivp_dist.errors import InputError
from nivp_dist.formatting import size
from nivp_dist.galerkin.vectors import COLUMN_ENTRIES
from nivp_dist.network.network import network_of
from nivp_dist.problems import registry
from nivp_dist.run import simulation, whole_vectors
from nivp_dist.run.solvers import Solvers
from nivp_dist.settings.files import read_config

DEVICES = 4


def configuration(width, **settings):
    keys = {"network.width": str(width), "solver.method": "pcg", "solver.shard_vectors": "true"}
    return read_config("double_well_5d", keys | {"network.depth": "3", "sampling.points": "64"} | settings)


def compiled(width):
    """(p, name -> bytes on a device) of the programs of a step, from shapes alone."""
    config = configuration(width)
    problem = registry.load(config.problem)
    network, mesh = network_of(config, problem), make_mesh(DEVICES)
    galerkin, shapes = Solvers(config, problem, mesh).of_steps(network), compile_check._Shapes(mesh, network)
    programs = compile_check._of_steps(galerkin, shapes, shapes.points(64))
    approximation, velocity = next(programs), next(programs)
    return network.size, approximation.memory, velocity.memory


@pytest.mark.devices
def test_a_velocity_and_a_sketch_of_a_hundred_million_parameters():
    """Compiled for shapes; no array of that length is made.

    On each of four devices a sketch holds a fourth of its p x 128 numbers, and five whole columns at a time. With 64
    columns it would take 300 vectors more.
    """
    p, approximation, velocity = compiled(7000)
    assert 9.8e7 < p < 9.9e7 and COLUMN_ENTRIES // p == 5
    assert velocity / (8 * p) < 50 and approximation / (8 * p) < 60


@pytest.mark.parametrize(
    "settings, earlier, step, fit",
    [
        ({}, 0, 17, 25),
        ({"fit.order": "1"}, 0, 17, 13),
        ({"fit.line_search": "true"}, 0, 17, 43),
        ({"fit.line_search": "true", "fit.order": "1"}, 0, 17, 31),
        ({"fit.line_search": "true", "network.dtype": "float32"}, 0, 17, 31),
        ({"integrator.method": "heun"}, 0, 9, 25),
        ({"network.form": "direct", "sampling.method": "density", "integrator.method": "bdf"}, 4, 13, 25),
    ],
)
def test_how_many_vectors_are_whole(settings, earlier, step, fit):
    whole = whole_vectors.count(configuration(8, **settings | {"solver.shard_vectors": "false"}), 1000, earlier)
    assert (whole.step, whole.fit, whole.bytes) == (step, fit, 8000 * max(step, fit))


@pytest.fixture
def memory(monkeypatch):
    """Gives the devices a memory of so many bytes."""
    return lambda size: monkeypatch.setattr(simulation, "memory_limit", lambda mesh: size)


def test_a_run_that_is_too_large_for_its_devices_is_refused_before_anything_is_compiled(memory):
    config = configuration(8, **{"network.depth": "1", "solver.shard_vectors": "false"})
    problem, said = registry.load(config.problem), []
    p = simulation.Simulation(config, problem, said.append).network.size
    assert said == []  # the memory of a CPU is not known
    needed = 8 * 25 * p
    memory(20 * needed)
    simulation.Simulation(config, problem, said.append)
    assert said == []
    memory(9 * needed)
    simulation.Simulation(config, problem, said.append)
    assert said == [
        f"every device holds 25 vectors of p numbers at once, {size(needed)}, as a whole, and it has {size(9 * needed)}"
    ]
    memory(needed - 1)
    with pytest.raises(
        InputError, match=f"^p = {p} is too large: every device holds 25 vectors .* lower network.width"
    ):
        simulation.Simulation(config, problem)
