"""Rates of the device: of memory and matrix products, and of products and sketches with wide networks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from nivp_dist.bench.gpu.sizes import Size, dtype_of
from nivp_dist.bench.gpu.stages import Plan
from nivp_dist.bench.products import stored_operator
from nivp_dist.bench.timing import compiled, interleaved
from nivp_dist.network.network import build_network
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.settings.model import NetworkSettings, Precision

# name -> (dtype of the matrices, precision that XLA is asked for)
FORMATS: dict[Precision, tuple[str, str]] = {
    "float64": ("float64", "highest"),
    "float32": ("float32", "highest"),
    "tensorfloat32": ("float32", "tensorfloat32"),
    "bfloat16": ("bfloat16", "default"),
}
PRODUCT_OPERATIONS = 4.0  # of a product M v, for each point and parameter: 2 for J v and 2 for the transpose
# float64 comes last: many GPUs compute it at a thirty-second or a sixty-fourth of the rate of float32.
ORDER: tuple[Precision, ...] = ("float32", "tensorfloat32", "bfloat16", "float64")


def rates(size: Size) -> Plan:
    """Square matrices, and an array that is read and written."""
    plan: Plan = [(f"matrix product, {name}", partial(_matrix_rate, name, size)) for name in FORMATS]
    return plan + [("memory", partial(_bandwidth, size))]


def _matrix_rate(name: Precision, size: Size) -> dict:
    dtype, precision = FORMATS[name]
    # Random numbers: a GPU multiplies zeros and ones faster, because it draws less power.
    a = jax.random.normal(jax.random.key(0), (size.matrix, size.matrix), jnp.float32).astype(dtype)
    product = jax.jit(partial(jnp.matmul, precision=precision))
    seconds = interleaved({"matrix": partial(product, a, a)}, size.rounds).median("matrix")
    return {"side": size.matrix, "seconds": seconds, "operations_per_second": 2 * size.matrix**3 / seconds}


def _bandwidth(size: Size) -> dict:
    a = jnp.ones(size.stream, jnp.float32)
    seconds = interleaved({"stream": partial(jax.jit(lambda a: a + 1), a)}, size.rounds).median("stream")
    return {"bytes": 2 * a.nbytes, "seconds": seconds, "bytes_per_second": 2 * a.nbytes / seconds}


def products(size: Size) -> Plan:
    """Products M v and sketches M V with stored layer factors, by precision and width."""
    return [
        (f"width {width}, {precision}", partial(_product, width, precision, size))
        for precision in ORDER
        for width in size.widths
    ]


def _product(width: int, precision: Precision, size: Size) -> dict:
    dtype, problem = dtype_of(precision), FokkerPlanckTrap(dimension=size.d)
    network = build_network(NetworkSettings(width=width, depth=size.depth, dtype=dtype), problem)
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.uniform(keys[1], (size.n, size.d), dtype, -1.0, 1.0)
    weights = jnp.full(size.n, 1.0 / size.n)
    kept, product = stored_operator(network, network.initialise(keys[0]), x, weights, 0, precision)
    v = jax.random.normal(keys[2], (network.size,), dtype)
    columns = jax.random.normal(keys[3], (network.size, size.columns), dtype)
    found: dict[str, Any] = {"n": size.n, "p": network.size, "columns": size.columns}
    for name, argument, count in (("product", v, 1), ("sketch", columns, size.columns)):
        program = compiled(jax.jit(product), kept, argument)
        seconds = interleaved({name: partial(program.call, kept, argument)}, size.rounds).median(name)
        rate = count * PRODUCT_OPERATIONS * size.n * network.size / seconds
        found[name] = {"seconds": seconds, "operations_per_second": rate} | program.facts
    return found
