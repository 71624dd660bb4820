"""The cost models of a velocity and of a step: operations and messages against compiled programs, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from documents import table

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.bench import compile_check, cost_model, hlo, step_model
from nivp_dist.galerkin import kernel
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network, network_of
from nivp_dist.points.points import Points
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import registry
from nivp_dist.settings.files import describe_config, read_config, shipped_configs
from nivp_dist.settings.model import NetworkSettings, ProblemSettings, SamplingSettings

WORK = cost_model.PRIMAL[0]


def test_the_operations_of_an_iteration_are_those_of_the_compiled_product():
    network = build_network(
        NetworkSettings(width=64, depth=3), registry.load(ProblemSettings(name="fokker_planck_trap"))
    )
    n, p = 500, network.size
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (n, 5)))
    operator = Operator.build(network, network.initialise(jax.random.key(0)), x, jnp.full(n, 1 / n))
    counted = jax.jit(operator.normal).lower(jnp.zeros(p)).compile().cost_analysis()["flops"]
    one, two = (cost_model.flops(cost_model.Work(p, n, iterations, 1, 5))[2] for iterations in (1, 2))
    assert one == two - one == pytest.approx(counted, rel=0.15)


def test_the_operations_by_samples_are_those_that_methods_are_chosen_by():
    network = build_network(
        NetworkSettings(width=64, depth=3), registry.load(ProblemSettings(name="fokker_planck_trap"))
    )
    sides = sum(layer.rows + layer.columns for layer in network.layers)
    by_samples, by_parameters = (cost_model.Work(network.size, 500, 10, 128, 5, sides=each) for each in (sides, 0))
    found, other = cost_model.flops(by_samples), cost_model.flops(by_parameters)
    assert found[0] == other[0] and found[1] == 500 * kernel.operations(network, 128)
    assert found[2] - other[2] == 4 * 500 * 128 * 10  # F^T r and F c of every iteration
    assert cost_model.flops_everywhere(by_parameters) == 0
    # Four candidates a column: at the least their columns among each other.
    assert cost_model.flops_everywhere(by_samples) >= kernel.CANDIDATES * 128**2 * 2 * sides


def test_one_device_sends_nothing():
    assert cost_model.all_reduce(WORK.p, 1, cost_model.H200) == 0
    assert all(cost_model.efficiency(work, 1, cost_model.H200) == 1 for work in (WORK, *cost_model.DUAL))


def test_a_ring_is_bound_by_its_slowest_link():
    large = 10**9
    inside, between = (
        cost_model.FLOAT64 * large / link.bandwidth for link in (cost_model.H200.inside, cost_model.H200.between)
    )
    assert cost_model.all_reduce(large, 8, cost_model.H200) == pytest.approx(2 * 7 / 8 * inside, rel=1e-2)
    # Each of the 8 devices of a host carries an eighth between the hosts.
    found = cost_model.all_reduce(large, 1024, cost_model.H200) - cost_model.all_reduce(large, 8, cost_model.H200)
    assert found == pytest.approx(2 * between / 8, rel=2e-2)


def test_efficiency_falls_with_devices_and_rises_with_points():
    counts = [2**k for k in range(14)]
    efficiencies = [cost_model.efficiency(WORK, devices, cost_model.H200) for devices in counts]
    assert efficiencies == sorted(efficiencies, reverse=True)
    larger = WORK._replace(n=4 * WORK.n)
    assert all(cost_model.efficiency(larger, devices, cost_model.H200) >= e for devices, e in zip(counts, efficiencies))
    limit = cost_model.limit(WORK, cost_model.H200)
    assert (
        cost_model.efficiency(WORK, limit, cost_model.H200)
        >= 0.5
        > cost_model.efficiency(WORK, 2 * limit, cost_model.H200)
    )


# A whole step -----------------------------------------------------------------------------------------


def programs_of_a_step(devices, points=2048):
    """(the network, name -> (operations on all devices, its collectives)) of the programs around the velocities."""
    mesh = make_mesh(devices)
    config = read_config("fokker_planck_trap_5d", {"network.width": "64", "network.depth": "3"})
    problem = registry.load(config.problem)
    network = build_network(config.network, problem)
    galerkin = Galerkin(Discretisation(network, problem, config.sampling, mesh), config.solver)
    sampler = Sampler(config.sampling, problem.domain, network.log_density, mesh)
    shapes = compile_check._Shapes(mesh, network)
    density, at, theta = shapes.density(1), shapes.points(points), shapes.theta()
    t, v, rate = shapes.whole(), shapes.whole(network.size), shapes.sharded(points, 1)
    lowered = {
        "points": sampler.program(points).lower(shapes.key(), density),
        "density": sampler.fit.lower(density, at, rate, sweeps=1),
        "error": galerkin.step_norms.lower(theta, t, theta, v, rate, rate, at),
        "check": galerkin.check_residual.lower(theta, t, v, at),
    }
    found = {}
    for name, program in lowered.items():
        compiled = program.compile()
        found[name] = (devices * compiled.cost_analysis()["flops"], hlo.contents(compiled.as_text()).collectives)
    return network, found


@pytest.mark.devices
@pytest.mark.parametrize("devices", [k for k in (2, 4) if k <= jax.device_count()])
def test_the_parts_of_a_step_are_those_of_the_compiled_programs(devices):
    network, found = programs_of_a_step(devices)
    work = cost_model.Work(network.size, 2048, 1, 1, 5)
    parts = step_model.around(work)
    once = 2.0 * work.n * work.p
    for name, (operations, collectives) in found.items():
        sums = parts[name].sums if name != "density" else parts[name].sums[:4]  # of one sweep
        assert collectives["all-reduce"] == (len(sums), cost_model.FLOAT64 * sum(sums)), name
        if name in ("error", "check"):
            assert parts[name].passes * once == pytest.approx(operations, rel=0.15), name
        else:
            assert operations < 0.2 * once  # next to nothing beside a velocity


@pytest.mark.parametrize("d", [2, 5, 10])
def test_a_right_hand_side_costs_a_pass_for_each_taylor_stream(d):
    """Fewer in the first layer, whose inputs are those of a point."""
    problem = registry.load(ProblemSettings(name="fokker_planck_trap", parameters={"dimension": d}))
    network = build_network(NetworkSettings(width=128, depth=3), problem)
    discretisation = Discretisation(network, problem, SamplingSettings(points=64), make_mesh(1))
    at = Points(jnp.zeros((64, d)), jnp.ones(64), jnp.ones(64))
    theta = network.initialise(jax.random.key(0))
    counted = jax.jit(lambda theta: discretisation.rhs(theta, 0.0, at)).lower(theta).compile().cost_analysis()["flops"]
    passes = cost_model.rhs_passes(cost_model.Work(network.size, 64, 1, 1, d))
    assert 0.75 * passes < counted / (2 * 64 * network.size) < 1.1 * passes


@pytest.mark.parametrize("work", [*cost_model.PRIMAL, *cost_model.DUAL])
def test_weak_scaling_begins_at_one_and_falls(work):
    efficiencies = [step_model.weak_efficiency(work, step_model.GROUP * 2**k) for k in range(8)]
    assert efficiencies[0] == 1 and efficiencies == sorted(efficiencies, reverse=True)
    devices, _ = step_model.where_it_ends(work)
    assert step_model.weak_efficiency(work, devices) >= step_model.WANTED
    if devices < step_model.MOST_DEVICES:
        assert step_model.weak_efficiency(work, 2 * devices) < step_model.WANTED
    larger = work._replace(n=8 * work.n)
    assert step_model.where_it_ends(larger)[0] >= devices
    assert (step_model.saved_by_one_message(work, 64) > 0) == bool(work.sides)  # "pcg" sends one message already


PRODUCTION = table("cluster", "table: production")


@pytest.mark.parametrize("row", PRODUCTION, ids=lambda row: f"{row[0].strip('`')}-{row[1]}gpu")
def test_predicted_steps_of_configurations_for_clusters_are_those_of_the_model(row):
    """In the guide, and in the file for the number of GPUs that it is made for."""
    name, devices = row[0].strip("`"), int(row[1])
    config = read_config(name)
    problem = registry.load(config.problem)
    network = network_of(config, problem)
    work = step_model.work_of(config, problem, network, devices)
    assert (row[2], row[3]) == (f"{work.p:,}", f"{work.n:,}") and work.p >= 10**5 and work.n >= 10**6
    assert row[4] == cost_model.time_text(sum(step_model.costs(work, devices).values()))
    comment = describe_config(shipped_configs()[name])
    assert comment.error == "not measured" and comment.time.startswith("never run; ")
    made_for = {"fokker_planck_production_20d": 8, "fokker_planck_production_50d": 64}[name]
    assert f"on {made_for} H200 GPUs" in comment.time
    assert devices != made_for or f"{row[4]} a step" in comment.time
