"""The cost model: its operations against compiled programs, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.bench import cost_model
from nivp_dist.galerkin import kernel
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.network.network import build_network
from nivp_dist.problems import registry
from nivp_dist.settings.model import NetworkSettings, ProblemSettings

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
