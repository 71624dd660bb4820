"""The times and the part of the domain that the figures of the solution show."""

import numpy as np

from nivp_dist.problems.domains import Domain
from nivp_dist.run.stored import Run

MAX_TIMES = 4  # the largest number of output times that are shown
REACH = 4.0  # standard deviations on either side of the mean that are shown along a real axis


def chosen_times(times: np.ndarray, most: int = MAX_TIMES) -> np.ndarray:
    """At most so many of the stored times, evenly spread, the first and the last included."""
    return times[np.unique(np.linspace(0, len(times) - 1, min(most, len(times))).round().astype(int))]


def mixture_moments(snapshot: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of the density of the collocation points that is stored in a snapshot."""
    weights, means = snapshot["density_weights"], snapshot["density_means"]
    weights = weights / weights.sum()
    mean = weights @ means
    centred = means - mean
    covariance = np.einsum("k,kij->ij", weights, snapshot["density_covariances"]) + (weights * centred.T) @ centred
    return mean, covariance


def mixture_window(snapshot: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (d,): REACH standard deviations of the density of points around its mean."""
    mean, covariance = mixture_moments(snapshot)
    reach = REACH * np.sqrt(np.diag(covariance))
    return mean - reach, mean + reach


def window(run: Run, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper bounds of what is shown at time t, and the mean of the density of points, each (d,).

    Along a bounded axis it is the whole axis, along a real one what ``mixture_window`` gives.
    """
    return window_of(run.problem.domain, run.snapshot(t))


def window_of(domain: Domain, snapshot: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same, from the density of points that is stored in a snapshot."""
    mean, _ = mixture_moments(snapshot)
    low, high = mixture_window(snapshot)
    bounded = np.isin(np.arange(domain.dimension), domain.bounded_axes)
    lower, upper = np.where(bounded, domain.lower, low), np.where(bounded, domain.upper, high)
    return lower, upper, np.clip(mean, domain.lower, domain.upper)
