"""What each precision of Jacobian products gives, and what it takes: one product, and a velocity by CG.

On parameters fitted to an initial condition, against a dense Jacobian in float64 by jax.jacrev. CG takes its directions
from products of that precision, and its true residuals from float64 (``pcg``). Coarse units are imitated bit by bit
where there are none: the accuracy is theirs then, the time is not.
"""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.bench import cases
from nivp_dist.bench.products import stored
from nivp_dist.bench.published import Settings
from nivp_dist.bench.timing import interleaved
from nivp_dist.bench.velocity import Judge, Size, fitted
from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.settings.model import SolverSettings

PRECISIONS = get_args(SolverSettings.model_fields["precision"].annotation)[::-1]  # float64 first
PROBLEMS = ("advection", "wave")
FULL = Size(cases.NETWORK | {"width": 60}, 5000, 12, 4000, Settings())
MUS = (1e-6, 1e-9)
MAX_ITERATIONS = 1000


def measure(name: str, size: Size, rounds: int) -> list[dict]:
    """Lines: for each mu and precision the error of M v, CG's iterations to a residual of 1e-8, |J (v - v*)| / |J v*|,
    and seconds; ratio: of the time in float64 to this one."""
    run, theta, _ = fitted(name, size)
    points = cases.uniform_points(run.sampler, jax.random.key(5), run.problem.domain, size.n)
    v = jax.random.normal(jax.random.key(7), (run.network.size,))
    lines = []
    for mu in MUS:
        programs = {precision: _velocity(run, theta, points, mu, precision) for precision in PRECISIONS}
        judge = Judge(run, theta, points, float(programs["float64"][0].mu))
        product = judge.j.T @ (judge.j @ np.asarray(v)) / size.n
        samples = interleaved({precision: call for precision, (_, call) in programs.items()}, rounds)
        for precision, (_, call) in programs.items():
            kept, multiply = stored(run.network, theta, points.x, points.weights, 0, precision)
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
                    "iterations": int(result.iterations),
                    "code": pcg.CODE_NAMES[int(result.code)],
                    "cg_residual": float(result.solver_residual),
                    "error": judge(result.v),
                    "seconds": samples.median(precision),
                    "ratio": samples.ratio("float64", precision),
                }
            )
    return lines


def _velocity(run, theta, points, mu: float, precision: str):
    """What the solve shares, and a call that solves."""
    solver = SolverSettings(method="pcg", mu=mu, max_iterations=MAX_ITERATIONS, precision=precision)
    galerkin = Galerkin(run.network, run.problem, solver, run.config.sampling, run.mesh)
    shared = galerkin.prepare(theta, points, jax.random.key(6), galerkin.first_rank)
    return shared, partial(galerkin.velocity, theta, 0.0, points, shared, jnp.zeros_like(theta))
