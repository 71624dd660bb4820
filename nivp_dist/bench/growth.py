"""The growth of the time and the memory of a product, with the parameters at fixed n, and with n in chunks.

Time: the slope of log(time) against log(size) over the last two decades; 1 is linear. Memory: what the operator stores
besides theta and points, plus what XLA allocates for the product, beside ``galerkin.jacobian.product_bytes``.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.bench.products import stored_operator
from nivp_dist.bench.timing import interleaved
from nivp_dist.galerkin.jacobian import product_bytes
from nivp_dist.network.network import build_network
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.settings.model import NetworkSettings

# width -> p = 1.1e3, 3.3e3, 1.1e4, 3.3e4, 1.1e5, 3.3e5, 1.0e6 (d = 5, three hidden layers)
WIDTHS, POINTS = (13, 31, 65, 120, 226, 397, 700), (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
QUICK_WIDTHS, QUICK_POINTS = (4, 8, 16), (200, 500, 1000)
FIXED_POINTS, FIXED_WIDTH, CHUNK = 4096, 32, 8192
DIMENSION, DEPTH = 5, 3


def measure(what: str, quick: bool, rounds: int) -> dict:
    """The table of the growth with `p` or with `n`, and its slope."""
    fixed, chunk = (64, 128) if quick else (FIXED_POINTS, CHUNK)
    if what == "p":
        lines = [_line(width, fixed, 0, rounds) for width in (QUICK_WIDTHS if quick else WIDTHS)]
    else:
        lines = [_line(FIXED_WIDTH, n, chunk, rounds) for n in (QUICK_POINTS if quick else POINTS)]
    return {"against": what, "lines": lines, "slope": slope([(line[what], line["seconds"]) for line in lines])}


def slope(pairs: list[tuple[float, float]], decades: float = 2.0) -> float:
    """The slope of log(seconds) against log(size) by least squares over the last decades of the sizes."""
    last = [pair for pair in pairs if pair[0] >= max(pairs)[0] / 10**decades]
    x, y = np.log(np.array(last)).T
    return float(np.polyfit(x, y, 1)[0])


def _line(width: int, n: int, chunk: int, rounds: int) -> dict:
    problem = FokkerPlanckTrap(dimension=DIMENSION)
    network = build_network(NetworkSettings(width=width, depth=DEPTH, dtype="float32"), problem)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.uniform(keys[1], (n, DIMENSION), jnp.float64, -1.0, 1.0)
    v = jax.random.normal(keys[2], (network.size,))
    kept, product = stored_operator(network, network.initialise(keys[0]), x, jnp.full(n, 1.0 / n), chunk, jnp.float32)
    program = jax.jit(product).lower(kept, v).compile()
    samples = interleaved({"product": partial(program, kept, v)}, rounds)
    memory: Any = program.memory_analysis()
    inputs = network.size + n * (DIMENSION + 1)  # theta, points and weights, float64
    stored_bytes = sum(leaf.nbytes for leaf in kept) - 8 * inputs
    return {
        "p": network.size,
        "n": n,
        "chunk": chunk,
        "seconds": samples.median("product"),
        "flops_rate": 4 * n * network.size / samples.median("product"),
        "bytes": stored_bytes + memory.temp_size_in_bytes,
        "predicted_bytes": product_bytes(network, n, chunk, jnp.float32, jax.default_backend()),
        "spread": samples.spread("product"),
    }
