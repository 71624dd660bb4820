"""Whole runs of a tiny problem; compiled programs are kept between them."""

import jax
import pytest
from whole_runs import At, Crash, Runs, assert_same, wait_until


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
