"""When to refit: decided by the state of the run alone, so that a run repeats exactly.

Health at the last step is compared with a baseline, the health soon after the last fit or refit attempt. Besides,
restart.every and restart.max_age ask for refits by the time t.
"""

import math
from typing import NamedTuple

from nivp_dist.settings.fits import RestartSettings
from nivp_dist.settings.output_times import ROUNDING, next_multiple


class Health(NamedTuple):
    """Numbers that get worse as the parameters drift to where they represent the solution badly.

    Attributes:
        cg_iterations: per velocity. residual: |J v - f| / |f| on fresh points. h: the length of the step.
    """

    cg_iterations: float
    residual: float
    h: float


def next_refit_time(settings: RestartSettings, fit_t: float) -> float:
    """The first multiple of restart.every after the last fit or refit attempt, at fit_t; infinite if there is none.

    An attempt that the health asked for does not move the multiples, so that none of them is left out.
    """
    if not settings.enabled or settings.every is None:
        return math.inf
    return next_multiple(settings.every, fit_t)


def step_end(settings: RestartSettings, fit_t: float, output: float) -> float:
    """The time t that the next step must not pass: that of the next output, or of a refit before it.

    A time of a refit at which there is an output but for rounding is that of the output.
    """
    refit = next_refit_time(settings, fit_t)
    return output if output <= refit + ROUNDING * (settings.every or 0.0) else refit


def reason_to_refit(
    settings: RestartSettings, now: Health | None, baseline: Health | None, steps: int, t: float, fit_t: float
) -> str | None:
    """Why the network should be replaced by a fresh one now, or None.

    Args:
        now: health at the last step. baseline: health a few steps after the last fit or refit attempt. Each is None as
            long as it is not known.
        steps: accepted steps since that fit or attempt. They count for reasons of health; a refit that is asked for by
            restart.every or restart.max_age waits for none.
        t: the present time. fit_t: that of the last fit or attempt.
    """
    if not settings.enabled:
        return None
    if settings.every is not None and t >= next_refit_time(settings, fit_t) - ROUNDING * settings.every:
        return f"restart.every = {settings.every:g}"
    if settings.max_age is not None and t - fit_t >= settings.max_age:
        return f"t advanced by {t - fit_t:.3g} since the last fit"
    if now is None or baseline is None or steps < settings.cooldown_steps:
        return None
    if baseline.cg_iterations >= 1 and now.cg_iterations > settings.cg_growth * max(baseline.cg_iterations, 10):
        return f"CG iterations grew from {baseline.cg_iterations:.0f} to {now.cg_iterations:.0f} per velocity"
    if now.residual > settings.residual_growth * baseline.residual and now.residual > 1e-2:
        return f"the residual on fresh points grew from {baseline.residual:.1e} to {now.residual:.1e}"
    if now.h < baseline.h / settings.step_shrink:
        return f"the step size fell from {baseline.h:.1e} to {now.h:.1e}"
    return None
