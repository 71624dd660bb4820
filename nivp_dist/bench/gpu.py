"""Accuracy, times and a profile on an accelerator, by one command. It runs on any backend.

- Errors of products against a dense Jacobian in float64, at every precision (`solver.precision`).
- Rates of products with wide networks, relative to the rate of matrix products at the same precision.
- The time of a velocity (right-hand side, layer factors, CG) of the trap in 20 dimensions with a million parameters,
  and of its parts.
- A profile of that velocity, for TensorBoard or Perfetto.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.bench.precision import PRECISIONS
from nivp_dist.bench.products import stored_operator
from nivp_dist.bench.timing import interleaved
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.jacobian import COARSE
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import Network, build_network
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.settings.model import DType, NetworkSettings, Precision, SamplingSettings, SolverSettings

TRACED = "float32"  # the precision whose velocity is profiled
PRODUCT_OPERATIONS = 4.0  # of a product M v, for each point and parameter: 2 for J v and 2 for the transpose


class Size(NamedTuple):
    """matrix: rows of the square matrices. n: points. d: dimension. widths: of the networks for the products.
    columns: of a sketch. width, rank, iterations: of the velocity, the last at most."""

    matrix: int
    widths: tuple[int, ...]
    n: int
    d: int
    width: int
    iterations: int
    columns: int
    rank: int
    depth: int = 3


FULL = Size(8192, (512, 1024, 2048), 65_536, 20, 660, 60, 128, 512)
QUICK = Size(128, (16,), 256, 3, 12, 5, 8, 16, 1)


def measure(size: Size, trace: Path, rounds: int) -> dict:
    """All measurements, a row for each precision. trace: the folder for the profile."""
    rows = []
    for precision in PRECISIONS:
        rate = _matrix_rate(size.matrix, precision, rounds)
        rows.append({"precision": precision, "matrix_rate": rate, "errors": errors(precision)})
        rows[-1]["products"] = [_product(width, size, precision, rate, rounds) for width in size.widths]
        rows[-1]["evaluation"] = _evaluation(size, precision, rounds, trace if precision == TRACED else None)
    return {"device": jax.devices()[0].device_kind, "rows": rows, "trace": str(trace)}


def errors(precision: Precision) -> dict[str, float]:
    """Relative errors of M v ("product") and M V ("sketch") against a dense Jacobian in float64 by jax.jacrev."""
    problem, n = FokkerPlanckTrap(dimension=3), 200
    network = build_network(NetworkSettings(width=16, depth=2, frequencies=2), problem)
    theta = network.initialise(jax.random.key(0))
    random = np.random.default_rng(0)
    x, v = random.uniform(-1, 1, (n, 3)), random.standard_normal((network.size, 4))
    j = np.asarray(jax.jit(jax.jacrev(lambda theta: network.field(theta, x)[:, 0]))(theta))
    exact, found = j.T @ (j @ v) / n, {}
    kept, product = stored_operator(network, theta, jnp.asarray(x), jnp.full(n, 1.0 / n), 0, precision)
    for name, columns, wanted in (("product", v[:, 0], exact[:, 0]), ("sketch", v, exact)):
        result = np.asarray(jax.jit(product)(kept, jnp.asarray(columns)))
        found[name] = float(np.linalg.norm(result - wanted) / np.linalg.norm(wanted))
    return found


def _matrix_rate(side: int, precision: Precision, rounds: int) -> float:
    a = jnp.ones((side, side), _dtype(precision))
    hardware = COARSE[precision][1] if precision in COARSE else "highest"
    samples = interleaved({"matrix": partial(jax.jit(lambda a: jnp.matmul(a, a, precision=hardware)), a)}, rounds)
    return 2 * side**3 / min(samples.seconds["matrix"])


def _dtype(precision: Precision) -> DType:
    return "float64" if precision == "float64" else "float32"


def _product(width: int, size: Size, precision: Precision, rate: float, rounds: int) -> dict:
    dtype = _dtype(precision)
    network = build_network(
        NetworkSettings(width=width, depth=size.depth, dtype=dtype), FokkerPlanckTrap(dimension=size.d)
    )
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.uniform(keys[1], (size.n, size.d), dtype, -1.0, 1.0)
    weights = jnp.full(size.n, 1.0 / size.n)
    kept, product = stored_operator(network, network.initialise(keys[0]), x, weights, 0, precision)
    v = jax.random.normal(keys[2], (network.size,), dtype)
    columns = jax.random.normal(keys[3], (network.size, size.columns), dtype)
    program = jax.jit(product)
    samples = interleaved({"product": partial(program, kept, v), "sketch": partial(program, kept, columns)}, rounds)
    work = PRODUCT_OPERATIONS * size.n * network.size
    line: dict[str, Any] = {"width": width, "n": size.n, "p": network.size}
    for name, count in (("product", 1), ("sketch", size.columns)):
        seconds = samples.median(name)
        line[name] = {"seconds": seconds, "share_of_matrix_rate": count * work / seconds / rate}
    return line


def _evaluation(size: Size, precision: Precision, rounds: int, trace: Path | None) -> dict:
    """The times of a velocity of the trap, and of its parts: the approximation of K, one product, the norms.

    trace: the folder for a profile of the velocity, or None for no profile.
    """
    network, calls = _evaluation_calls(size, precision)
    samples = interleaved(calls, rounds)
    result = calls["evaluation"]()
    if trace is not None:
        trace.mkdir(parents=True, exist_ok=True)
        with jax.profiler.trace(str(trace)):
            jax.block_until_ready(calls["evaluation"]())
    iterations = int(result.iterations)
    seconds = {name: samples.median(name) for name in calls}
    more = (seconds["evaluation"] - seconds["evaluation with one product"]) / max(iterations - 1, 1)
    return {
        "d": size.d,
        "p": network.size,
        "n": size.n,
        "iterations": iterations,
        "cg_residual": float(result.solver_residual),
        "seconds": seconds,
        "seconds_an_iteration": more,
    }


def _evaluation_calls(size: Size, precision: Precision) -> tuple[Network, dict[str, Callable]]:
    """The network of the trap, and calls that compute its velocity and parts of it."""
    problem, mesh = FokkerPlanckTrap(dimension=size.d), make_mesh(1)
    settings = NetworkSettings(width=size.width, depth=size.depth, dtype=_dtype(precision), frequencies=2)
    network, sampling = build_network(settings, problem), SamplingSettings(points=size.n)
    sampler = Sampler(sampling, problem.domain, network.log_density, mesh)
    points = sampler.draw(jax.random.key(1), sampler.broadest())
    theta, zero = network.initialise(jax.random.key(0)), jnp.zeros(network.size)

    def galerkin(iterations):
        solver = SolverSettings(method="dual_pcg", rtol=1e-4, max_iterations=iterations, precision=precision)
        return Galerkin(Discretisation(network, problem, sampling, mesh), solver)

    whole, single = galerkin(size.iterations), galerkin(1)
    shared = whole.prepare(theta, points, jax.random.key(2), size.rank)
    arguments = (theta, 0.0, points, shared, whole.initial_guess(zero, points))
    return network, {
        "evaluation": lambda: whole.velocity(*arguments),
        "evaluation with one product": lambda: single.velocity(*arguments),
        "approximation": lambda: whole.prepare(theta, points, jax.random.key(2), size.rank),
        "norms": lambda: whole.step_norms(theta, theta, zero, *2 * [whole.rate(theta, zero, points)], points),
    }
