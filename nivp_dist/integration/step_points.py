"""The collocation points of a step, the fresh points on which its residual is checked, and the density of both."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.mesh import AXIS, whole_program
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.points import selection
from nivp_dist.points.mixture import Density
from nivp_dist.points.paths import Ends, Paths
from nivp_dist.points.points import Points
from nivp_dist.points.sampling import Sampler
from nivp_dist.settings.automatic import inflation, number_of_points, uniform_fraction
from nivp_dist.settings.model import SamplingSettings

DENSITY_SWEEPS = 3  # of expectation-maximisation at a step: the density moves little between two steps


class Present(NamedTuple):
    """The solution that points are drawn for: theta (p,) at t, its density and that of u0.

    velocity: (p,), whose residual the points follow; zeros where none is known.
    """

    theta: jax.Array
    t: float
    velocity: jax.Array
    density: Density
    initial_density: Density


class StepPoints:
    """Draws the points of the steps of one run, as sampling.method says.

    Attributes, compiled programs:
        select_by_residual, select_by_solution: (key, candidates, squares (N,) or field (N, m), n) -> Points, n of them.
    """

    def __init__(self, settings: SamplingSettings, sampler: Sampler, galerkin: Galerkin, t_start: float = 0.0):
        self.settings, self.sampler, self.galerkin = settings, sampler, galerkin
        mesh, split = galerkin.mesh, P(AXIS)
        self.select_by_residual = whole_program(mesh, self._by_residual, split, static_argnames="n")
        self.select_by_solution = whole_program(mesh, self._by_solution, split, static_argnames="n")
        self._at_ends = whole_program(mesh, _at_ends, split)
        self.paths = Paths(galerkin.problem, sampler, t_start) if settings.method == "paths" else None

    def draw(self, present: Present, key, n: int) -> Points:
        """n points for a step, as sampling.method says."""
        if self.settings.method != "residual":
            return self._without_residual(present, key, n)
        candidates = self._candidates(present, key, n)
        squares = self.galerkin.residual_squares(present.theta, present.t, present.velocity, candidates)
        return self.select_by_residual(random_keys.residual_selection_key(key), candidates, squares, n=n)

    def draw_for_check(self, present: Present, key) -> Points:
        """Points that no velocity was fitted to: a quarter of sampling.points, or up to 1000 of them."""
        n = number_of_points(self.settings)
        return self._without_residual(present, key, min(n, max(1000, n // 4)))

    def follow(self, density: Density, points: Points, theta, t: float) -> Density:
        """The density moved to the solution that theta represents at time t, by its values on the points."""
        if self.settings.method == "uniform":
            return density
        return self.sampler.fit(density, points, self.galerkin.values(theta, t, points.x), sweeps=DENSITY_SWEEPS)

    def _without_residual(self, present: Present, key, n: int) -> Points:
        """n points by the density, by the network itself ('solution'), or at the ends of paths ('paths')."""
        if self.paths is not None:
            ends = self.paths.draw(key, present.initial_density, present.t, n)
            return self._at_ends(ends, self.galerkin.field(present.theta, ends.x))
        if self.settings.method != "solution":
            return self.sampler.draw(key, present.density, n)
        candidates = self._candidates(present, key, n)
        field = self.galerkin.field(present.theta, candidates.x)
        return self.select_by_solution(random_keys.solution_selection_key(key), candidates, field, n=n)

    def _candidates(self, present: Present, key, n: int) -> Points:
        return self.sampler.draw(key, present.density, n * self.settings.oversampling)

    def _by_residual(self, key, candidates, squares, *, n):
        return selection.select_by_residual(key, candidates, squares, n, self.galerkin.mesh)

    def _by_solution(self, key, candidates, field, *, n):
        network, settings = self.galerkin.network, self.settings
        logs = field[:, 0] if network.log_density else jnp.log(jnp.linalg.norm(field, axis=-1))
        return selection.select_by_solution(
            key,
            candidates,
            logs,
            n,
            self.galerkin.mesh,
            power=1 / inflation(settings),
            share=uniform_fraction(settings, field=False),
            log_density=network.log_density,
        )


def _at_ends(ends: Ends, field) -> Points:
    """Points of equal weights at the ends of paths, for a field log u (n, 1).

    The measure of a sample of u is one over u, which the network gives. The density of the ends in the tails is not
    known: they do not count in integrals.
    """
    logs = field[:, 0].astype(jnp.float64)
    counted = ends.is_sample & ends.is_drawn
    measure = jnp.where(counted, jnp.exp(-logs), 0.0) / jnp.sum(counted)
    return Points(ends.x, ends.is_drawn / jnp.sum(ends.is_drawn), measure)
