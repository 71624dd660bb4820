"""One right-hand side theta' of the ODE: ours against the published procedure, at equal accuracy, on equal points.

Both start from the same parameters, fitted to the initial condition, and solve (M + mu I) v = F on the same uniform
points with the same mu. v is judged in the norm of the solution, |J (v - v*)| / |J v*|, against v* from a dense
Cholesky factorisation in float64 of a Jacobian by jax.jacrev. Ours is given the loosest tolerance with which it is no
less accurate than the published one. Its time is that of a whole step, sketch included, over the number of its stages.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from nivp_dist.bench import cases
from nivp_dist.bench.published import Published, Settings
from nivp_dist.bench.timing import interleaved
from nivp_dist.galerkin.methods import ITERATIVE
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.solver_choice import TELEMETRY_RANK, System
from nivp_dist.integration.stages import Stages
from nivp_dist.integration.tableaus import TABLEAUS, attempt
from nivp_dist.network.network import build_network
from nivp_dist.settings.model import IntegratorSettings, SolverSettings

TOLERANCES = (1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
METHODS = ("auto", "pcg")
STEP = 1e-2


class Size(NamedTuple):
    """network: settings. n: points. fit: Gauss-Newton rounds before. published: settings."""

    network: dict
    n: int
    fit_rounds: int
    fit_points: int
    published: Settings


FULL = Size(cases.NETWORK, 5000, 12, 4000, Settings())
QUICK = Size(cases.SMALL, 300, 5, 300, Settings(points=300, rank=40))


def measure(name: str, size: Size, rounds: int) -> dict:
    """A line of the table: seconds a velocity, what it is worth, and the ratio."""
    run, theta, fit_error = fitted(name, size)
    key = jax.random.key(5)
    points = cases.uniform_points(run.sampler, key, run.problem.domain, size.n)
    single = build_network(run.config.network.model_copy(update={"dtype": "float32"}), run.problem)
    published = Published(single, run.problem, size.published)
    theirs = published.velocity(theta, 0.0, points.x, key)
    judge = Judge(run, theta, points, float(theirs.mu))
    trace = float(run.galerkin.prepare(theta, points, key, 0).trace)

    calls = {"published": lambda: published.velocity(theta, 0.0, points.x, key).v}
    errors, details, stages = {"published": judge(theirs.v)}, {}, {}
    for method in METHODS:
        for tolerance in TOLERANCES:
            ours = _Ours(run, method, tolerance, points, float(theirs.mu), trace)
            step = ours.step(theta)
            errors[method] = judge(ours.stages.first)
            if errors[method] <= errors["published"] or ours.galerkin.method not in ITERATIVE:
                break
        details[method] = ours.details() | {"rtol": tolerance}
        calls[method], stages[method] = partial(ours.step, theta), step.evaluations
    samples = interleaved({name: _arrays(call) for name, call in calls.items()}, rounds, parts=stages)
    return {
        "problem": name,
        "p": run.network.size,
        "n": size.n,
        "fit_error": fit_error,
        "seconds": {name: samples.median(name) for name in calls},
        "ratio": {method: samples.ratio("published", method) for method in METHODS},
        "error": errors,
        "published": {"iterations": int(theirs.iterations), "cg_residual": float(theirs.residual)},
        "ours": details,
        "spread": samples.spread("auto"),
    }


def _arrays(call):
    def arrays():
        result = call()
        return getattr(result, "theta", result)

    return arrays


def fitted(name: str, size: Size):
    """The simulation of a problem, parameters fitted to its initial condition, and the relative error of that."""
    run = cases.simulation(
        name,
        size.network,
        sampling={"points": size.n},
        fit={"points": size.fit_points, "iterations": size.fit_rounds, "on_miss": "continue"},
    )
    state = run.begin()
    while not run.fits.is_done(state):
        state = run.fits.advance(state)
    state, error = run.fits.finish_initial(state)
    return run, state.theta, error


def _mapped(function, theta, x):
    return jax.lax.map(partial(function, theta), x, batch_size=256)


class _Ours:
    """A step by the package's programs, the approximation kept over the stages while it serves."""

    def __init__(self, run, method, tolerance, points, mu, trace):
        solver = SolverSettings(method=method, rtol=tolerance, mu=mu / trace)
        self.galerkin = Galerkin(run.network, run.problem, solver, run.config.sampling, run.mesh)
        self.points, self.mu, self.key = points, mu, jax.random.key(6)
        self.rank = self.galerkin.first_rank or TELEMETRY_RANK
        self.combine = jax.jit(
            lambda theta, h, row, stages: (0 if theta is None else theta) + h * sum(c * k for c, k in zip(row, stages))
        )

    def step(self, theta):
        shared = self.galerkin.prepare(theta, self.points, self.key, self.rank)._replace(mu=jnp.asarray(self.mu))
        system = System(self.galerkin, self.points, shared, self.rank, self.key)
        self.stages = Stages(system, jnp.zeros_like(theta), 0.0)
        self.stages.begin(reuse=True)
        return attempt(TABLEAUS[IntegratorSettings().method], self.stages, self.combine, theta, 0.0, STEP, None)

    def details(self) -> dict:
        return {"method": self.galerkin.method, "rank": self.stages.rank, "iterations": self.stages.counts}


class Judge:
    """The error of a velocity, against a dense solve."""

    def __init__(self, run, theta, points, mu: float):
        network, problem = run.network, run.problem
        row = jax.jacrev(lambda theta, x: network.field(theta, x[None])[0])

        def both(theta, x):
            f = jnp.reshape(problem.rhs(network.function(theta), x, 0.0), (network.outputs,))
            return row(theta, x), network.as_field_rate(f, network.values(theta, x[None])[0])

        both = jax.jit(partial(_mapped, both))
        j, f = (np.asarray(array) for array in both(theta, points.x))
        self.j = j.reshape(-1, network.size)
        n, f = len(points.x), f.reshape(-1)
        if len(f) < network.size:  # (M + mu)^-1 J^T f / n = J^T (J J^T / n + mu)^-1 f / n
            gram = self.j @ self.j.T / n + mu * np.eye(len(f))
            exact = self.j.T @ scipy.linalg.solve(gram, f, assume_a="pos", overwrite_a=True) / n
        else:
            gram = self.j.T @ self.j / n + mu * np.eye(network.size)
            exact = scipy.linalg.solve(gram, self.j.T @ f / n, assume_a="pos", overwrite_a=True)
        self.values = self.j @ exact

    def __call__(self, v) -> float:
        return float(np.linalg.norm(self.j @ np.asarray(v, np.float64) - self.values) / np.linalg.norm(self.values))
