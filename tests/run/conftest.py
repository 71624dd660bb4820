"""Whole runs of a tiny problem; compiled programs are kept between them."""

import inspect
import json

import jax
import pytest
from whole_runs import At, Crash, Runs, assert_same, wait_until

from nivp_dist.run import controller


@pytest.fixture(scope="session")
def until():
    return wait_until


@pytest.fixture(scope="session")
def crash():
    return Crash


@pytest.fixture(scope="session")
def at():
    return At


@pytest.fixture(scope="session", autouse=True)
def keep_compiled(compiled):
    """Programs are the same from run to run: compile them once a session."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


@pytest.fixture(scope="session", autouse=True)
def programs_are_made_once():
    """Runs of one configuration in this process share their Simulation, which is programs and no state: tracing them
    takes longer than the run. Those in processes of their own make them again, and are held against these."""
    made, make = {}, controller.Simulation

    def shared(config, problem, *note):
        # Not where a run is and keeps its copy of the problem's file, but what that says.
        apart = {"output": {"directory"}, "problem": {"file"}, "checkpoint": True, "cluster": True, "callbacks": True}
        settings = config.model_dump(mode="json", exclude=apart)
        key = json.dumps(settings, sort_keys=True), repr(problem), inspect.getsource(type(problem))
        if key not in made:
            made[key] = make(config, problem, *note)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller, "Simulation", shared)
        yield


@pytest.fixture(scope="session")
def runs(tmp_path_factory, compiled):
    return Runs(tmp_path_factory.mktemp("runs"), compiled)


@pytest.fixture(scope="session")
def undisturbed(runs):
    """The run that all others are held against."""
    return runs.run()


@pytest.fixture(scope="session")
def same():
    return assert_same
