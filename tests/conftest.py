"""Every test runs with float64 switched on, as the product does, on the CPU unless told otherwise."""

import gc
import os
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Machine code need not be fast for a handful of points; the programs and their communication stay the same. Processes
# that tests start take it over: bits are compared with theirs. With ..._OPTIMIZATIONS=0 the tests hold as well.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# On a CPU all tests have four devices, of which a configuration may use fewer; what is sharded is tested on 1, 2 and 4.
if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
# These two, of which the first is the product's own too, compile the programs of a run in 5 s instead of 15. XLA ends a
# process that names a flag it does not know.
QUICK = " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10.") and os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + QUICK

# Tracing makes objects by the million that live long: looking through them again and again is a tenth of the time.
gc.set_threshold(200_000, 20, 100)

import jax  # noqa: E402
import pytest  # noqa: E402
from disks import disk  # noqa: E402, F401  a fixture

import nivp_dist.backend  # noqa: E402, F401


def pytest_collection_finish():
    gc.freeze()  # nor are modules looked through again


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Where compiled programs are kept, for the tests of a worker and all that they start."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """A process may have 65,530 maps of memory (vm.max_map_count), and every program takes some: past them it dies."""
    yield
    jax.clear_caches()
