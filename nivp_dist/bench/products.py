"""One product M v, and one sketch: ours against other ways to the same numbers.

(a) differentiating again on every product, as published; (b) one stored linearisation; (c) an explicit J, where it
fits. What is timed is a call of a compiled program whose arguments are what can be kept between products: theta and
points for (a), the residuals of the linearisation for (b), J for (c), the operator for ours. Inside one program XLA
moves what (a) repeats out of a loop: "a in a loop" is (a) within such a program, what a product costs the published
solver.

A sketch is what CG is preconditioned with. The published one is M Omega: by (a), (b), (c), "c and J" for which J is
made first, as it has to be at a new theta, and our "columns". Ours is the whole approximation of K of the same rank
(``galerkin.kernel``, in float64 whatever the case), which is not the same numbers: `nivp bench speed velocity` shows
what both are worth in iterations.
"""

import itertools
from functools import partial
from typing import Callable, NamedTuple

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
from nivp_dist.settings.model import NetworkSettings

WIDTHS, POINTS, DIMENSIONS = (32, 128, 512, 1024), (1_000, 10_000, 100_000), (2, 10, 50)
QUICK = (32, 128), (1_000, 10_000), (2, 10)
RANKS, QUICK_RANKS = (128, 250), (32,)
DEPTH = 3
MOST_WORK, MOST_BYTES = 2.5e11, 3e9  # operations of one call; bytes of an explicit J
LOOP = 8
OURS, OTHERS, IN_A_LOOP, MADE, COLUMNS = "ours", ("a", "b", "c"), "a in a loop", "c and J", "columns"


class Case(NamedTuple):
    """A network of DEPTH hidden layers of `width` in d dimensions, at n points. rank: of the sketch; 0: a product."""

    width: int
    n: int
    d: int
    rank: int = 0
    dtype: str = "float32"


def cases(quick: bool = False) -> list[Case]:
    """The grid in float32, the middle dimension in float64 too, sketches; without what takes too long."""
    grid = QUICK if quick else (WIDTHS, POINTS, DIMENSIONS)
    single = [Case(*values) for values in itertools.product(*grid)]
    double = [case._replace(dtype="float64") for case in single if case.d == 10]
    sketches = [case._replace(rank=r) for r in (QUICK_RANKS if quick else RANKS) for case in single + double]
    return [case for case in single + double + sketches if work(network_of(case), case) <= MOST_WORK]


def network_of(case: Case):
    """The network of a case, in a box."""
    settings = NetworkSettings(width=case.width, depth=DEPTH, dtype=case.dtype)
    return build_network(settings, FokkerPlanckTrap(dimension=case.d))


def work(network, case: Case) -> float:
    """Operations of M V from layer factors: 4 n p a column."""
    return 4.0 * case.n * network.size * max(case.rank, 1)


def measure(case: Case, roofline: Roofline, rounds: int) -> dict:
    """A line of the table. difference: of the others' results from ours, relative, the largest."""
    network = network_of(case)
    calls = candidates(network, case)
    samples = interleaved(calls, rounds, parts={IN_A_LOOP: LOOP})
    expected = calls[COLUMNS if case.rank else OURS]().astype(jnp.float64)
    scale = jnp.linalg.norm(expected)
    difference = max(float(jnp.linalg.norm(calls[name]() - expected) / scale) for name in OTHERS if name in calls)
    seconds = {name: samples.median(name) for name in calls}
    best = min((name for name in OTHERS if name in calls), key=seconds.get)
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
    """name -> a call that gives M v (p,), or M V (p, l)."""
    dtype = jnp.dtype(case.dtype)
    keys = jax.random.split(jax.random.key(0), 3)
    theta = network.initialise(keys[0]).astype(dtype)
    x = jax.random.uniform(keys[1], (case.n, case.d), dtype, -1.0, 1.0)
    weights = jnp.full(case.n, 1.0 / case.n)
    v = jax.random.normal(keys[2], (network.size, case.rank) if case.rank else (network.size,), dtype)
    published = Published(network, None)
    again = jax.jit(published.products if case.rank else published.product)
    kept, product = stored(network, theta, x, weights, 0, dtype)
    calls = {
        OURS: partial(jax.jit(product), kept, v),
        "a": partial(again, theta, x, v),
        "b": _linearised(network, theta, x, v),
    }
    if case.rank:
        calls |= {OURS: _approximation(network, theta, x, weights, case.rank), COLUMNS: calls[OURS]}
    if case.n * network.size * dtype.itemsize <= MOST_BYTES:
        calls["c"], made = _explicit(network, theta, x, v)
        if case.rank:  # of which one is taken at a theta, so that J is made for it
            calls[MADE] = made
    if not case.rank and work(network, case) * LOOP <= MOST_WORK:
        calls[IN_A_LOOP] = _in_a_loop(published, theta, x, v)
    return calls


def stored(network, theta, x, weights, chunk: int, precision):
    """Our operator, kept: (arrays, product), product(arrays, v) = M v or M V."""
    statics = {}

    def build(theta, x, weights):
        leaves, statics["tree"] = jax.tree.flatten(Operator.build(network, theta, x, weights, chunk, precision))
        statics["leaves"] = [None if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    def product(arrays, v):
        arrays = iter(arrays)
        leaves = [next(arrays) if leaf is None else leaf for leaf in statics["leaves"]]
        operator = jax.tree.unflatten(statics["tree"], leaves)
        return operator.normal_columns(v) if v.ndim == 2 else operator.normal(v)

    return jax.jit(build)(theta, x, weights), product


def _approximation(network, theta, x, weights, rank: int):
    """That of K, the layers' factors included."""

    def program(theta, x, weights):
        operator = Operator.build(network, theta, x.astype(jnp.float64), weights)
        return kernel.factor(operator, jax.random.key(1), rank, AXIS)

    specs = P(), P(AXIS), P(AXIS)
    out = kernel.Factor(P(None, AXIS), P(), P())
    return partial(jax.jit(jax.shard_map(program, mesh=make_mesh(1), in_specs=specs, out_specs=out)), theta, x, weights)


def _linearised(network, theta, x, v):
    """J v and J^T r from the residuals of one linearisation of the whole batch; columns by vmap."""
    linear = jax.jit(lambda theta, x: jax.linearize(lambda theta: network.field(theta, x), theta)[1])(theta, x)

    def product(linear, v):
        return jax.linear_transpose(linear, v)(linear(v) / len(x))[0]

    return partial(jax.jit(jax.vmap(product, (None, 1), 1) if v.ndim == 2 else product), linear, v)


def _explicit(network, theta, x, v):
    """Calls with J (n m, p) in memory, and with J made for it: J^T (J v), for one v as (J v) J, row by row: XLA's code
    for J.T @ r is 50 times slower on a CPU."""

    def jacobian(theta, x):
        row = jax.jacrev(lambda theta, x: network.field(theta, x[None])[0])
        return jax.lax.map(lambda x: row(theta, x), x, batch_size=256).reshape(-1, network.size)

    def product(j, v):
        return (j.T @ (j @ v) if v.ndim == 2 else (j @ v) @ j) / len(x)

    made = jax.jit(lambda theta, x, v: product(jacobian(theta, x), v))
    return partial(jax.jit(product), jax.jit(jacobian)(theta, x), v), partial(made, theta, x, v)


def _in_a_loop(published, theta, x, v):
    """LOOP products of (a) after one another."""

    def program(theta, x, v):
        def again(_, v):
            product = published.product(theta, x, v)
            return product / jnp.linalg.norm(product)

        return jax.lax.fori_loop(0, LOOP, again, v)

    return partial(jax.jit(program), theta, x, v)
