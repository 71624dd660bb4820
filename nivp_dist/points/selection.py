"""Selections of points among candidates, by the residual or by the solution: plain functions, to be compiled."""

import jax
import jax.numpy as jnp

from nivp_dist.points.points import Points


def select_by_residual(key, candidates: Points, squares, n: int) -> Points:
    """n of N candidates, with a probability that is half their weight and half their share of the squared residual.

    Systematic resampling. Weights and measure are divided by the probability, so that sums over the selection
    estimate the same integrals as sums over the candidates; the half by weight bounds the quotients.

    Args:
        squares: (N,), the squared residual at the candidates.
    """
    residual_share = candidates.weights * squares
    total = jnp.sum(residual_share)
    half = jnp.where(total > 0, residual_share / jnp.where(total > 0, total, 1.0), candidates.weights)
    index, p = _systematic(key, 0.5 * candidates.weights + 0.5 * half, n)
    chosen = jax.tree.map(lambda leaf: leaf[index], candidates)
    return Points(chosen.x, chosen.weights / p / jnp.sum(chosen.weights / p), chosen.measure / (n * p))


def select_by_solution(
    key, candidates: Points, log_values, n: int, power: float, share: float, log_density: bool
) -> Points:
    """n of N candidates: a share with equal probabilities, the others as if drawn from |u|^power.

    Sampling-importance resampling (Rubin 1987). Gaussians fitted to u reach beyond a density that decays faster than
    they do. Out there log u and its time derivative are largest, and points there would dominate the velocity.

    Args:
        log_values: log |u| at the candidates, (N,).
        log_density: True if the field is log u. All weights are then equal, because its norm follows the points;
            else they keep the norm of the candidates.
    """
    drawn = candidates.measure > 0  # and not padding
    logs = jnp.where(drawn, power * log_values + jnp.log(candidates.measure), -jnp.inf)
    index, p = _systematic(key, (1 - share) * jax.nn.softmax(logs) + share * drawn / jnp.sum(drawn), n)
    chosen = jax.tree.map(lambda leaf: leaf[index], candidates)
    weights = jnp.full(n, 1.0 / n) if log_density else chosen.weights / p / jnp.sum(chosen.weights / p)
    return Points(chosen.x, weights, chosen.measure / (n * p))


def _systematic(key, probability, n: int):
    """Systematic resampling by probabilities (N,): n indices, and the probability of each, (n,) both."""
    cumulative = jnp.cumsum(probability)
    position = (jnp.arange(n) + jax.random.uniform(key)) / n * cumulative[-1]
    index = jnp.minimum(jnp.searchsorted(cumulative, position, side="right"), len(probability) - 1)
    return index, probability[index]
