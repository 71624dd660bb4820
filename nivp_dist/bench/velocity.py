"""The time of a velocity theta': ours and the published procedure, at equal accuracy and on the same points.

Both have the same parameters, fitted to the initial condition, and solve (M + mu I) v = F on the same uniform points
with the same mu. The error of v is |J (v - v*)| / |J v*|, where v* is a dense solution in float64 with a Jacobian by
jax.jacrev. Ours gets the largest tolerance with which it is at least as accurate as the published one. Its time is that
of a whole step, sketch included, divided by the number of its stages.
"""

import math
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from nivp_dist.bench import cases
from nivp_dist.bench.published import Published, Settings
from nivp_dist.bench.timing import interleaved
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.methods import ITERATIVE
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.integration.solver_choice import System
from nivp_dist.integration.stages import Stages
from nivp_dist.integration.tableaus import TABLEAUS, attempt
from nivp_dist.network.network import build_network
from nivp_dist.settings.model import IntegratorSettings, SolverSettings

TOLERANCES = (1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
METHODS: tuple[Literal["auto", "pcg"], ...] = ("auto", "pcg")
STEP = 1e-2  # step size: it only has to be small, because the step is not kept


class Size(NamedTuple):
    """network: settings. n: points. fit_rounds: Gauss-Newton rounds of the initial fit. published: settings."""

    network: dict
    n: int
    fit_rounds: int
    fit_points: int
    published: Settings


FULL = Size(cases.NETWORK, 5000, 12, 4000, Settings())
QUICK = Size(cases.SMALL, 300, 5, 300, Settings(points=300, rank=40))


def measure(name: str, size: Size, rounds: int) -> dict:
    """A line of the table: seconds of a velocity, its error, and the ratio of the times.

    name: of a problem, see ``cases``. rounds: of timing.
    """
    run, theta, fit_error = fitted(name, size)
    key = jax.random.key(5)
    points = cases.uniform_points(run.mesh, key, run.problem.domain, size.n)
    single = build_network(run.config.network.model_copy(update={"dtype": "float32"}), run.problem)
    published = Published(single, run.problem, size.published)
    theirs = published.velocity(theta, 0.0, points.x, key)
    error_of = DenseVelocity(run, theta, points, float(theirs.mu)).error
    trace = float(run.galerkin.prepare(theta, points, key, 0).trace)

    calls = {"published": lambda: published.velocity(theta, 0.0, points.x, key).v}
    errors, details, stages = {"published": error_of(theirs.v)}, {}, {}
    for method in METHODS:
        make = partial(_Step, run, method, points, float(theirs.mu), trace)
        ours, errors[method] = _as_accurate(make, theta, error_of, errors["published"])
        details[method] = ours.details()
        calls[method], stages[method] = partial(ours.step, theta), ours.evaluations
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


def _as_accurate(make, theta, error_of, bound: float) -> "tuple[_Step, float]":
    """The step with the largest tolerance whose first velocity has an error below the bound, and that error.

    make: tolerance -> step. Direct methods have no tolerance, so that the first one is taken.
    """
    ours, error = None, math.inf
    for tolerance in TOLERANCES:
        ours = make(tolerance)
        ours.step(theta)
        error = error_of(ours.stages.first)
        if error <= bound or ours.galerkin.method not in ITERATIVE:
            break
    assert ours is not None
    return ours, error


def _arrays(call):
    """The call, returning only arrays: jax can wait for these."""

    def arrays():
        result = call()
        return getattr(result, "theta", result)

    return arrays


def fitted(name: str, size: Size):
    """(simulation of a problem, parameters fitted to its initial condition, relative error of that fit)."""
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


def jacobian_and_rate(run):
    """(theta, x (n, d), t) -> the Jacobian of the field by jax.jacrev (n m, p), and its rate by the equation (n m,)."""
    network, problem = run.network, run.problem
    row = jax.jacrev(lambda theta, x: network.field(theta, x[None])[0])

    def both(theta, t, x):
        f = jnp.reshape(problem.rhs(network.function(theta), x, t), (network.outputs,))
        return row(theta, x), network.as_field_rate(f, network.values(theta, x[None])[0])

    @jax.jit
    def mapped(theta, x, t):
        j, f = jax.lax.map(partial(both, theta, t), x, batch_size=256)
        return j.reshape(-1, network.size), f.reshape(-1)

    return lambda *arguments: tuple(np.asarray(array) for array in mapped(*arguments))


class _Step:
    """A step by the package's programs, in which the stages share one preconditioner as in a run.

    mu: absolute, where the settings are relative to the trace of M.
    """

    def __init__(self, run, method: Literal["auto", "pcg"], points, mu: float, trace: float, tolerance: float):
        self.tolerance, self.evaluations = tolerance, 0
        solver = SolverSettings(method=method, rtol=tolerance, mu=mu / trace)
        self.galerkin = Galerkin(Discretisation(run.network, run.problem, run.config.sampling, run.mesh), solver)
        self.points, self.mu, self.key = points, mu, jax.random.key(6)
        self.rank = self.galerkin.initial_rank
        self.combine = jax.jit(
            lambda theta, h, row, stages: (0 if theta is None else theta) + h * sum(c * k for c, k in zip(row, stages))
        )

    def step(self, theta):
        shared = self.galerkin.prepare(theta, self.points, self.key, self.rank)._replace(mu=jnp.asarray(self.mu))
        system = System(self.galerkin, self.points, shared, self.rank, self.key)
        self.stages = Stages(system, jnp.zeros_like(theta), 0.0)
        self.stages.begin(reuse=True)
        tableau = TABLEAUS[IntegratorSettings().method]
        taken = attempt(tableau, self.stages, self.combine, theta, 0.0, STEP, None)
        self.evaluations = taken.evaluations
        return taken

    def details(self) -> dict:
        method, rank, iterations = self.galerkin.method, self.stages.rank, self.stages.counts
        return {"method": method, "rank": rank, "iterations": iterations, "rtol": self.tolerance}


class DenseVelocity:
    """The velocity by a dense solve in float64.

    Attributes:
        j: the Jacobian of the field, (n m, p).
        rates: J v* for the solution v* of (M + mu I) v* = J^T f / n, (n m,).
    """

    def __init__(self, run, theta, points, mu: float):
        network, n = run.network, len(points.x)
        self.j, f = jacobian_and_rate(run)(theta, points.x, 0.0)
        if len(f) < network.size:  # (M + mu)^-1 J^T f / n = J^T (J J^T / n + mu)^-1 f / n
            gram = self.j @ self.j.T / n + mu * np.eye(len(f))
            exact = self.j.T @ scipy.linalg.solve(gram, f, assume_a="pos", overwrite_a=True) / n
        else:
            gram = self.j.T @ self.j / n + mu * np.eye(network.size)
            exact = scipy.linalg.solve(gram, self.j.T @ f / n, assume_a="pos", overwrite_a=True)
        self.rates = self.j @ exact

    def error(self, v) -> float:
        """|J (v - v*)| / |J v*| of a velocity v (p,)."""
        difference = self.j @ np.asarray(v, np.float64) - self.rates
        return float(np.linalg.norm(difference) / np.linalg.norm(self.rates))
