"""The time of a product M v, and of a sketch: ours and other ways.

- "again": differentiation of the network at every product, as published;
- "linearised": one stored linearisation;
- "explicit": the Jacobian J in memory, where it fits.

Each way is a compiled program, called with what can be kept between products: theta and points for "again", the
residuals of the linearisation, J, and the layer factors for ours. Within one program XLA moves repeated work out of a
loop, and "in a loop" is "again" in such a program, as in the published solver.

A sketch is the product M Omega with several columns, from which the published procedure makes its preconditioner. "J
anew" is "explicit" with the computation of J, which every new theta needs, and "columns" is our product with several
columns. Our own preconditioner is an approximation of K of the same rank (``galerkin.kernel``, always in float64),
which is another matrix: `nivp bench speed velocity` shows the iterations that result from both.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, make_mesh
from nivp_dist.bench.published import Published
from nivp_dist.bench.roofline import Roofline
from nivp_dist.bench.timing import interleaved
from nivp_dist.galerkin import kernel
from nivp_dist.galerkin.jacobian import Operator, factor_bytes
from nivp_dist.network.network import build_network
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.settings.model import DType, NetworkSettings

WIDTHS, POINTS, DIMENSIONS = (32, 128, 512, 1024), (1_000, 10_000, 100_000), (2, 10, 50)
QUICK = (32, 128), (1_000, 10_000), (2, 10)
RANKS, QUICK_RANKS = (128, 250), (32,)
DEPTH = 3
MAX_WORK, MAX_BYTES = 2.5e11, 3e9  # operations of a call, and bytes of an explicit J: some seconds, and common memory
LOOP = 8  # products in a call of "in a loop"
OURS, IN_A_LOOP, EXPLICIT_ANEW, COLUMNS = "ours", "in a loop", "J anew", "columns"
OTHERS = AGAIN, LINEARISED, EXPLICIT = "again", "linearised", "explicit"


class Case(NamedTuple):
    """A network with DEPTH hidden layers of `width` in d dimensions, n points, the rank of a sketch (0: a product)."""

    width: int
    n: int
    d: int
    rank: int = 0
    dtype: DType = "float32"


def cases(quick: bool = False) -> list[Case]:
    """Products and sketches on the grid in float32, for d = 10 in float64 too, without those of more than MAX_WORK."""
    grid = QUICK if quick else (WIDTHS, POINTS, DIMENSIONS)
    single = [Case(*values) for values in itertools.product(*grid)]
    double = [case._replace(dtype="float64") for case in single if case.d == 10]
    sketches = [case._replace(rank=r) for r in (QUICK_RANKS if quick else RANKS) for case in single + double]
    return [case for case in single + double + sketches if work(network_of(case), case) <= MAX_WORK]


def network_of(case: Case):
    """The network of a case, on a box."""
    settings = NetworkSettings(width=case.width, depth=DEPTH, dtype=case.dtype)
    return build_network(settings, FokkerPlanckTrap(dimension=case.d))


def work(network, case: Case) -> float:
    """Operations of M V with the layer factors: 4 n p for each column."""
    return 4.0 * case.n * network.size * max(case.rank, 1)


def measure(case: Case, roofline: Roofline, rounds: int) -> dict:
    """A line of the table. difference: the largest relative difference between a result of the others and ours."""
    network = network_of(case)
    calls = candidates(network, case)
    samples = interleaved(calls, rounds, parts={IN_A_LOOP: LOOP})
    expected = calls[COLUMNS if case.rank else OURS]().astype(jnp.float64)
    scale = jnp.linalg.norm(expected)
    difference = max(float(jnp.linalg.norm(calls[name]() - expected) / scale) for name in OTHERS if name in calls)
    seconds = {name: samples.median(name) for name in calls}
    best = min((name for name in OTHERS if name in calls), key=lambda name: seconds[name])
    ours, dtype = work(network, case), case.dtype
    if case.rank:
        ours, dtype = case.n * kernel.operations(network, case.rank), "float64"
    rate, floor = ours / seconds[OURS], roofline.seconds(ours, factor_bytes(network, case.n, case.dtype), dtype)
    return case._asdict() | {
        "p": network.size,
        "seconds": seconds,
        "ratio": {name: samples.ratio(name, OURS) for name in calls if name != OURS},
        "best": best,
        "difference": difference,
        "flops_rate": rate,
        "share_of_matmul_rate": rate / roofline.flops[dtype],
        "share_of_roofline": floor / seconds[OURS],
        "spread": samples.spread(OURS),
    }


def candidates(network, case: Case) -> dict[str, Callable]:
    """name -> a call that computes M v (p,), or M V (p, l)."""
    dtype = jnp.dtype(case.dtype)
    keys = jax.random.split(jax.random.key(0), 3)
    theta = network.initialise(keys[0]).astype(dtype)
    x = jax.random.uniform(keys[1], (case.n, case.d), dtype, -1.0, 1.0)
    weights = jnp.full(case.n, 1.0 / case.n)
    v = jax.random.normal(keys[2], (network.size, case.rank) if case.rank else (network.size,), dtype)
    published = Published(network, None)
    differentiated = jax.jit(published.products if case.rank else published.product)
    kept, product = stored_operator(network, theta, x, weights, 0, dtype)
    calls = {
        OURS: partial(jax.jit(product), kept, v),
        AGAIN: partial(differentiated, theta, x, v),
        LINEARISED: _linearised(network, theta, x, v),
    }
    if case.rank:
        calls |= {OURS: _approximation(network, theta, x, weights, case.rank), COLUMNS: calls[OURS]}
    if case.n * network.size * dtype.itemsize <= MAX_BYTES:
        calls[EXPLICIT], anew = _explicit(network, theta, x, v)
        if case.rank:  # there is one sketch at each theta, and J is computed for it
            calls[EXPLICIT_ANEW] = anew
    if not case.rank and work(network, case) * LOOP <= MAX_WORK:
        calls[IN_A_LOOP] = _in_a_loop(published, theta, x, v)
    return calls


def stored_operator(network, theta, x, weights, chunk: int, precision):
    """Our operator with its layer factors: (arrays, product), where product(arrays, v) = M v or M V."""
    statics = {}

    def build(theta, x, weights):
        platform = jax.default_backend()
        operator = Operator.build(network, theta, x, weights, chunk, precision, platform=platform)
        leaves, statics["tree"] = jax.tree.flatten(operator)
        statics["leaves"] = [None if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    def product(arrays, v):
        arrays = iter(arrays)
        leaves = [next(arrays) if leaf is None else leaf for leaf in statics["leaves"]]
        operator = jax.tree.unflatten(statics["tree"], leaves)
        return operator.normal_columns(v) if v.ndim == 2 else operator.normal(v)

    return jax.jit(build)(theta, x, weights), product


def _approximation(network, theta, x, weights, rank: int):
    """A call that computes the approximation of K, the layer factors included."""

    def program(theta, x, weights):
        operator = Operator.build(network, theta, x.astype(jnp.float64), weights, platform=jax.default_backend())
        return kernel.factor(operator, jax.random.key(1), rank, AXIS)

    specs = P(), P(AXIS), P(AXIS)
    out = kernel.Factor._make((P(None, AXIS), P(), P()))
    return partial(jax.jit(jax.shard_map(program, mesh=make_mesh(1), in_specs=specs, out_specs=out)), theta, x, weights)


def _linearised(network, theta, x, v):
    """A call with the residuals of one linearisation of the whole batch; several columns by vmap."""
    linear = jax.jit(lambda theta, x: jax.linearize(lambda theta: network.field(theta, x), theta)[1])(theta, x)

    def product(linear, v):
        return jax.linear_transpose(linear, v)(linear(v) / len(x))[0]

    return partial(jax.jit(jax.vmap(product, (None, 1), 1) if v.ndim == 2 else product), linear, v)


def _explicit(network, theta, x, v):
    """A call with J (n m, p) in memory, and one that computes J too.

    For one v the product is (J v) J, because XLA's code for J.T @ r is 50 times slower on a CPU.
    """

    def jacobian(theta, x):
        row = jax.jacrev(lambda theta, x: network.field(theta, x[None])[0])
        return jax.lax.map(lambda x: row(theta, x), x, batch_size=256).reshape(-1, network.size)

    def product(j, v):
        return (j.T @ (j @ v) if v.ndim == 2 else (j @ v) @ j) / len(x)

    anew = jax.jit(lambda theta, x, v: product(jacobian(theta, x), v))
    return partial(jax.jit(product), jax.jit(jacobian)(theta, x), v), partial(anew, theta, x, v)


def _in_a_loop(published, theta, x, v):
    """A call that does LOOP products of "again" one after another."""

    def program(theta, x, v):
        def multiply(_, v):
            product = published.product(theta, x, v)
            return product / jnp.linalg.norm(product)

        return jax.lax.fori_loop(0, LOOP, multiply, v)

    return partial(jax.jit(program), theta, x, v)
