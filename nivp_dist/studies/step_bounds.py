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


def cut(metrics: Metrics, ends: Sequence[float], max_step: float) -> np.ndarray:
    """Whether each step (steps,) was cut to meet one of the times `ends`, those of outputs and t_end, or to max_step.

    A step that ends at such a time was, and the first of the two halves of what was left up to there.
    """
    t, h = metrics["t"], metrics["h"]
    lands = np.array([np.isclose(each, ends, rtol=1e-9, atol=0.0).any() for each in t], bool)
    halves = np.append(lands[1:] & np.isclose(h[:-1], h[1:], rtol=1e-6), False)
    return lands | halves | (h >= max_step * (1 - 1e-9))


def relative(metrics: Metrics, rtol: float, cut: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers that bounds are read from, (steps,) each: h rho over its limit, the part of its norm by which theta
    moves, the share of the change of J in the error, the error over the tolerance, and the growth: the ratio of the
    next step that is not cut to this one, NaN for those that are."""
    sizes = np.where(metrics["theta_norm"] > 0, metrics["theta_norm"], 1.0)
    limits = np.where(np.isnan(metrics["h_rho_limit"]), np.inf, metrics["h_rho_limit"])  # infinity is stored as null
    growth, whole, h = np.full(len(cut), np.nan), np.flatnonzero(~cut), metrics["h"]
    growth[whole[:-1]] = h[whole[1:]] / h[whole[:-1]]  # after a cut the step size is that before it
    return {
        "stability": metrics["h_rho"] / limits,
        "motion": metrics["theta_step"] / sizes,
        "jacobian_share": metrics["jacobian_share"],
        "error": metrics["error"] / rtol,
        "growth": growth,
    }


def bounds(numbers: Mapping[str, np.ndarray], cut: np.ndarray) -> list[str]:
    """The bound of every step, one of BOUNDS. numbers: those of ``relative``.

    A step that was cut has OUTPUTS. Of the others stability comes first, then nonlinearity. In steps that are bound by
    neither and do not grow it is the error that keeps them, which is that of the solution: accuracy.
    """
    found = []
    for step in range(len(cut)):
        near = slice(max(0, step - ENOUGH // 2), step + ENOUGH // 2 + 1)
        found.append(OUTPUTS if cut[step] else _bound({name: values[near] for name, values in numbers.items()}))
    return found


def _bound(near: dict[str, np.ndarray]) -> str:
    """The bound of steps that are near each other."""
    recent = _series(near)
    if bound_by_stability(recent):
        return STABILITY
    if bound_by_nonlinearity(recent):
        return NONLINEARITY
    known = near["growth"][~np.isnan(near["growth"])]
    return NOTHING if len(known) and np.median(known) >= GROWS else ACCURACY


def _series(near: dict[str, np.ndarray]) -> StepSeries:
    """The same steps as the findings see them; what those of FINDINGS do not look at is not known."""
    known = {name: near[name] for name in ("stability", "motion", "jacobian_share")}
    missing = np.full(len(near["motion"]), np.nan)
    return StepSeries(**(dict.fromkeys(StepSeries._fields, missing) | known))
