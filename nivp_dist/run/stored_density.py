"""What a stored run gives where its first output is a density: means, probabilities, marginals, samples, ..."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nivp_dist.problems.base import Problem
from nivp_dist.run.observables import Estimate, StoredDensity

if TYPE_CHECKING:
    from nivp_dist.run.stored_solution import StoredSolution  # which imports jax

POINTS = 40_000  # that observables are estimated from; standard errors are then about half a percent of a width
PATH_STEPS = 100  # of the paths between two times

Function = Callable[[np.ndarray], np.ndarray]  # of points (n, d)


class DensityRun(ABC):
    """The part of ``run.stored.Run`` that is about densities: p is the first output over its mass."""

    problem: Problem

    @abstractmethod
    def solution(self, t: float) -> "StoredSolution":
        """See ``Run``."""

    @abstractmethod
    def snapshot(self, t: float) -> dict[str, np.ndarray]:
        """See ``Run``."""

    def entropy(self, t: float) -> float:
        """- int p log p at a stored time, p the first output over its mass. Raises ValueError if u is not a density."""
        entropy = float(self.snapshot(t).get("entropy", np.nan))
        if np.isnan(entropy):
            raise ValueError(f"there is no entropy at t = {t:g}: u is not a density (Problem.density)")
        return entropy

    def expectation(self, t: float, f: Function, points: int = POINTS) -> Estimate:
        """The integral of f(x) p(x) at a stored time, p the first output over its mass, and its standard error.

        f: points (n, d) -> (n,), or (n, ...) for several functions at once. points: how many are drawn.
        """
        return self._density(t).expectation(f, points)

    def probability(self, t: float, inside: Function, points: int = POINTS) -> Estimate:
        """The probability of a set at a stored time. inside: points (n, d) -> (n,) booleans."""
        return self._density(t).expectation(lambda x: np.asarray(inside(x), bool), points)

    def quantiles(self, t: float, quantity: int | Function, levels, points: int = POINTS) -> Estimate:
        """The quantiles at a stored time of a coordinate, by its number, or of a function of points (n, d) -> (n,).

        levels: probabilities (k,) between 0 and 1.
        """
        return self._density(t).quantiles(quantity, levels, points)

    def marginal(self, t: float, axis: int | tuple[int, ...], edges, points: int = POINTS) -> Estimate:
        """The marginal density of x_axis at a stored time, mass one: its mean over each bin between edges (k + 1,),
        (k,). For several axes a tuple of their numbers, and one of their edges: (k of the first, k of the second, ...).
        """
        several = isinstance(axis, tuple)
        axes, every = (axis, edges) if several else ((axis,), (edges,))
        return self._density(t).marginal(axes, [np.asarray(one, np.float64) for one in every], points)

    def samples(self, t: float, n: int, seed: int = 0) -> np.ndarray:
        """n samples (n, d) of the first output at a stored time, taken as a density of any mass (``densities``)."""
        return self._density(t).samples(n, seed)

    def two_time(
        self, t: float, later: float, f: Callable, points: int = POINTS, steps: int = PATH_STEPS, seed: int = 0
    ) -> Estimate:
        """The mean of f(x at t, x at a later time), and its standard error: correlations along paths of particles.

        The particles are at a stored time t where the solution is, and move from there by the problem's drift and noise
        (``points.paths.along``, which is of second order in the step).

        Args:
            later: any time from t on. f: two arrays of points (n, d) -> (n,), or (n, ...) for several functions.
            steps: of the paths. seed: of their noise.

        Raises ValueError if the problem has no drift, or a domain with bounded axes, or if paths are not finite.
        """
        from nivp_dist.run.correlations import ends_of_paths

        density = self._density(t)
        return density.expectation(lambda x: f(x, ends_of_paths(self.problem, x, t, later, steps, seed)), points)

    def _density(self, t: float) -> StoredDensity:
        return StoredDensity(self.snapshot(t), self.solution(t), self.problem.domain)
