"""A step compiles nothing after the first ones, and the host reads single numbers only."""

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import EVOLVE, replicated
from nivp_dist.settings.model import Config


@pytest.fixture
def compilations():
    """Durations of compilations, as they happen."""
    durations = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            durations.append(duration)

    monitoring.register_event_duration_secs_listener(listen)
    yield durations
    monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def read(monkeypatch):
    """Sizes of the arrays whose values the host asks for."""
    sizes, kind = [], type(jnp.zeros(()))
    values = kind._value.fget

    def record(array):
        sizes.append(array.size)
        return values(array)

    monkeypatch.setattr(kind, "_value", property(record))
    return sizes


def test_the_host_notices_what_it_reads(read):
    array = jnp.arange(3.0)
    float(array[1])
    assert read == [1]
    array.tolist()
    assert read == [1, 3]


def test_a_new_shape_is_noticed(compilations):
    jax.jit(lambda x: x * 17.0)(jnp.ones(1237))
    assert compilations


@pytest.mark.parametrize("method", ["primal", "dual", "pcg", "dual_pcg"])
def test_steps_compile_nothing_and_read_scalars(method, compilations, read):
    problem = LinearFokkerPlanck(dimension=2)
    config = Config(
        problem={"name": "linear_fokker_planck"},
        network={"width": 4, "depth": 1},
        sampling={"points": 150},
        solver={"method": method, "mu": 1e-8, "rank": 8},
        integrator={"rtol": 1e-3, "initial_step": 1e-3, "t_end": 1.0},
        devices=1,
    )
    simulation = Simulation(config, problem)
    network, start = simulation.network, simulation.blank()
    theta = jax.jit(network.initialise)(jax.random.key(1))
    density = simulation.sampler.start(jax.random.key(2), jax.vmap(lambda x: problem.initial(x)[None]))
    state = start._replace(phase=EVOLVE, outputs_written=1, theta=theta, density=density)
    state = replicated(state, simulation.mesh)
    for _ in range(2):
        state = simulation.stepper.step(state, lambda: None).state
    del compilations[:], read[:]
    before = state.evaluations
    for _ in range(3):
        state = simulation.stepper.step(state, lambda: None).state
    evaluations = state.evaluations - before
    assert evaluations >= 3 * 6 and compilations == []
    assert max(read) == 1 and len(read) < 5 * evaluations + 3 * 40
