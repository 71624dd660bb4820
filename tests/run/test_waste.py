"""A step compiles nothing after the first ones, starts few programs, and the host reads one vector a stage."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring
from jax._src import pjit
from jax._src.interpreters import pxla

from nivp_dist.backend.mesh import to_host
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
    values, on_device = kind._value.fget, kind.addressable_data

    def record(array):
        sizes.append(array.size)
        return values(array)

    def record_shard(array, index):  # which ``mesh.to_host`` makes an array of numpy
        sizes.append(array.size)
        return on_device(array, index)

    monkeypatch.setattr(kind, "_value", property(record))
    monkeypatch.setattr(kind, "addressable_data", record_shard)
    return sizes


@pytest.fixture
def started(monkeypatch):
    """The names of the programs that the host starts. Without its shortcut jax starts each by one call in Python."""
    names, start = Counter(), pxla.ExecuteReplicated.__call__

    def record(program, *arguments):
        names[program.name] += 1
        return start(program, *arguments)

    monkeypatch.setattr(pxla.ExecuteReplicated, "__call__", record)
    monkeypatch.setattr(pjit, "_get_fastpath_data", lambda *arguments, **keywords: None)
    return names


def test_the_host_notices_what_it_reads(read):
    array = jnp.arange(3.0)
    float(array[1])
    assert read == [1]
    array.tolist()
    assert read == [1, 3]
    to_host(array)
    assert read == [1, 3, 3]


def test_a_new_shape_is_noticed(compilations):
    jax.jit(lambda x: x * 17.0)(jnp.ones(1237))
    assert compilations


@pytest.mark.parametrize("method", ["primal", "dual", "pcg", "dual_pcg"])
def test_steps_compile_nothing_and_wait_for_the_device_once_a_stage(method, compilations, read, started):
    problem = LinearFokkerPlanck(dimension=2)
    config = Config(
        problem={"name": "linear_fokker_planck"},
        network={"width": 4, "depth": 1},
        sampling={"points": 150},
        solver={"method": method, "mu": 1e-8, "rank": 8},
        integrator={"rtol": 1e-3, "initial_step": 1e-3, "t_end": 1.0},
        output={"spectrum_every": 0},  # which has programs of its own
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
    for _ in range(3):
        del compilations[:], read[:]
        started.clear()
        before, state = state, simulation.stepper.step(state, lambda: None).state
        evaluations, attempts = state.evaluations - before.evaluations, 1 + state.rejected - before.rejected
        solved, shared = started["jit(_velocity)"], started["jit(_regularisation)"] + started["jit(cholesky)"]
        assert solved >= evaluations >= 6 and shared and compilations == []
        # Numbers of every velocity, of the error of every attempt, and at the end all that is reported.
        assert len(read) == solved + attempts + 1 and max(read) == 9 + 6**2
        # theta of the next stage for each velocity; the end of an attempt and its error; keys, points, fields.
        assert started.total() - solved - shared <= evaluations + 4 * attempts + 8
