"""Every test runs with float64 switched on, as the product does, on the CPU unless told otherwise."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import nivp_dist._jax  # noqa: E402, F401
