"""What becomes of a network along a run: numbers that describe J, and what may make it ill-conditioned.

They are made of the explicit J by singular values, in float64 and with a fixed relative mu, so that those of different
steps and runs can be compared. The residual is that of the velocity at other points than those it was fitted to.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.errors import RunFailed
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.network.embedding import highest_wave_number
from nivp_dist.problems.nonlocal_terms import further_arguments
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import State
from nivp_dist.studies.in_memory import evolve

ALIKE = 0.999  # correlation of two units from which on they count as one
IDLE = 1e-3  # standard deviation of a unit, relative to the largest of its layer, below which it counts as constant
CG_RTOL = 1e-6  # relative residual at which the iterations of conjugate gradients are counted
MOST_ITERATIONS = 10_000


class Along:
    """The numbers of the networks of one run.

    Args:
        run: its network, problem and points are used. mu: relative to the trace of M. points: n of the measurements.
    """

    def __init__(self, run: Simulation, mu: float, points: int = 800):
        self.run, self.mu, self.points, self.network = run, mu, points, run.network
        self._parts = jax.jit(partial(_parts, run.galerkin.discretisation))
        self._highest = highest_wave_number(run.config.network, run.problem.domain)

    def numbers(self, state: State) -> dict[str, float]:
        """The numbers of the network of a state, on points of its density."""
        keys = random_keys.spectrum_probes_key(state.run_key, 0), random_keys.spectrum_probes_key(state.run_key, 1)
        drawn = [self.run.sampler.draw(key, state.density, self.points) for key in keys]
        return self.of_network(state.theta, state.t, *((points.x, points.weights) for points in drawn))

    def of_network(self, theta, t: float, points, others) -> dict[str, float]:
        """As ``numbers``, for parameters theta (p,), and two sets of points (x (n, d), weights (n,) of sum one): the
        second one is for the residual."""
        j, f, slopes, activations = self._weighted(theta, t, *points)
        found = {"theta": float(np.linalg.norm(theta))} | spectrum(j, f, self.mu)
        velocity = regularised(j, f, self.mu)
        j_other, f_other, *_ = self._weighted(theta, t, *others)
        found |= {"residual": float(np.linalg.norm(j_other @ velocity - f_other) / np.linalg.norm(f_other))}
        squares = np.array([np.sum(j[:, layer.start : layer.stop] ** 2) for layer in self.network.layers])
        found |= {"imbalance": float(squares.max() / squares.min())}
        found |= {"wavenumber": _wavenumber(slopes, np.asarray(points[1])) / self._highest}
        return found | units(activations, np.asarray(points[1]))

    def _weighted(self, theta, t, x, weights):
        """J (n m, p) and f (n m,), both times the roots of the weights; and the rest of ``_parts``."""
        jacobian, f, *others = jax.tree.map(np.asarray, self._parts(theta, t, x))
        roots = np.sqrt(np.asarray(weights))
        return (roots[:, None, None] * jacobian).reshape(-1, self.network.size), (roots[:, None] * f).ravel(), *others


def _parts(discretisation: Discretisation, theta, t, x):
    """J (n, m, p), the field's rate f (n, m), its values and gradients (n, m, 1 + d) by coordinates in units of the
    domain, and the activations (n, width) of every hidden layer."""
    network, problem = discretisation.network, discretisation.problem
    field = lambda theta, point: network.field(theta, point[None])[0]  # noqa: E731
    scale = jnp.asarray(problem.domain.scale)
    jacobian = jax.vmap(jax.jacrev(field), (None, 0))(theta, x)
    gradients = jax.vmap(jax.jacfwd(field, 1), (None, 0))(theta, x) * scale
    values = network.field(theta, x)[..., None]
    inputs = [a for layer, (a, _) in zip(network.layers, network.factors(theta, x)[1]) if _follows_units(layer)]
    integrals = further_arguments(problem, network.solution(theta, t), t)
    rates = jax.vmap(lambda point: discretisation.field_rate_at(theta, t, point, tuple(integrals)))(x)
    return jacobian, rates, jnp.concatenate([values, gradients], -1), inputs


def _follows_units(layer) -> bool:
    """Whether the inputs of a layer are the activations of hidden units."""
    return layer.path[-1] == "head" or (layer.path[-1].startswith("hidden_") and layer.path[-1] != "hidden_00")


def spectrum(j: np.ndarray, f: np.ndarray, mu: float) -> dict[str, float]:
    """Of M = J^T J and F = J^T f, j (k, p), f (k,): with mu relative to the trace

    "effective_dimension"; "numerical_rank", the eigenvalues above mu; "condition" of M itself; "cg_iterations" for
    (M + mu) v = F; and "null", the eigenvalues that are zero to rounding: directions of symmetries, or of idle units.
    """
    _, s, rows = np.linalg.svd(j, full_matrices=False)
    values, p = s**2, j.shape[1]
    absolute = mu * values.sum()
    smallest = s[-1] if len(s) == p else 0.0
    return {
        "effective_dimension": float(np.sum(values / (values + absolute))),
        "numerical_rank": int(np.sum(values > absolute)),
        "condition": float(s[0] / max(smallest, np.finfo(float).eps * s[0])) ** 2,
        "null": int(p - np.sum(s > max(j.shape) * np.finfo(float).eps * s[0])),
        "cg_iterations": cg_iterations(values, rows @ (j.T @ f), absolute),
    }


def regularised(j: np.ndarray, f: np.ndarray, mu: float) -> np.ndarray:
    """v (p,) with (J^T J + mu tr(J^T J)) v = J^T f, j (k, p), f (k,), by singular values."""
    left, s, rows = np.linalg.svd(j, full_matrices=False)
    return rows.T @ (s / (s**2 + mu * np.sum(s**2)) * (left.T @ f))


def cg_iterations(values: np.ndarray, b: np.ndarray, mu: float) -> int:
    """Iterations of conjugate gradients for (Lambda + mu) v = b, without a preconditioner, to CG_RTOL; MOST_ITERATIONS
    where they are not enough. values, b: (p,), the eigenvalues, and the right-hand side in their basis."""
    v, r = np.zeros_like(b), b.copy()
    direction, square, goal = r.copy(), r @ r, CG_RTOL**2 * (b @ b)
    for iteration in range(MOST_ITERATIONS):
        if square <= goal:
            return iteration
        product = (values + mu) * direction
        step = square / (direction @ product)
        v, r = v + step * direction, r - step * product
        square, last = r @ r, square
        direction = r + square / last * direction
    return MOST_ITERATIONS


def units(activations: list[np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """Of the activations (n, width + 1) of the hidden layers, whose last column is one, under weights (n,)

    "dependence", the ratio of the largest to the smallest singular value of the layer where it is largest; "alike", the
    pairs of units whose correlation is above ALIKE; and "idle", the units that are nearly constant.
    """
    dependence, alike, idle = 1.0, 0, 0
    for a in activations:
        s = np.linalg.svd(np.sqrt(weights)[:, None] * a, compute_uv=False)
        dependence = max(dependence, s[0] / max(s[-1], np.finfo(float).eps * s[0]))
        centred = a[:, :-1] - weights @ a[:, :-1]
        deviations = np.sqrt(weights @ centred**2)
        moving = deviations > IDLE * deviations.max()
        idle += int(np.sum(~moving))
        scaled = np.sqrt(weights)[:, None] * centred[:, moving] / deviations[moving]
        alike += int(np.sum(np.triu(np.abs(scaled.T @ scaled), 1) > ALIKE))
    return {"dependence": float(dependence), "alike": alike, "idle": idle}


def _wavenumber(slopes: np.ndarray, weights: np.ndarray) -> float:
    """The RMS wavenumber along an axis, of the output in which it is largest.

    slopes: values and gradients (n, m, 1 + d).
    """
    squares = np.einsum("n,nmk->mk", weights, slopes**2)
    return float(np.sqrt(np.max(squares[:, 1:].mean(axis=1) / squares[:, 0])))


def watched(along: Along, seed: int, every: float, measures: tuple[str, ...]) -> dict:
    """A run with its numbers about every so much of t, and before and after each refit.

    Returns: "t" and each of the measures, lists over the measurements; "h", the steps that follow them; "refits", each
    {"t", "accepted", "error", "before", "after"}; "steps", "error" at the end, or None, and "failure". Raises RunFailed
    where the run has failed before its first step.
    """
    states: list[State] = []
    kept: list[State] = []
    pairs: list[tuple[State, State]] = []

    def watch(state: State) -> None:
        if states and state.step == states[-1].step:
            pairs.append((states[-1], state))
        elif not kept or state.t >= kept[-1].t + every:
            kept.append(state)
        states[:] = [state]

    course = evolve(along.run, seed, watch=watch)
    of = lambda state: {name: value for name, value in along.numbers(state).items() if name in measures}  # noqa: E731
    kept = [state for state in kept if state.step < len(course.lines)]
    if not kept:
        raise RunFailed(course.failure or "the run has made no step")
    numbers = [of(state) for state in kept]
    found: dict = {"t": [state.t for state in kept]}
    found |= {"h": [course.lines[state.step]["h"] for state in kept]}
    found |= {name: [each[name] for each in numbers] for name in measures}
    refits = [
        {"t": made["t"], "accepted": made["accepted"], "error": made["error"], "before": of(before), "after": of(after)}
        for made, (before, after) in zip(course.refits, pairs)
    ]
    return found | {
        "refits": refits,
        "steps": len(course.lines),
        "error": course.error,
        "failure": course.failure,
    }
