"""How many Gaussians a density starts from, where sampling.components = "auto".

Mixtures of more and more Gaussians are fitted to one half of a population of the initial condition, and judged by their
likelihood for the other half (Smyth 2000). What is left of the Kullback-Leibler divergence from the initial condition,
whose values are known, says whether it is such a mixture. Measured, with one, two, ... Gaussians: four distant parts of
different widths in 8 dimensions 0.97, 0.34, 0.11, 0.024, and 0.041 with six; a start with heavy tails in 6 dimensions
0.34, 0.044, 0.014, 0.020; a product of sech 0.18, 0.10, 0.065, 0.046.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.points.annealing import POPULATION, annealed, fitted_mixture
from nivp_dist.points.mixture import component_log_densities
from nivp_dist.problems.base import Problem

MOST = 8
SWEEPS = 50  # of expectation-maximisation, as in the first density (``points.sampling``)
SMALLEST_WIDTH = 1e-3  # of a Gaussian, in units of the domain's scale
# Nats of divergence: below the first one Gaussian is good enough, and below the second a mixture is exact up to the
# noise of the population.
ONE_SUFFICES, EXACT = 0.05, 0.01
# More than one Gaussian are taken if they leave at most GAIN of the divergence of one.
GAIN = 0.1
# Parts are distinct where a sample belongs to one of them with at least this probability, on average: 0.98 for the four
# distant parts, 0.90 and 0.78 for two and three Gaussians of one centre that make up the heavy tails.
DISTINCT = 0.95


class Parts(NamedTuple):
    """What was found of an initial density.

    Attributes:
        count: the number of Gaussians.
        distinct: whether they are parts of their own, each of which log u is a quadratic form in.
    """

    count: int
    distinct: bool


def parts_of(problem: Problem, seed: int) -> Parts:
    """The parts of the initial density of a problem on the whole space. It is computed on one device."""
    keys = random_keys.several(random_keys.components_key(random_keys.run_key(seed)), 3)

    def log_values(x):
        u = jax.vmap(lambda point: jnp.reshape(problem.initial(point), ()))(x)
        return jnp.log(jnp.abs(u).astype(jnp.float64))

    x = _population(problem, keys[0], log_values)
    if x is None:
        return Parts(1, True)
    fitted, unseen = jnp.split(jax.random.permutation(keys[1], x), 2)
    floor = jnp.diag(jnp.asarray((SMALLEST_WIDTH * problem.domain.scale) ** 2))
    logs, best, first = np.asarray(log_values(unseen)), (1, np.inf, True), np.inf
    for count in range(1, MOST + 1):
        found = _judged(keys[2], fitted, unseen, logs, count, floor)
        first = found[1] if count == 1 else first
        if not found[1] < best[1]:
            break
        best = found
        if found[1] < (ONE_SUFFICES if count == 1 else EXACT):
            break
    count, divergence, distinct = best
    return Parts(count, distinct) if divergence <= GAIN * first else Parts(1, True)


def _population(problem: Problem, key, log_values) -> jax.Array | None:
    """A population (POPULATION, d) of the initial density; None if it was not found."""
    if problem.initial_samples is not None:
        return jnp.asarray(problem.initial_samples(key, POPULATION), jnp.float64)
    return annealed(key, problem.domain, log_values)


def _judged(key, fitted, unseen, logs: np.ndarray, count: int, floor) -> tuple[int, float, bool]:
    """A mixture of so many Gaussians: their number, the divergence (nats) from it, and whether its parts are distinct.

    fitted (n, d), unseen (n, d): halves of the population. logs (n,): log u0 of the second, up to a constant.
    """
    mixture = fitted_mixture(key, fitted, count, floor, SWEEPS)
    terms = np.asarray(component_log_densities(mixture, unseen) + jnp.log(mixture.weights))
    log_mixture = np.logaddexp.reduce(terms, axis=-1)
    known = np.isfinite(logs)
    difference = (log_mixture - logs)[known]
    # The constant is the mass of u0, by importance sampling with the roles of both exchanged.
    constant = np.logaddexp.reduce(difference) - np.log(len(difference))
    belongs = np.exp(np.max(terms, axis=-1) - log_mixture)
    return count, float(constant - np.mean(difference)), bool(np.mean(belongs) >= DISTINCT)
