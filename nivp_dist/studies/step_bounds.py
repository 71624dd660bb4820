"""What bounded the size of each step of a run, read from its metrics.

Stability and the nonlinearity of theta are recognised as the findings of a run are (``monitoring.findings``), in the
steps about each step, because single ones miss the fast modes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nivp_dist.monitoring.findings import bound_by_nonlinearity, bound_by_stability
from nivp_dist.monitoring.signatures import ENOUGH
from nivp_dist.monitoring.step_series import StepSeries

OUTPUTS, STABILITY, NONLINEARITY = "outputs and limits", "stability", "nonlinearity of theta"
ACCURACY, NOTHING = "accuracy", "nothing"
BOUNDS = (STABILITY, NONLINEARITY, ACCURACY, OUTPUTS, NOTHING)
# The growth from step to step from which on nothing bounds them: the errors allow longer ones. Under a constant error
# the proportional-integral control of a pair of order 5 holds the step size at 0.17 of the tolerance, and at 0.08 of it
# the steps grow so.
GROWS = 1.05

Metrics = Mapping[str, np.ndarray]  # name -> (steps,), as ``run.stored.Run.metrics`` gives them


def bounds(metrics: Metrics, ends: Sequence[float], max_step: float) -> list[str]:
    """The bound of every step, one of BOUNDS.

    A step is cut where it ends at a time that has to be met, as are the two halves of what is left up to there. Of the
    others stability comes first, then nonlinearity. In steps that are bound by neither and do not grow it is the error
    that keeps them, which is that of the solution: accuracy.

    Args:
        ends: the times that have to be met: those of outputs, and t_end. max_step: integrator.max_step.
    """
    cut = _cut(metrics["t"], metrics["h"], ends) | (metrics["h"] >= max_step * (1 - 1e-9))
    numbers, growth = _numbers(metrics), _growth(metrics["h"], cut)
    found = []
    for step in range(len(cut)):
        near = slice(max(0, step - ENOUGH // 2), step + ENOUGH // 2 + 1)
        found.append(OUTPUTS if cut[step] else _bound(_series(numbers, near), growth[near]))
    return found


def relative(metrics: Metrics, rtol: float) -> dict[str, np.ndarray]:
    """The numbers that the bounds are read from, (steps,) each: h rho over its limit, the part of its norm by which
    theta moves, the share of the change of J in the error, the error over the tolerance."""
    return _numbers(metrics) | {"error": metrics["error"] / rtol}


def _numbers(metrics: Metrics) -> dict[str, np.ndarray]:
    sizes = np.where(metrics["theta_norm"] > 0, metrics["theta_norm"], 1.0)
    limits = np.where(np.isnan(metrics["h_rho_limit"]), np.inf, metrics["h_rho_limit"])  # infinity is stored as null
    return {
        "stability": metrics["h_rho"] / limits,
        "motion": metrics["theta_step"] / sizes,
        "jacobian_share": metrics["jacobian_share"],
    }


def _bound(recent: StepSeries, growth: np.ndarray) -> str:
    if bound_by_stability(recent):
        return STABILITY
    if bound_by_nonlinearity(recent):
        return NONLINEARITY
    known = growth[~np.isnan(growth)]
    return NOTHING if len(known) and np.median(known) >= GROWS else ACCURACY


def _series(numbers: dict[str, np.ndarray], near: slice) -> StepSeries:
    """The steps near one of them; what the bounds are not read from is not known."""
    known = {name: values[near] for name, values in numbers.items()}
    missing = np.full(len(known["motion"]), np.nan)
    return StepSeries(**(dict.fromkeys(StepSeries._fields, missing) | known))


def _cut(t: np.ndarray, h: np.ndarray, ends: Sequence[float]) -> np.ndarray:
    """Whether each step was cut to meet one of the times."""
    lands = np.isclose(t[:, None], np.asarray(ends)[None], rtol=1e-9, atol=0.0).any(axis=1)
    halves = np.append(lands[1:] & np.isclose(h[:-1], h[1:], rtol=1e-6), False)
    return lands | halves


def _growth(h: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """The ratio of the next step that is not cut to each that is not; NaN for the others, and for the last one."""
    growth, whole = np.full(len(h), np.nan), np.flatnonzero(~cut)
    growth[whole[:-1]] = h[whole[1:]] / h[whole[:-1]]  # after a cut the step size is that before it
    return growth
