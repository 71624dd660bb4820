"""The errors against the reference, and the integrals of the solution, that a run reports at its output times.

They are evaluated on points that are used for nothing else.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import to_host
from nivp_dist.points.mixture import Density, component_log_densities
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.base import Problem, evaluate_reference, has_reference
from nivp_dist.settings.automatic import inflation

# The points are drawn from Gaussians whose covariances are those of the fitted ones times these factors. The integrand
# of a relative L2 error weighted by the reference is as narrow as u^3, which has a third of the covariance of u: of
# 20,000 points drawn by u itself hardly any would contribute in 20 dimensions; of those with the factor 0.4, a third of
# all, three fifths do.
SPREADS = (1.5, 1.0, 0.4)
ERRORS_OF_DENSITIES = ("relative_l2_normalised", "relative_l2_unweighted", "log_rms", "kl")
ONLY_OF_DENSITIES = (*ERRORS_OF_DENSITIES, "log_normalisation", "entropy")
# A mass that differs from one by more than SURE standard errors is said, if that is more than the estimated error, or
# more than LARGE_LOSS: the estimate may be too large, and a hundredth of the mass is a fault in any case.
SURE, LARGE_LOSS = 5.0, 0.01


class Score(NamedTuple):
    """At one time: errors (NaN without a reference) and integrals of the solution, importance-sampled.

    Attributes:
        relative_l2: on a bounded domain that of L2 over the domain; with a real axis both norms are weighted by the
            reference r, sqrt(E_r |u - r|^2 / E_r r^2). NaN where r is zero at all points.
        compared_outputs: the errors are those of so many outputs, which the reference gives: the first ones.
        relative_l2_normalised: the same of u with the mass of r. log_rms: sqrt(E_r |log u - log r|^2). kl: the
            Kullback-Leibler divergence of u with the mass of r from r, in nats. Densities only.
        relative_l2_unweighted: |u - r| / |r| in L2 over the domain, for densities with a real axis: it sees tails that
            the weight hides.
        effective_points: how many points the relative error rests on (Kish 1965).
        mass, mass_error: the integral of the first output, and the standard error of that number.
        mean (d,), covariance (d, d): of the first output over its mass.
        log_normalisation: log of the mass, which is subtracted from log u to normalise it. entropy: - int p log p with
            p = u over its mass. Densities only.
        invariants: name -> (integral, its standard error), see ``Problem.invariants``.
    """

    relative_l2: float
    compared_outputs: int
    relative_l2_normalised: float
    relative_l2_unweighted: float
    log_rms: float
    kl: float
    effective_points: float
    mass: float
    mass_error: float
    mean: np.ndarray
    covariance: np.ndarray
    log_normalisation: float
    entropy: float
    invariants: dict[str, tuple[float, float]]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a snapshot: an invariant as invariant_NAME (2,); fields of densities where they are known."""
        fields = self._asdict()
        named = {f"invariant_{name}": np.asarray(value) for name, value in fields.pop("invariants").items()}
        return {
            name: value for name, value in fields.items() if name not in ONLY_OF_DENSITIES or value == value
        } | named


class Scorer:
    """Computes the scores of one run.

    Args:
        sampler: of the run. points: how many are drawn for a score.
    """

    def __init__(self, problem: Problem, network, sampler: Sampler, points: int, seed: int):
        self.problem, self.points = problem, points
        self.is_density = problem.density or sampler.log_density
        self.unbounded, self.whole_space = not problem.domain.bounded, not problem.domain.bounded_axes
        self.key = random_keys.run_key(seed)
        # The arrays are on every process, because each computes the reference on its host.
        replicated = NamedSharding(sampler.mesh, P())

        invariants = problem.invariants

        def evaluate(key, density, theta, t):
            drawn = sampler.draw_traced(key, _spread(density, inflation(sampler.settings)), n=points)
            u, integrands = network.solution_values(theta, t, drawn.x), {}
            log = network.field(theta, drawn.x) if sampler.log_density else jnp.log(jnp.maximum(u, 0.0))
            if callable(invariants):
                solution = network.solution(theta, t)
                densities = lambda point: invariants(solution, point)  # noqa: E731
                integrands = jax.vmap(densities)(drawn.x.astype(network.dtype))
            gaussians = jnp.exp(component_log_densities(density, drawn.x))
            return drawn.x, drawn.measure, u, log[:, 0], gaussians, integrands

        self._evaluate = jax.jit(evaluate, out_shardings=replicated)

    def score(self, theta, density: Density, t: float, number: int) -> Score:
        """The score of theta (p,) at time t; number: of the output, which decides the points."""
        evaluated = self._evaluate(random_keys.evaluation_key(self.key, number), density, theta, t)
        # Padding is removed.
        evaluated = jax.tree.map(lambda leaf: np.asarray(to_host(leaf), np.float64)[: self.points], evaluated)
        x, measure, u, log, gaussians, integrands = evaluated
        mass_at = measure * u[:, 0]
        mass, mass_error = self._mass(mass_at, measure[:, None] * gaussians)
        log_mass = entropy = np.nan
        invariants = {name: integral(measure * values) for name, values in integrands.items()}
        if self.is_density:
            log_mass = float(_log(mass))
            entropy = log_mass - _mean(log, np.maximum(mass_at, 0.0))
            invariants = {"mass": (mass, mass_error)} | invariants
        errors: dict = dict.fromkeys(("relative_l2", *ERRORS_OF_DENSITIES), np.nan)
        errors |= {"compared_outputs": 0, "effective_points": 0.0}
        if has_reference(self.problem, t):
            errors |= self._errors(measure, u, log, evaluate_reference(self.problem, x, t))
        mean = mass_at @ x / np.sum(mass_at)
        centred = x - mean
        covariance = (mass_at[:, None] * centred).T @ centred / np.sum(mass_at)
        integrals = {"log_normalisation": log_mass, "entropy": entropy, "invariants": invariants}
        return Score(**errors, mass=mass, mass_error=mass_error, mean=mean, covariance=covariance, **integrals)

    def error_at_start(self, theta, density: Density, t: float) -> float:
        """The relative L2 error of theta (p,) at the start, by the reference if there is one, else by u0.

        It is measured on other points than that of the first output. NaN where the solution is zero.
        """
        key = random_keys.start_evaluation_key(self.key)
        evaluated = jax.tree.map(to_host, self._evaluate(key, density, theta, t))
        x, measure, u = (np.asarray(part, np.float64)[: self.points] for part in evaluated[:3])
        known = has_reference(self.problem, t)
        solution = evaluate_reference(self.problem, x, t) if known else jax.vmap(self.problem.initial)(x)
        solution = np.asarray(solution, np.float64).reshape(self.points, -1)
        return self._plain_error(measure, u, solution)[0]

    def _plain_error(self, measure, u, reference) -> tuple[float, np.ndarray]:
        """The relative L2 error of the outputs that the reference gives, and the weights (n, k) of its norm."""
        weight = measure[:, None] * np.abs(reference if self.unbounded else 1.0)
        return _relative(u[:, : reference.shape[1]], reference, weight), weight

    def _errors(self, measure, u, log, reference) -> dict:
        """The fields of a Score that depend on the reference."""
        plain, weight = self._plain_error(measure, u, reference)
        u, measure = u[:, : reference.shape[1]], measure[:, None]
        parts = np.sum(weight * (u - reference) ** 2, axis=1)
        errors = {
            "relative_l2": plain,
            "compared_outputs": reference.shape[1],
            "effective_points": np.sum(parts) ** 2 / max(np.sum(parts**2), np.finfo(float).tiny),
        }
        if not self.is_density:
            return errors
        known = reference[:, 0] > 0
        difference, masses = (log - _log(reference[:, 0]))[known], (measure * reference)[known, 0]
        # Both masses by the same points: their noise cancels, which is larger than many an error.
        mass = np.sum(measure * u) / np.sum(measure * reference)
        # Of two densities of one mass the mean of exp(d) - 1 is zero, so that it may be added to that of -d. Every term
        # is then positive, and of second order in d.
        normalised = difference - _log(mass)
        with np.errstate(over="ignore"):
            kl = _mean(np.expm1(normalised) - normalised, masses)
        if self.unbounded:
            errors["relative_l2_unweighted"] = _relative(u, reference, measure)
        errors |= {"relative_l2_normalised": _relative(u / mass, reference, weight), "kl": kl}
        return errors | {"log_rms": float(np.sqrt(_mean(difference**2, masses)))}

    def _mass(self, mass_at, gaussians) -> tuple[float, float]:
        """The integral of u and its standard error, from measure * u (n,) and measure * N_k (n, K).

        On the whole space the fitted Gaussians, whose integrals are one, are control variates: only the part of u that
        is no combination of them is integrated by sampling.
        """
        if not (self.is_density and self.whole_space):
            return integral(mass_at)
        centred = gaussians - gaussians.mean(axis=0)
        coefficients = np.linalg.lstsq(centred, mass_at - mass_at.mean(), rcond=1e-10)[0]
        rest, error = integral(mass_at - gaussians @ coefficients)
        return rest + float(np.sum(coefficients)), error


def lost_mass(problem: Problem, score: Score, estimate: float, start: float = 1.0) -> str | None:
    """A message if the mass of a probability density differs from that at its start by more than its statistical error
    explains.

    Through a wall, or the end of an open axis, mass may leave: there it is only said where it is more than before.
    """
    leaves = bool(problem.domain.axes_of("wall", "robin", "open"))
    excess = score.mass - start
    least = SURE * score.mass_error + min(estimate, LARGE_LOSS) * start
    if not problem.density or abs(excess) <= least or (leaves and excess < 0):
        return None
    return (
        f"mass: the integral of u is {score.mass:.4g} +- {score.mass_error:.1g}, and should be {start:.4g}: there is "
        "an error in the tails of u, which errors weighted by u hardly show; try a larger sampling.uniform_fraction or "
        "sampling.inflation, more sampling.points, or a smaller integrator.rtol"
    )


def integral(terms: np.ndarray) -> tuple[float, float]:
    """The sum of measure * g (n,), which estimates the integral of g, and its standard error (Monte Carlo).

    The formula is that of independent draws. These are stratified, so that the standard error is an upper bound.
    """
    return float(np.sum(terms)), float(np.sqrt(len(terms)) * np.std(terms))


def _spread(density: Density, inflation: float) -> Density:
    """A copy of the mixture for each of SPREADS, covariances times it; a draw multiplies them by `inflation` again."""
    copies = [density._replace(covariances=spread / inflation * density.covariances) for spread in SPREADS]
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *copies)
    return together._replace(weights=together.weights / len(SPREADS))


def _relative(values: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> float:
    """|values - reference| / |reference| with the weights (n, 1) or (n, k); NaN where the reference is zero."""
    size = np.sum(weight * reference**2) or np.nan
    return float(np.sqrt(np.sum(weight * (values - reference) ** 2) / size))


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    # A value may be infinite where its weight is zero.
    return float(np.sum(weights * np.where(weights > 0, values, 0.0)) / np.sum(weights))


def _log(values):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(values)
