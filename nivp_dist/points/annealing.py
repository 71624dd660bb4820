"""Samples of a density of which nothing is known but its values: a population that is annealed towards it.

Sequential Monte Carlo (Del Moral, Doucet, Jasra 2006) on the path p0^(1 - beta) |u|^beta from a broad density p0 to
|u|: beta grows so that half of the population stays effective, the population is resampled by its weights, and every
member moves by Metropolis steps. The steps are those of differential evolution (ter Braak 2006): a member of one half
moves along the difference of two members of the other half, which has the scale and the directions of the density, and
now and then the distance between its parts. Importance sampling alone fails in many dimensions where u is far narrower
than p0, or where its parts lie apart.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.errors import InputError
from nivp_dist.points.mixture import Density, component_log_densities, maximise_likelihood
from nivp_dist.points.points import effective_sample_size
from nivp_dist.problems.domains import Domain, columns

POPULATION = 8192  # a covariance in 100 dimensions is then right to a tenth
KEPT = 0.5  # share of the population that stays effective in one change of beta
WIDER = 2.0  # p0 along real axes, where it is normal: its standard deviations, in units of the domain's scale
MOVES = 2  # Metropolis steps after a change of beta, for each dimension, and FEWEST_MOVES of them at least
FEWEST_MOVES = 20
JUMP_EVERY = 5  # every fifth step has the whole difference of two members, which may lead from one part of u to another
MOST_TEMPERATURES = 200  # changes of beta; a density that takes more of them is taken as not found
STARTS = 8  # of expectation-maximisation, whose best result is taken


def annealed(key, domain: Domain, log_values: Callable) -> jax.Array | None:
    """A population (POPULATION, d) of the density that is proportional to exp(log_values(x)).

    log_values: (n, d) -> (n,), -inf where the density vanishes, as outside of the domain.

    Returns None where the density vanishes at all members of p0, or where beta does not reach one.
    """
    keys, beta = iter(random_keys.several(key, 2 * MOST_TEMPERATURES + 1)), 0.0
    log_base = partial(_log_base, domain)
    x = _draw_base(domain, next(keys))
    target = jax.jit(lambda x: jnp.where(jnp.isfinite(log_base(x)), log_values(x), -jnp.inf))
    moves = max(FEWEST_MOVES, MOVES * domain.dimension)
    move = jax.jit(partial(_moved, lambda x, beta: (1 - beta) * log_base(x) + beta * target(x), moves))
    resample = jax.jit(_resampled)
    for _ in range(MOST_TEMPERATURES):
        log_ratio = np.asarray(target(x) - log_base(x))
        if not np.any(np.isfinite(log_ratio)):
            return None
        change = _next_change(log_ratio, 1.0 - beta)
        beta = min(1.0, beta + change)
        x = resample(next(keys), x, change * log_ratio)
        x = move(next(keys), x, beta)
        if beta >= 1.0:
            return x
    return None


def given_samples(samples: Callable, key, n: int, dimension: int) -> jax.Array:
    """Samples (n, d) of the initial density by the problem's own function. Raises InputError if they are none."""
    x = jnp.asarray(samples(key, n), jnp.float64)
    if x.shape != (n, dimension) or not np.isfinite(np.asarray(x)).all():
        raise InputError(f"initial_samples(key, n) must give finite numbers (n, {dimension}), not {x.shape}")
    return x


def fitted_mixture(key, x, components: int, floor, sweeps: int) -> Density:
    """The mixture of so many Gaussians with the largest likelihood of samples x (n, d), of several starts.

    A start has its means at samples that are far from each other (k-means++: Arthur and Vassilvitskii 2007).
    floor: (d, d), added to every covariance.
    """
    covariance = jnp.cov(x, rowvar=False).reshape(x.shape[1], -1) + floor
    if components == 1:
        return Density(jnp.ones(1), jnp.mean(x, axis=0)[None], covariance[None])
    masses = jnp.full(len(x), 1.0 / len(x))
    whitened = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(covariance), x.T, lower=True).T

    @jax.jit
    def fit(key, x, whitened):
        chosen = _far_apart(key, whitened, components)
        start = Density(
            jnp.full(components, 1.0 / components), x[chosen], jnp.tile(covariance / components, (components, 1, 1))
        )
        found = maximise_likelihood(start, x, masses, floor, sweeps)
        return found, jnp.mean(jax.nn.logsumexp(component_log_densities(found, x) + jnp.log(found.weights), axis=-1))

    fits = [fit(each, x, whitened) for each in random_keys.several(key, STARTS)]
    return max(fits, key=lambda found: float(jnp.nan_to_num(found[1], nan=-jnp.inf)))[0]


def _draw_base(domain: Domain, key):
    shape = (POPULATION, domain.dimension)
    if domain.bounded:
        return jax.random.uniform(key, shape, minval=jnp.asarray(domain.lower), maxval=jnp.asarray(domain.upper))
    z = jax.random.normal(key, shape)
    x = domain.centre + WIDER * domain.scale * z
    if not domain.bounded_axes:
        return x
    uniform = domain.centre + domain.scale * (2 * jax.scipy.stats.norm.cdf(z) - 1)
    return jnp.where(np.isin(np.arange(domain.dimension), domain.bounded_axes), uniform, x)


def _log_base(domain: Domain, x):
    """log p0 at x (n, d), up to a constant: (n,)."""
    logs = 0.0
    if domain.real_axes:
        logs = -0.5 * jnp.sum(columns((x - domain.centre) / (WIDER * domain.scale), domain.real_axes) ** 2, axis=-1)
    if not domain.bounded_axes:
        return logs
    inside = jnp.all((x > domain.lower) & (x < domain.upper), axis=-1)
    return jnp.where(inside, logs, -jnp.inf)


def _next_change(log_ratio: np.ndarray, most: float) -> float:
    """The change of beta after which KEPT of the population is effective, by bisection; at most `most`."""

    def effective(change: float) -> float:
        weights = np.exp(change * (log_ratio - log_ratio.max()))
        return float(effective_sample_size(weights)) / len(weights)

    finite = np.isfinite(log_ratio).mean()  # members where u vanishes are lost at any change
    if effective(most) >= KEPT * finite:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= KEPT * finite else (low, middle)
    return high


def _resampled(key, x, logs):
    """Systematic resampling of x (n, d) with weights exp(logs)."""
    cumulative = jnp.cumsum(jax.nn.softmax(logs))
    positions = (jnp.arange(len(x)) + jax.random.uniform(key)) / len(x) * cumulative[-1]
    return x[jnp.searchsorted(cumulative, positions).clip(0, len(x) - 1)]


def _moved(log_density, moves: int, key, x, beta):
    """x (n, d) after so many Metropolis steps that leave exp(log_density(., beta)) as it is."""
    half, d = len(x) // 2, x.shape[1]
    # A resampled population has copies of one member side by side. It is therefore divided into halves at random.
    keys = random_keys.several(key, 2 * moves + 1)
    x = jax.random.permutation(keys[-1], x)
    usual = 2.38 / np.sqrt(2 * d)

    def step(number, state):
        halves, logs = state
        for which in range(2):
            for_pairs, for_noise, for_acceptance = random_keys.several(keys[2 * number + which], 3)
            others = halves[1 - which]
            first, second = jax.random.randint(for_pairs, (2, half), 0, half)
            noise = jax.random.normal(for_noise, (half, d)) * 1e-4 * jnp.std(others, axis=0)
            length = jnp.where(number % JUMP_EVERY == JUMP_EVERY - 1, 1.0, usual)
            proposed = halves[which] + length * (others[first] - others[second]) + noise
            log_proposed = log_density(proposed, beta)
            accepted = jnp.log(jax.random.uniform(for_acceptance, (half,))) < log_proposed - logs[which]
            halves = halves.at[which].set(jnp.where(accepted[:, None], proposed, halves[which]))
            logs = logs.at[which].set(jnp.where(accepted, log_proposed, logs[which]))
        return halves, logs

    halves = x.reshape(2, half, d)
    logs = jnp.stack([log_density(part, beta) for part in halves])
    return jax.lax.fori_loop(0, moves, step, (halves, logs))[0].reshape(x.shape)


def _far_apart(key, x, count: int):
    """Indices (count,) of samples x (n, d), each drawn with the square of its distance to those before."""
    keys = random_keys.several(key, count)
    chosen = [jax.random.randint(keys[0], (), 0, len(x))]
    distance = jnp.full(len(x), jnp.inf)
    for each in keys[1:]:
        distance = jnp.minimum(distance, jnp.sum((x - x[chosen[-1]]) ** 2, axis=1))
        chosen.append(jax.random.categorical(each, jnp.log(distance)))
    return jnp.stack(chosen)
