"""Every test runs with float64 switched on, as the product does, on the CPU unless told otherwise."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402
from disks import disk  # noqa: E402, F401  a fixture

import nivp_dist._jax  # noqa: E402, F401


@pytest.fixture(scope="module")
def fast_compilation():
    """Machine code need not be fast for a handful of points; the programs and their communication stay the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    # JAX keeps what it compiled, under the other setting too: the whole runs compare bits with other processes.
    jax.clear_caches()
