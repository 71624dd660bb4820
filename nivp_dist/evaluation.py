"""The errors that a run reports: against the problem's reference, on points of their own."""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.cluster.mesh import to_host
from nivp_dist.problems.base import Problem, evaluate_reference, has_reference
from nivp_dist.problems.domains import WholeSpace
from nivp_dist.sampling import Density, Sampler

SCORE_KEY = 7919  # the points that judge never meet the points that were fitted


class Score(NamedTuple):
    """At one time: relative L2 error (NaN without a reference) and moments of the solution.

    On a box the error is that of L2 over the domain; on the whole space both norms are weighted by the
    reference, sqrt(E_r |u - r|^2 / E_r r^2). Integrals are importance-sampled from the run's own density.
    """

    relative_l2: float
    mass: float
    mean: np.ndarray  # (d,)
    covariance: np.ndarray  # (d, d)


class Scorer:
    """Scores of one run."""

    def __init__(self, problem: Problem, network, sampler: Sampler, points: int, seed: int):
        self.problem, self.network, self.points = problem, network, points
        self.key = jax.random.fold_in(jax.random.key(seed), SCORE_KEY)
        # Every process holds all the points: the reference is computed on the host, by each for itself.
        everywhere = NamedSharding(sampler.mesh, P())

        def evaluate(key, density, theta):
            drawn = sampler._draw(key, density, n=points)
            return drawn.x, drawn.measure, network.values(theta, drawn.x)

        self._evaluate = jax.jit(evaluate, out_shardings=everywhere)

    def score(self, theta, density: Density, t: float, number: int) -> Score:
        """At time t, the number-th output."""
        x, measure, u = map(to_host, self._evaluate(jax.random.fold_in(self.key, number), density, theta))
        x, measure, u = x[: self.points], measure[: self.points], np.asarray(u[: self.points], np.float64)
        error = np.nan
        if has_reference(self.problem, t):
            reference = evaluate_reference(self.problem, x, t)
            weight = measure[:, None] * np.abs(reference if isinstance(self.problem.domain, WholeSpace) else 1.0)
            misfit = u[:, : reference.shape[1]] - reference
            error = float(np.sqrt(np.sum(weight * misfit**2) / np.sum(weight * reference**2)))
        mass_at = measure * u[:, 0]
        mass = float(np.sum(mass_at))
        mean = mass_at @ x / mass
        centred = x - mean
        covariance = (mass_at[:, None] * centred).T @ centred / mass
        return Score(error, mass, mean, covariance)
