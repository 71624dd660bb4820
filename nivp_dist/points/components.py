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
from nivp_dist.points.annealing import POPULATION, annealed, fitted_mixture, given_samples
from nivp_dist.points.mixture import Density, component_log_densities
from nivp_dist.points.sampling import SEPARATING_SWEEPS, SMALLEST_WIDTH
from nivp_dist.problems.base import Problem

MOST = 8
# Nats of divergence: below the first one Gaussian is good enough, and below the second no more are tried.
ONE_SUFFICES, ENOUGH = 0.05, 0.01
# A mixture is exact where its divergence is at most so many times what the noise of the samples that it was fitted to
# leaves: 1.0 and 0.9 times for two and four distant parts in 8 dimensions, 1.8 for the heavy tails.
NOISE_FACTOR = 1.5
# More than one Gaussian are taken if they leave at most GAIN of the divergence of one.
GAIN = 0.1
# Parts are distinct where a sample belongs to one of them with at least this probability, on average: 0.98 for the four
# distant parts, 0.90 and 0.78 for two and three Gaussians of one centre that make up the heavy tails.
DISTINCT = 0.95


class Parts(NamedTuple):
    """What was found of an initial density.

    Attributes:
        mixture: the Gaussians. distinct: whether they are parts of their own, each with a quadratic form in log u.
        exact: whether the density is that mixture, up to the noise of the population.
    """

    mixture: Density
    distinct: bool
    exact: bool


def parts_of(problem: Problem, population, seed: int, count: int | None = None) -> Parts:
    """The parts of the initial density of a problem. It is computed on one device.

    population: samples (n, d) of it. count: the number of Gaussians, if that is known.
    """
    keys = random_keys.several(random_keys.parts_key(random_keys.run_key(seed)), 2)
    floor = jnp.diag(jnp.asarray((SMALLEST_WIDTH * problem.domain.scale) ** 2))
    fitted, unseen = jnp.split(jax.random.permutation(keys[0], population), 2)
    logs = np.asarray(log_initial(problem, unseen))
    if count is not None:
        return _judged(keys[1], fitted, unseen, logs, count, floor).parts
    one = best = _judged(keys[1], fitted, unseen, logs, 1, floor)
    while best.divergence >= (ONE_SUFFICES if best is one else ENOUGH) and len(best.parts.mixture.weights) < MOST:
        more = _judged(keys[1], fitted, unseen, logs, len(best.parts.mixture.weights) + 1, floor)
        if not more.divergence < best.divergence:
            break
        best = more
    return best.parts if best.divergence <= GAIN * one.divergence else one.parts


def population_of(problem: Problem, seed: int) -> jax.Array | None:
    """Samples (POPULATION, d) of the initial density; None if it was not found. It is computed on one device.

    Raises InputError if the problem gives samples that are none.
    """
    key = random_keys.population_key(random_keys.run_key(seed))
    if problem.initial_samples is not None:
        return given_samples(problem.initial_samples, key, POPULATION, problem.domain.dimension)
    return annealed(key, problem.domain, lambda x: log_initial(problem, x))


def log_initial(problem: Problem, x):
    """log |u0| at x (n, d): (n,)."""
    u = jax.vmap(lambda point: jnp.reshape(problem.initial(point), ()))(x)
    return jnp.log(jnp.abs(u).astype(jnp.float64))


class _Judged(NamedTuple):
    parts: Parts
    divergence: float  # from the mixture, in nats


def _judged(key, fitted, unseen, logs: np.ndarray, count: int, floor) -> _Judged:
    """A mixture of so many Gaussians, fitted to samples (n, d), and judged by others. logs (n,): log u0 of these, up to
    a constant."""
    mixture = fitted_mixture(key, fitted, count, floor, SEPARATING_SWEEPS)
    terms = np.asarray(component_log_densities(mixture, unseen) + jnp.log(mixture.weights))
    log_mixture = np.logaddexp.reduce(terms, axis=-1)
    difference = (log_mixture - logs)[np.isfinite(logs)]
    # The constant is the mass of u0, by importance sampling with the roles of both exchanged.
    constant = np.logaddexp.reduce(difference) - np.log(len(difference))
    divergence = float(constant - np.mean(difference))
    belongs = np.exp(np.max(terms, axis=-1) - log_mixture)
    d = fitted.shape[1]
    noise = count * (d + 1) * (d + 2) / 2 / (2 * len(fitted))  # of so many fitted numbers (Akaike 1974)
    return _Judged(Parts(mixture, bool(np.mean(belongs) >= DISTINCT), divergence <= NOISE_FACTOR * noise), divergence)
