"""Gaussian mixtures as arrays: evaluation, moments, samples, and the fit by expectation-maximisation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Density(NamedTuple):
    """A mixture of K Gaussians: weights (K,), means (K, d), covariances (K, d, d)."""

    weights: jax.Array
    means: jax.Array
    covariances: jax.Array


def moments(density: Density):
    """Mean (d,) and covariance (d, d) of the mixture."""
    mean = density.weights @ density.means
    spread = density.means - mean
    within = jnp.einsum("k,kij->ij", density.weights, density.covariances)
    return mean, within + jnp.einsum("k,ki,kj->ij", density.weights, spread, spread)


def gaussians(density: Density, count: int):
    """Masses (count,), means (count, d) and covariances (count, d, d).

    Those of one Gaussian with the moments of the mixture if count = 1, else those of the mixture, whose number of
    Gaussians is then count.
    """
    if count == 1:
        mean, covariance = moments(density)
        return jnp.ones(1), mean[None], covariance[None]
    return tuple(density)


def cholesky_factors(covariances):
    """Lower Cholesky factors of covariances (K, d, d): (K, d, d).

    They are computed one by one: batched LAPACK calls on the CPU wait for each other inside XLA's thread pool, and
    two of them on two cores wait for ever (seen with jaxlib 0.10.2).
    """
    return jnp.stack([jnp.linalg.cholesky(covariance) for covariance in covariances])


def component_log_densities(density: Density, x):
    """log N(x; m_k, S_k) at x (n, d) for every Gaussian k: (n, K)."""
    identity = jnp.eye(x.shape[-1])
    columns = []
    for mean, factor in zip(density.means, cholesky_factors(density.covariances)):
        whiten = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
        z = (x - mean) @ whiten.T
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(factor)))
        columns.append(-0.5 * jnp.sum(z**2, axis=-1) - log_determinant - 0.5 * x.shape[-1] * jnp.log(2 * jnp.pi))
    return jnp.stack(columns, axis=-1)


def log_mixture(density: Density, x):
    """The logarithm of the mixture's density at x (n, d): (n,)."""
    return jax.nn.logsumexp(component_log_densities(density, x) + jnp.log(density.weights), axis=-1)


def transformed_normals(means, factors, component, z):
    """m_k + L_k z with the component k of every point, at standard normals z (n, d), component (n,): (n, d).

    It multiplies all points by every factor and selects: a factor for each point would be n d^2 numbers.
    """
    for_each = [mean + z @ factor.T for mean, factor in zip(means, factors)]
    return sum(jnp.where(component[:, None] == k, x, 0.0) for k, x in enumerate(for_each))


def maximise_likelihood(density: Density, x, masses, floor, sweeps, covariance_factor: float = 1) -> Density:
    """Sweeps of expectation-maximisation from a mixture towards the distribution of weighted points.

    Args:
        x: (n, d). masses: (n,), of sum one.
        floor: (d, d), added to every covariance.
        covariance_factor: the fitted covariances are multiplied by it before the floor is added.
    """

    def sweep(_, mixture: Density) -> Density:
        logs = component_log_densities(mixture, x) + jnp.log(mixture.weights)
        shares = masses[:, None] * jax.nn.softmax(logs, axis=-1)
        mass = jnp.sum(shares, axis=0) + 1e-12  # a Gaussian without any point keeps a weight of which the log exists
        means = (shares.T @ x) / mass[:, None]
        centred = [x - mean for mean in means]
        covariances = jnp.stack([(share[:, None] * y).T @ y for share, y in zip(shares.T, centred)])
        return Density(mass / jnp.sum(mass), means, covariance_factor * covariances / mass[:, None, None] + floor)

    return jax.lax.fori_loop(0, sweeps, sweep, density)
