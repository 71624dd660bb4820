"""Collocation points that follow the solution, and their quadrature weights.

Points come from K + 1 parts: a share n_0 that is uniform on a box, and n_k points of each Gaussian N_k fitted to |u|.
The weight of a point is one over the intensity of points, the expected number of them per volume,

    lambda(x) = n_0 / volume + sum_k n_k N_k(x)

(the balance heuristic of Veach and Guibas 1995). A Gaussian draw outside the box is replaced by a uniform one and
counted as such, so that lambda needs no normalising constant of a truncated Gaussian. On the whole space broader copies
of the Gaussians stand in for the uniform part, and where only some axes are bounded the product of both
(``product_part``). In one and two dimensions both kinds of points come from a low-discrepancy sequence
(``low_discrepancy``).

A draw is a function of a key and the density alone: every process makes the same one, on any number of devices.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import AXIS, multiple_of_points, pointwise, replicate, whole_program
from nivp_dist.errors import InputError
from nivp_dist.points.annealing import annealed, fitted_mixture, given_samples
from nivp_dist.points.low_discrepancy import MOST_DIMENSIONS, shifted_sequence
from nivp_dist.points.mixture import (
    Density,
    cholesky_factors,
    component_log_densities,
    log_mixture,
    maximise_likelihood,
    transformed_normals,
)
from nivp_dist.points.points import Points, effective_sample_size, pad
from nivp_dist.points.product_part import with_product_part
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.automatic import inflation, number_of_components, number_of_points, uniform_fraction
from nivp_dist.settings.model import SamplingSettings

# On the whole space the part that stands in for the uniform one has this many times the variance: twice the width.
BROAD = 4.0
# Enough to find a pulse of width 0.05 in two dimensions of [-1, 1]^d, and of width 0.15 in five (tests/points).
PILOT_POINTS, PILOT_ROUNDS = 100_000, 5
# Effective points of a pilot round, of PILOT_POINTS, below which the density is annealed. The shipped problems have
# 3,000 of them or more.
LEAST_EFFECTIVE = 500.0
# Of expectation-maximisation, in the last round, with several Gaussians: they separate two pulses in tests/points.
SEPARATING_SWEEPS = 50
# Of expectation-maximisation on importance-weighted points, from a mixture that was fitted to samples before.
IMPROVING_SWEEPS = 10
# The smallest standard deviation of a Gaussian, in units of the domain's scale: pulses in use are 50 times as wide.
SMALLEST_WIDTH = 1e-3


class _Parts(NamedTuple):
    """The part that each of n points comes from.

    Attributes:
        position: (n,), evenly spread over (0, 1) and increasing; by it the part is chosen.
        part: (n,), 0 for the uniform part, k for the Gaussian k - 1.
        counts: (K + 1,), the number of points from each part.
    """

    position: jax.Array
    part: jax.Array
    counts: jax.Array


class Sampler:
    """Draws of points and fits of their density, for one configuration on one mesh.

    Args:
        log_density: True if the field is log u: all points of a draw then have the same weight.
        squares: True if the Gaussians are fitted to |u|^2 in place of |u|, see ``_fit``.

    Raises InputError: uniform points along a real axis.
    """

    def __init__(self, settings: SamplingSettings, domain: Domain, log_density: bool, mesh: Mesh, squares=False):
        if not domain.bounded and settings.method == "uniform":
            raise InputError(
                "sampling.method = 'uniform' is impossible on the whole space, or along a Real axis: use 'density'"
            )
        self.components = number_of_components(settings)
        self.settings, self.domain, self.log_density, self.squares = settings, domain, log_density, squares
        self.mesh = mesh
        # A density is replicated over the devices, wherever it comes from: one program then serves all calls.
        self.fit = whole_program(mesh, self._fit, P())
        self._programs = {}

    def draw(self, key, density: Density, n: int | None = None) -> Points:
        """n points (default sampling.points), sharded and padded (``mesh.multiple_of_points``)."""
        return self.program(number_of_points(self.settings) if n is None else n)(key, density)

    def program(self, n: int):
        """The compiled program that draws n points: (key, density) -> Points."""
        if n not in self._programs:
            self._programs[n] = whole_program(self.mesh, partial(self.draw_traced, n=n), P(AXIS))
        return self._programs[n]

    def start(self, key, values: Callable, samples: Callable | None = None) -> Density:
        """The density fitted to |values(x)|, values (n, d) -> (n, m), without an earlier one.

        Repeated importance sampling: each round draws points from the fit of the round before. Where few of them are
        effective, as in many dimensions if u has parts that lie apart, a population is annealed towards |u| instead.

        samples: (key, n) -> (n, d), samples of |u| if the problem gives them; they take the place of all that.
        """
        evaluate = pointwise(self.mesh, lambda _, x: values(x))
        if samples is not None:
            of_samples = random_keys.pilot_samples_key(key)
            return self._separated(key, given_samples(samples, of_samples, PILOT_POINTS, self.domain.dimension))
        density = self.broadest()
        effective = whole_program(self.mesh, effective_sample_size, P())
        for round_ in range(PILOT_ROUNDS - 1):
            points = self.draw(random_keys.pilot_round_key(key, round_), density, PILOT_POINTS)
            found = evaluate(None, points.x)
            density = self.fit(density, points, found, sweeps=1)
        if not float(effective(points.measure * _sizes(found))) >= LEAST_EFFECTIVE:
            x = annealed(random_keys.annealing_key(key), self.domain, lambda x: jnp.log(_sizes(values(x))))
            if x is not None:
                return self._from_samples(key, x, evaluate)
        points = self.draw(random_keys.pilot_round_key(key, PILOT_ROUNDS - 1), density, PILOT_POINTS)
        density = self._split(random_keys.pilot_split_key(key), density)
        last = SEPARATING_SWEEPS if self.components > 1 else 1
        return self.fit(density, points, evaluate(None, points.x), sweeps=last)

    def _from_samples(self, key, x, evaluate) -> Density:
        """The density fitted to an annealed population x (n, d), the weights of its parts by importance sampling."""
        density = self._separated(key, x)
        points = self.draw(random_keys.pilot_round_key(key, PILOT_ROUNDS - 1), density, PILOT_POINTS)
        return self.fit(density, points, evaluate(None, points.x), sweeps=IMPROVING_SWEEPS)

    def _separated(self, key, x) -> Density:
        """The density fitted to samples x (n, d) by expectation-maximisation."""
        floor = jnp.diag(jnp.asarray((SMALLEST_WIDTH * self.domain.scale) ** 2))
        mixture = random_keys.pilot_mixture_key(key)
        density = fitted_mixture(mixture, x, self.components, floor, SEPARATING_SWEEPS)
        return replicate(jax.tree.map(np.asarray, density), self.mesh)

    def mass_seen(self, key, density: Density, values: Callable) -> tuple[float, float]:
        """The integral of |values(x)| by points of the density, and its standard error."""
        points = self.draw(key, density, PILOT_POINTS)
        parts = points.measure * _sizes(pointwise(self.mesh, lambda _, x: values(x))(None, points.x))
        sums = whole_program(self.mesh, lambda parts: (jnp.sum(parts), jnp.sum(parts**2)), P())
        mass, squares = map(float, sums(parts))
        return mass, max(squares - mass**2 / PILOT_POINTS, 0.0) ** 0.5

    def broadest(self) -> Density:
        """K equal Gaussians with the centre and the scale of the domain: all that is known before any value of u."""
        k = self.components
        centre, covariance = self.domain.centre, np.diag(self.domain.scale**2)
        parts = np.full(k, 1.0 / k), np.tile(centre, (k, 1)), np.tile(covariance, (k, 1, 1))
        return replicate(Density._make(parts), self.mesh)

    def _split(self, key, density: Density) -> Density:
        """The means moved apart at random, for expectation-maximisation to separate the Gaussians."""
        if self.components == 1:
            return density
        factor = jnp.linalg.cholesky(density.covariances[0])
        offsets = jax.random.normal(key, density.means.shape) @ factor.T
        return density._replace(means=density.means + offsets)

    # A draw -------------------------------------------------------------------------------------------

    def draw_traced(self, key, density: Density, *, n: int) -> Points:
        """As ``draw``, inside a compiled function."""
        d = self.domain.dimension
        # All random numbers by one call: each call is a program of its own, which takes longer to build than to run.
        random = jax.random.uniform(key, (n + 1, 2 * d), minval=2.0**-53)
        inflated = density._replace(covariances=density.covariances * inflation(self.settings))
        parts = self._choose_parts(density.weights, random[n, 0], n)
        for_normals, for_uniforms = random[:n, :d], random[:n, d:]
        if d <= MOST_DIMENSIONS:
            for_normals, for_uniforms = _spread_evenly(random[n], for_uniforms, parts.part)
        z = np.sqrt(2) * jax.lax.erf_inv(2 * for_normals - 1)
        factors = cholesky_factors(inflated.covariances)
        gaussian = transformed_normals(density.means, factors, jnp.maximum(parts.part - 1, 0), z)
        if self.domain.bounded:
            x, intensity = self._with_uniform_part(gaussian, for_uniforms, parts)
        elif self.domain.bounded_axes:
            component = jnp.where(parts.part == 0, self._broad_component(inflated, parts), parts.part - 1)
            wide = inflated._replace(covariances=BROAD * inflated.covariances)
            x, intensity = with_product_part(self.domain, gaussian, for_uniforms, parts.part == 0, component, wide)
        else:
            x, intensity = self._with_broad_part(gaussian, z, inflated, factors, parts)
        kernels = component_log_densities(inflated, x)
        intensity = intensity + jnp.sum(parts.counts[1:] * jnp.exp(kernels), axis=-1)
        return pad(self._weighted(x, 1.0 / intensity), multiple_of_points(self.mesh))

    def _uniform_share(self) -> float:
        return uniform_fraction(self.settings, field=self.squares and bool(self.domain.bounded_axes))

    def _choose_parts(self, weights, shift, n: int) -> _Parts:
        """A stratified choice: the counts are within one of the expected numbers. shift: uniform on (0, 1)."""
        share = self._uniform_share()
        shares = jnp.concatenate([jnp.array([share]), (1 - share) * weights])
        position = (jnp.arange(n) + shift) / n  # beside a sequence, i / n is as evenly spread as the sequence
        part = jnp.searchsorted(jnp.cumsum(shares)[:-1], position, side="right")
        return _Parts(position, part, jnp.sum(part[:, None] == jnp.arange(len(shares)), axis=0))

    def _with_uniform_part(self, gaussian, random, parts: _Parts):
        """In a box: points x (n, d), and the intensity of the uniform ones at x, (n,). random: (n, d)."""
        domain = self.domain
        lower, upper = jnp.asarray(domain.lower), jnp.asarray(domain.upper)
        size = self._box_sizes(parts.position)[:, None]
        uniform = domain.centre + size * (lower - domain.centre + (upper - lower) * random)
        outside = jnp.any((gaussian <= lower) | (gaussian >= upper), axis=-1)
        is_uniform = (parts.part == 0) | outside
        x = jnp.where(is_uniform[:, None], uniform, gaussian)
        return x, jnp.sum(is_uniform) / domain.volume * self._box_density(x)

    def _with_broad_part(self, gaussian, z, inflated: Density, factors, parts: _Parts):
        """On the whole space: points x (n, d), and the intensity of those from the broad Gaussians at x, (n,)."""
        component = self._broad_component(inflated, parts)
        broad = transformed_normals(inflated.means, jnp.sqrt(BROAD) * factors, component, z)
        x = jnp.where((parts.part == 0)[:, None], broad, gaussian)
        wide = inflated._replace(covariances=BROAD * inflated.covariances)
        return x, parts.counts[0] * jnp.exp(log_mixture(wide, x))

    def _broad_component(self, density: Density, parts: _Parts):
        """For points of the part 0, whose broad copy of a Gaussian they come from: (n,)."""
        cumulative = jnp.cumsum(density.weights)[:-1]
        return jnp.searchsorted(cumulative, parts.position / self._uniform_share(), side="right")

    def _weighted(self, x, measure) -> Points:
        n = len(x)
        equal = self.log_density or self.settings.nested_fraction > 0
        return Points(x, jnp.full(n, 1.0 / n) if equal else measure / jnp.sum(measure), measure)

    def _box_sizes(self, random):
        """Relative sizes of the boxes about the centre that uniform points are drawn from, (n,).

        random: (n,) in (0, 1). Sizes are uniform on (0, 1) for the share nested_fraction, else 1.
        """
        share = self.settings.nested_fraction
        return jnp.where(random < share, random / max(share, 1e-300), 1.0)

    def _box_density(self, x):
        """The density of points from these boxes over that of uniform points, at x (n, d): (n,).

        A box of relative size s has s^-d times the density, and contains x if s > r, r = max_i |x_i - c_i| / scale_i.
        """
        share, d = self.settings.nested_fraction, self.domain.dimension
        if share == 0:
            return 1.0
        r = jnp.max(jnp.abs(x - self.domain.centre) / self.domain.scale, axis=-1)
        nested = -jnp.log(r) if d == 1 else (r ** (1 - d) - 1) / (d - 1)  # int_r^1 s^-d ds
        return 1 - share + share * nested

    # A fit of the density -----------------------------------------------------------------------------

    def _fit(self, density: Density, points: Points, values, sweeps) -> Density:
        """The density after so many sweeps of expectation-maximisation towards |values|, values (n, m) at the points.

        With ``squares`` it is fitted to |values|^2 and its covariances are doubled, which for a Gaussian is the same:
        for a field u that has small errors everywhere. In three dimensions a thousandth of the peak all over the box
        dominates the integral of |u| beside a pulse of width 0.05, and hardly contributes to that of |u|^2 (measured
        for wave_3d: coverage 0.03 to 0.08 with |u|, 0.5 with |u|^2).

        The density is returned unchanged where the draw does not determine it: values that vanish or are not finite,
        or too few points with a share of the mass.
        """
        power = 2 if self.squares else 1
        masses = points.measure * jnp.linalg.norm(values.astype(jnp.float64), axis=-1) ** power
        total = jnp.sum(masses)
        masses = jnp.where(total > 0, masses / jnp.where(total > 0, total, 1.0), 0.0)
        floor = jnp.diag(jnp.asarray((SMALLEST_WIDTH * self.domain.scale) ** 2))
        effective = 1.0 / jnp.sum(jnp.where(total > 0, masses, 1.0) ** 2)
        fitted = maximise_likelihood(density, points.x, masses, floor, sweeps, power)
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in fitted]))
        # d + 1 points span a covariance; twice as many effective points are the least that determine it.
        trusted = finite & (total > 0) & (effective > 2 * (self.domain.dimension + 1))
        return jax.tree.map(lambda new, old: jnp.where(trusted, new, old), fitted, density)


def _sizes(values):
    """|values| at every point: (n, m) -> (n,)."""
    return jnp.linalg.norm(values.astype(jnp.float64), axis=-1)


def _spread_evenly(shifts, independent, part):
    """Numbers for normal and for uniform points from low-discrepancy sequences, (n, d) both. shifts: (2 d,).

    Uniform points that replace a Gaussian draw outside the box keep the independent numbers (n, d): those of the
    sequence would be the piece of it that belongs to the draws outside.
    """
    n, d = independent.shape
    for_normals = shifted_sequence(shifts[:d], n)
    return for_normals, jnp.where((part == 0)[:, None], shifted_sequence(shifts[d:], n), independent)
