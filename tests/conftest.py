"""All tests run in float64, as the product does, and on the CPU unless JAX_PLATFORMS names another platform."""

import gc
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile many programs and run each on a few points, so that slow machine code costs less than optimising it. The
# programs and their communication stay the same. Processes that tests start inherit the setting, because their bits are
# compared with those of this process. The tests also pass with JAX_DISABLE_MOST_OPTIMIZATIONS=0.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# On a CPU all tests have four devices, of which a configuration may use fewer. Sharded programs are tested on 1, 2, 4.
if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
# With these two flags the programs of a run compile in 5 s instead of 15 s (two cores, jaxlib 0.10.2). The product sets
# the first one too. Only jaxlib 0.10 gets them, because XLA aborts a process that sets a flag which it does not know.
QUICK = " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10.") and os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + QUICK

# Runs keep their compiled programs. Those of tests lie in a folder that the workers of a session share and that its end
# removes, as the home of whoever runs the tests is not theirs to fill.
CACHES = Path(tempfile.gettempdir()) / f"nivp-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
os.environ["XDG_CACHE_HOME"] = str(CACHES)

# Tracing makes millions of objects that live long. With Python's default thresholds the garbage collector inspects them
# so often that it takes a tenth of the time of the suite.
gc.set_threshold(200_000, 20, 100)

import jax  # noqa: E402
import pytest  # noqa: E402
from disks import disk  # noqa: E402, F401  a fixture

import nivp_dist.backend  # noqa: E402, F401


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):  # the last one to end
        shutil.rmtree(CACHES, ignore_errors=True)


def pytest_collection_finish():
    gc.freeze()  # the objects of the imported modules are never inspected again


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The folder of the compilation cache of a test worker and of the processes that its tests start."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drop the compiled programs of a module's tests, which no other module uses."""
    yield
    jax.clear_caches()


# Linux allows a process 65,530 memory maps (vm.max_map_count), and one that exceeds them dies in the compiler. A
# compiled program takes some, with jaxlib 0.11 so many that one module of tests can reach the limit.
MANY_MAPS, MAPS = 30_000, Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def keep_memory_maps_few():
    """Drop the compiled programs of this process when they hold half of the memory maps that it may have."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
