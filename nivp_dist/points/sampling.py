"""Collocation points that follow the solution, and their importance weights.

Points come from a mixture: a share spread over the whole domain, the rest from Gaussians fitted to |u|.
Weights are one over the *intensity* of points, lambda(x) = sum_k n_k N_k(x) + n_0 / volume, the expected
number of points per volume given how many each part contributed (the balance heuristic of Veach and
Guibas 1995). On a box a Gaussian draw that falls outside is replaced by a uniform one and counted as
such, so lambda needs no normalising constant of a truncated Gaussian. In one
and two dimensions both are evenly spread (``low_discrepancy``).

A draw is a function of a key and the present density alone: every process makes the same one, whatever
the number of devices.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import AXIS, replicate
from nivp_dist.errors import InputError
from nivp_dist.points.low_discrepancy import MOST_DIMENSIONS, shifted_sequence
from nivp_dist.points.points import Points
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.model import SamplingSettings

BROAD = 4.0  # on the whole space the "uniform" share is a Gaussian of this many times the variance
PILOT_POINTS, PILOT_ROUNDS = 100_000, 5


class Density(NamedTuple):
    """A mixture of K Gaussians: weights (K,), means (K, d), covariances (K, d, d)."""

    weights: jax.Array
    means: jax.Array
    covariances: jax.Array


class Sampler:
    """Draws for one configuration on one mesh."""

    def __init__(
        self, settings: SamplingSettings, domain: Domain, log_density: bool, mesh: Mesh, squares: bool = False
    ):
        if not domain.bounded and settings.method == "uniform":
            raise InputError("sampling.method = 'uniform' is impossible on the whole space: use 'density'")
        self.settings, self.domain, self.log_density, self.squares = settings, domain, log_density, squares
        self.mesh = mesh
        # A density is on every device alike, wherever it comes from: one program then serves all calls.
        self.fit = jax.jit(self._fit, out_shardings=NamedSharding(mesh, P()))
        self._programs = {}

    def draw(self, key, density: Density, n: int | None = None) -> Points:
        """n points (default sampling.points), sharded, padded to a multiple of the devices."""
        n = self.settings.points if n is None else n
        if n not in self._programs:
            sharding = NamedSharding(self.mesh, P(AXIS))
            self._programs[n] = jax.jit(partial(self._draw, n=n), out_shardings=sharding)
        return self._programs[n](key, density)

    def start(self, key, values) -> Density:
        """The density fitted to |values(x)|, values (n, d) -> (n, m), from nothing but the domain.

        Repeated importance sampling: each round draws from the fit of the one before.
        """
        density = self.broadest()
        evaluate = jax.jit(values)
        last = 50 if self.settings.components > 1 else 1  # of one Gaussian there is nothing to sort out
        for round_, sweeps in enumerate([1] * (PILOT_ROUNDS - 1) + [last]):
            points = self.draw(random_keys.pilot_round_key(key, round_), density, PILOT_POINTS)
            if round_ == PILOT_ROUNDS - 1:
                density = self._split(random_keys.pilot_split_key(key, PILOT_ROUNDS), density)
            density = self.fit(density, points, evaluate(points.x), sweeps=sweeps)
        return density

    # ----------------------------------------------------------------------------------------------

    def broadest(self) -> Density:
        """As wide as the domain, or as its scale on the whole space: what is known before any value of u."""
        k = self.settings.components
        centre, covariance = self.domain.centre, np.diag(self.domain.scale**2)
        parts = np.full(k, 1.0 / k), np.tile(centre, (k, 1)), np.tile(covariance, (k, 1, 1))
        return replicate(Density(*parts), self.mesh)

    def _split(self, key, density: Density) -> Density:
        """Means spread over the one Gaussian fitted so far, for expectation-maximisation to sort out."""
        if self.settings.components == 1:
            return density
        root = jnp.linalg.cholesky(density.covariances[0])
        offsets = jax.random.normal(key, density.means.shape) @ root.T
        return density._replace(means=density.means + offsets)

    def _uniform_share(self) -> float:
        return 1.0 if self.settings.method == "uniform" else self.settings.uniform_fraction

    def _draw(self, key, density: Density, *, n: int) -> Points:
        domain, k = self.domain, len(density.weights)
        d = domain.dimension
        # All random numbers by one call: each is a program of its own, which takes longer to build than to run.
        random = jax.random.uniform(key, (n + 1, 2 * d), minval=2.0**-53)
        normal, across = random[:n, :d], random[:n, d:]
        inflated = density.covariances * self.settings.inflation

        # Stratified choice of the part that each point comes from: counts as even as they can be.
        share = self._uniform_share()
        shares = jnp.concatenate([jnp.array([share]), (1 - share) * density.weights])
        position = (jnp.arange(n) + random[n, 0]) / n  # i / n beside a sequence is as even as the sequence
        part = jnp.searchsorted(jnp.cumsum(shares)[:-1], position, side="right")
        counts = jnp.sum(part[:, None] == jnp.arange(k + 1), axis=0)

        if d <= MOST_DIMENSIONS:
            normal = shifted_sequence(random[n, :d], n)
            # Those that replace a Gaussian draw stay independent: of a sequence they would be the very piece that goes
            # with the draws outside.
            across = jnp.where((part == 0)[:, None], shifted_sequence(random[n, d:], n), across)
        z = np.sqrt(2) * jax.lax.erf_inv(2 * normal - 1)
        roots = cholesky_roots(inflated)
        gaussian = _placed(density.means, roots, jnp.maximum(part - 1, 0), z)
        if domain.bounded:
            lower, upper = jnp.asarray(domain.lower), jnp.asarray(domain.upper)
            size = self._box_sizes(position)[:, None]
            uniform = domain.centre + size * (lower - domain.centre + (upper - lower) * across)
            outside = jnp.any((gaussian <= lower) | (gaussian >= upper), axis=-1)
            spread = (part == 0) | outside
            x = jnp.where(spread[:, None], uniform, gaussian)
            spread_intensity = jnp.sum(spread) / domain.volume * self._box_density(x)
        else:
            choice = jnp.searchsorted(jnp.cumsum(density.weights)[:-1], position / share, side="right")
            # A broad part of every Gaussian stands in for the uniform one where there is no box.
            broad = _placed(density.means, jnp.sqrt(BROAD) * roots, choice, z)
            x = jnp.where((part == 0)[:, None], broad, gaussian)
            wide = density._replace(covariances=BROAD * inflated)
            spread_intensity = counts[0] * jnp.exp(log_mixture(wide, x))
        kernels = component_log_densities(density._replace(covariances=inflated), x)
        intensity = spread_intensity + jnp.sum(counts[1:] * jnp.exp(kernels), axis=-1)
        measure = 1.0 / intensity
        as_drawn = self.log_density or self.settings.nested_fraction > 0
        weights = jnp.full(n, 1.0 / n) if as_drawn else measure / jnp.sum(measure)
        return pad(Points(x, weights, measure), self.mesh.size)

    def _box_sizes(self, random):
        """Relative sizes of the boxes that points are drawn from, by random numbers (n,) in (0, 1)."""
        share = self.settings.nested_fraction
        return jnp.where(random < share, random / max(share, 1e-300), 1.0)

    def _box_density(self, x):
        """That of points from such boxes, relative to that of uniform points, at x (n, d)."""
        share, d = self.settings.nested_fraction, self.domain.dimension
        if share == 0:
            return 1.0
        r = jnp.max(jnp.abs(x - self.domain.centre) / self.domain.scale, axis=-1)
        nested = -jnp.log(r) if d == 1 else (r ** (1 - d) - 1) / (d - 1)  # int_r^1 s^-d ds
        return 1 - share + share * nested

    def _fit(self, density: Density, points: Points, values, sweeps) -> Density:
        """Weighted expectation-maximisation: `sweeps` sweeps from the present mixture towards |values|.

        Of a field u, which may be wrong by a little everywhere (``squares``), it is |values|^2, and twice the
        covariances, which for a Gaussian is the same. In three dimensions a thousandth of the peak all over the box is
        more of the integral of |u| than a pulse 0.05 wide, and next to nothing of that of |u|^2 (measured in wave_3d:
        coverage 0.03 to 0.08 with |u|, 0.5 with |u|^2).

        The covariance is kept above a thousandth of the domain's scale, squared, so that a density can
        follow a pulse but never collapse onto a few points; a draw with hardly any mass changes nothing.
        """
        power = 2 if self.squares else 1
        alpha = points.measure * jnp.linalg.norm(values.astype(jnp.float64), axis=-1) ** power
        total = jnp.sum(alpha)
        alpha = jnp.where(total > 0, alpha / jnp.where(total > 0, total, 1.0), 0.0)
        floor = jnp.diag(jnp.asarray((1e-3 * self.domain.scale) ** 2))
        effective = 1.0 / jnp.sum(jnp.where(total > 0, alpha, 1.0) ** 2)

        def sweep(_, mixture: Density) -> Density:
            logs = component_log_densities(mixture, points.x) + jnp.log(mixture.weights)
            shares = alpha[:, None] * jax.nn.softmax(logs, axis=-1)
            mass = jnp.sum(shares, axis=0) + 1e-12
            means = (shares.T @ points.x) / mass[:, None]
            centred = [points.x - mean for mean in means]
            covariances = jnp.stack([(share[:, None] * y).T @ y for share, y in zip(shares.T, centred)])
            return Density(mass / jnp.sum(mass), means, power * covariances / mass[:, None, None] + floor)

        fitted = jax.lax.fori_loop(0, sweeps, sweep, density)
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in fitted]))
        # Fewer effective points than parameters of a Gaussian cannot say what its covariance is.
        trusted = finite & (total > 0) & (effective > 2 * (self.domain.dimension + 1))
        return jax.tree.map(lambda new, old: jnp.where(trusted, new, old), fitted, density)


def _placed(means, roots, component, z):
    """means_k + roots_k z with the component k of every point, for z (n, d): (n, d). All products with every root: a
    root for each point would be n d^2 numbers."""
    everywhere = [mean + z @ root.T for mean, root in zip(means, roots)]
    return sum(jnp.where(component[:, None] == k, x, 0.0) for k, x in enumerate(everywhere))


def moments(density: Density):
    """Mean (d,) and covariance (d, d) of the mixture."""
    mean = density.weights @ density.means
    spread = density.means - mean
    within = jnp.einsum("k,kij->ij", density.weights, density.covariances)
    return mean, within + jnp.einsum("k,ki,kj->ij", density.weights, spread, spread)


def gaussians(density: Density, count: int):
    """Masses (K,), means (K, d), covariances (K, d, d) of one Gaussian with the moments, or of the mixture's own."""
    if count == 1:
        mean, covariance = moments(density)
        return jnp.ones(1), mean[None], covariance[None]
    return tuple(density)


def cholesky_roots(covariances):
    """Lower roots of (K, d, d), one by one: batched LAPACK calls on the CPU wait for each other inside XLA's
    thread pool, and two of them on two cores wait for ever (seen with jaxlib 0.10.2)."""
    return jnp.stack([jnp.linalg.cholesky(covariance) for covariance in covariances])


def component_log_densities(density: Density, x):
    """log N_k(x): (n, K) at x (n, d)."""
    identity = jnp.eye(x.shape[-1])
    columns = []
    for mean, root in zip(density.means, cholesky_roots(density.covariances)):
        whiten = jax.scipy.linalg.solve_triangular(root, identity, lower=True)
        z = (x - mean) @ whiten.T
        log_determinant = jnp.sum(jnp.log(jnp.diagonal(root)))
        columns.append(-0.5 * jnp.sum(z**2, axis=-1) - log_determinant - 0.5 * x.shape[-1] * jnp.log(2 * jnp.pi))
    return jnp.stack(columns, axis=-1)


def log_mixture(density: Density, x):
    """log of the mixture's density at x (n, d): (n,)."""
    return jax.nn.logsumexp(component_log_densities(density, x) + jnp.log(density.weights), axis=-1)


def pad(points: Points, multiple: int) -> Points:
    """Up to a multiple of the devices: copies of the first point, of weight zero."""
    extra = -len(points.x) % multiple
    if extra == 0:
        return points
    x = jnp.concatenate([points.x, jnp.tile(points.x[:1], (extra, 1))])
    return Points(x, *(jnp.pad(w, (0, extra)) for w in points[1:]))


def select_by_residual(key, candidates: Points, squares, n: int) -> Points:
    """n of the candidates, with probability half their weight, half their share of the squared residual.

    Systematic resampling; weights are divided by the probability, so that sums over the selection still
    estimate the same integrals, and the half that ignores the residual bounds them. Plain function:
    compile it together with its sharding.
    """
    residual_share = candidates.weights * squares
    total = jnp.sum(residual_share)
    half = jnp.where(total > 0, residual_share / jnp.where(total > 0, total, 1.0), candidates.weights)
    index, p = _systematic(key, 0.5 * candidates.weights + 0.5 * half, n)
    chosen = jax.tree.map(lambda leaf: leaf[index], candidates)
    return Points(chosen.x, chosen.weights / p / jnp.sum(chosen.weights / p), chosen.measure / (n * p))


def select_by_solution(key, candidates: Points, log_values, n: int, power: float, share: float, log_density: bool):
    """n of the candidates as if drawn from |u|^power, but for a share that is drawn like the candidates themselves.

    Sampling-importance resampling (Rubin 1987). Gaussians fitted to u reach beyond a density that ends faster than
    they do; there log u and its rates are largest, and would be what the velocity is fitted to.

    Args:
        log_values: log |u| at the candidates (N,). Weights of the selection are those of its points for a field log u,
            whose norm follows the points; else they keep the norm of the candidates.
    """
    drawn = candidates.measure > 0  # and not padding
    logs = jnp.where(drawn, power * log_values + jnp.log(candidates.measure), -jnp.inf)
    index, p = _systematic(key, (1 - share) * jax.nn.softmax(logs) + share * drawn / jnp.sum(drawn), n)
    chosen = jax.tree.map(lambda leaf: leaf[index], candidates)
    weights = jnp.full(n, 1.0 / n) if log_density else chosen.weights / p / jnp.sum(chosen.weights / p)
    return Points(chosen.x, weights, chosen.measure / (n * p))


def _systematic(key, probability, n: int):
    """n indices drawn by systematic resampling, and the probability of each."""
    cumulative = jnp.cumsum(probability)
    position = (jnp.arange(n) + jax.random.uniform(key)) / n * cumulative[-1]
    index = jnp.minimum(jnp.searchsorted(cumulative, position, side="right"), len(probability) - 1)
    return index, probability[index]


def effective_sample_size(weights):
    """(sum w)^2 / sum w^2 (Kish 1965)."""
    return jnp.sum(weights) ** 2 / jnp.sum(weights**2)
