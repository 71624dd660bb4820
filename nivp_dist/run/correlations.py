"""Paths of particles between two times of a stored run."""

import jax
import numpy as np

from nivp_dist.backend import random_keys
from nivp_dist.points.paths import along
from nivp_dist.problems.base import Problem


def ends_of_paths(problem: Problem, x: np.ndarray, t: float, later: float, steps: int, seed: int) -> np.ndarray:
    """Where particles that are at x (n, d) at time t are at a later time: (n, d), computed by this process alone.

    Raises ValueError if the problem has no drift, or a domain with bounded axes, or if paths are not finite.
    """
    if problem.drift is None or problem.domain.bounded_axes:
        raise ValueError("two_time needs a problem on the WholeSpace that defines drift(x, t)")
    if steps < 1:
        raise ValueError(f"two_time: steps = {steps} must be at least 1")
    if not later >= t:
        raise ValueError(f"two_time: later = {later:g} lies before t = {t:g}")
    key, rows = random_keys.run_key(seed), np.arange(len(x))
    walk = jax.jit(lambda x: along(problem, key, x, rows, t, later, steps))
    ends = np.asarray(walk(np.asarray(x, np.float64)))
    if not np.all(np.isfinite(ends)):
        raise ValueError(f"paths from t = {t:g} to {later:g} are not finite: take more steps than {steps}")
    return ends
