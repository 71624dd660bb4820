"""Observables of a stored solution that is a density: means of functions of x, by importance sampling, with errors."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nivp_dist.points import densities
from nivp_dist.problems.domains import Domain

# Effective points (Kish 1965) below which standard errors are not to be relied on: they rest on a few large weights.
FEWEST = 200

Quantity = (
    int | Callable[[np.ndarray], np.ndarray]
)  # the number of a coordinate, or a function of points (n, d) -> (n,)


class Estimate(NamedTuple):
    """Numbers that were found by sampling, and their standard errors, of one shape."""

    value: Any
    error: Any


class StoredDensity:
    """p(x) = u(x) / (integral of u), u the first output of a stored solution.

    Args:
        snapshot: its arrays. u: the solution, points (n, d) -> (n, m).

    Every method draws the same points again for one number of points, so that results at one time are consistent.
    Standard errors are those of ratios of sums over independent points, to first order.
    """

    def __init__(self, snapshot: dict[str, np.ndarray], u: Callable[[np.ndarray], np.ndarray], domain: Domain):
        self._snapshot, self._u, self._domain = snapshot, u, domain
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # number of points -> points and weights

    def expectation(self, f: Callable[[np.ndarray], np.ndarray], points: int) -> Estimate:
        """The integral of f p, for f: points (n, d) -> (n,) or (n, ...)."""
        x, weights = self._weighted_points(points)
        values = np.asarray(f(x), np.float64)
        if values.shape[:1] != (len(x),):
            raise ValueError(f"f must give one value for each of {len(x)} points, got the shape {values.shape}")
        mean = np.tensordot(weights, values, axes=1)
        return Estimate(mean, np.sqrt(np.tensordot(weights**2, (values - mean) ** 2, axes=1)))

    def quantiles(self, quantity: Quantity, levels: Sequence[float] | float, points: int) -> Estimate:
        """The values q at which P(quantity <= q) is each of the levels, which lie between 0 and 1.

        The error is that of the probability at q, carried over to q by the distribution itself (Woodruff 1952).
        """
        p = np.asarray(levels, np.float64)
        if not np.all((p > 0) & (p < 1)):
            raise ValueError(f"levels must lie between 0 and 1, got {p.tolist()}")
        x, weights = self._weighted_points(points)
        values = np.asarray(quantity(x) if callable(quantity) else x[:, quantity], np.float64)
        order = np.argsort(values)
        values, weights = values[order], weights[order]
        # A solution may be slightly negative in places, which would make the distribution function fall there.
        below = np.maximum.accumulate(np.cumsum(weights) - weights / 2)
        squares = np.cumsum(weights**2)
        error = np.sqrt(np.interp(p, below, squares) * (1 - 2 * p) + p**2 * squares[-1])
        low, middle, high = (np.interp(at, below, values) for at in (p - error, p, p + error))
        return Estimate(middle, (high - low) / 2)

    def marginal(self, axes: Sequence[int], edges: Sequence[np.ndarray], points: int) -> Estimate:
        """The marginal density of the coordinates on these axes: its mean over each bin between the edges.

        edges: for each axis an array (bins + 1,). Returns arrays (bins of the first axis, bins of the second, ...).
        """
        x, weights = self._weighted_points(points)
        shares, squares = (np.histogramdd(x[:, axes], edges, weights=w)[0] for w in (weights, weights**2))
        volume = np.ones(())
        for edge in edges:
            volume = np.multiply.outer(volume, np.diff(edge))
        errors = np.sqrt(np.maximum(squares * (1 - 2 * shares) + shares**2 * np.sum(weights**2), 0.0))
        return Estimate(shares / volume, errors / volume)

    def samples(self, n: int, seed: int) -> np.ndarray:
        """n samples (n, d), see ``densities.samples``."""
        return densities.samples(self._snapshot, self._at, n, seed, self._domain)

    def _at(self, x: np.ndarray) -> np.ndarray:
        """u at x (n, d): (n,), zero outside a box."""
        inside, values = self._domain.contains(x), np.zeros(len(x))
        values[inside] = self._u(x[inside])[:, 0]
        return values

    def _weighted_points(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, d) inside of the domain, at most `number`, and weights (n,) of sum one."""
        if number not in self._drawn:
            self._drawn[number] = self._draw(number)
        return self._drawn[number]

    def _draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        x, inverse = densities.draw_points(self._snapshot, number, domain=self._domain)
        inside = self._domain.contains(x)
        x = x[inside]
        mass = self._u(x)[:, 0] * inverse[inside]
        if not np.sum(mass) > 0:
            raise ValueError("the integral of the first output is not positive: it is no density")
        weights = mass / np.sum(mass)
        if (effective := 1 / np.sum(weights**2)) < FEWEST:
            warnings.warn(
                f"only {effective:.0f} of {number} points are effective: the result and its error may be wrong by far; "
                "take more points",
                stacklevel=5,
            )
        return x, weights
