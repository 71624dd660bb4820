"""The accuracy and the time of each precision of Jacobian products: for one product, and for a velocity by CG.

The parameters are fitted to an initial condition; errors are against a dense Jacobian in float64 by jax.jacrev. CG
takes its directions from products in that precision, its true residuals from products in float64 (``galerkin.pcg``).
Devices without the coarse formats emulate them bit by bit: then the accuracy is that of the format, but not the time.
"""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.bench import cases
from nivp_dist.bench.products import stored_operator
from nivp_dist.bench.published import Settings
from nivp_dist.bench.timing import interleaved
from nivp_dist.bench.velocity import DenseVelocity, Size, fitted
from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.settings.model import Precision, SolverSettings

PRECISIONS = get_args(SolverSettings.model_fields["precision"].annotation)[::-1]  # float64 first
PROBLEMS = ("advection", "wave")
FULL = Size(cases.NETWORK | {"width": 60}, 5000, 12, 4000, Settings())
MUS = (1e-6, 1e-9)
MAX_ITERATIONS = 1000  # of CG: enough for all of these to converge


def measure(name: str, size: Size, rounds: int) -> list[dict]:
    """A line for each mu and precision: the error of M v, the iterations of CG to a residual of 1e-8, the error of the
    velocity |J (v - v*)| / |J v*|, its seconds, and the ratio of the time in float64 to them."""
    run, theta, _ = fitted(name, size)
    points = cases.uniform_points(run.mesh, jax.random.key(5), run.problem.domain, size.n)
    v = jax.random.normal(jax.random.key(7), (run.network.size,))
    lines = []
    for mu in MUS:
        programs = {precision: _velocity(run, theta, points, mu, precision) for precision in PRECISIONS}
        dense = DenseVelocity(run, theta, points, float(programs["float64"][0].mu))
        product = dense.j.T @ (dense.j @ np.asarray(v)) / size.n
        samples = interleaved({precision: call for precision, (_, call) in programs.items()}, rounds)
        for precision, (_, call) in programs.items():
            kept, multiply = stored_operator(run.network, theta, points.x, points.weights, 0, precision)
            error = np.asarray(jax.jit(multiply)(kept, v)) - product
            result = call()
            lines.append(
                {
                    "problem": name,
                    "p": run.network.size,
                    "n": size.n,
                    "mu": mu,
                    "precision": precision,
                    "product_error": float(np.linalg.norm(error) / np.linalg.norm(product)),
                    "iterations": result.quality.iterations,
                    "code": pcg.CODE_NAMES[result.quality.code],
                    "cg_residual": result.quality.solver_residual,
                    "error": dense.error(result.v),
                    "seconds": samples.median(precision),
                    "ratio": samples.ratio("float64", precision),
                }
            )
    return lines


def _velocity(run, theta, points, mu: float, precision: Precision):
    """The preconditioner and mu, and a call that solves with them."""
    solver = SolverSettings(method="pcg", mu=mu, max_iterations=MAX_ITERATIONS, precision=precision)
    galerkin = Galerkin(Discretisation(run.network, run.problem, run.config.sampling, run.mesh), solver)
    shared = galerkin.prepare(theta, points, jax.random.key(6), galerkin.initial_rank)
    return shared, partial(galerkin.velocity, theta, 0.0, points, shared, jnp.zeros_like(theta))
