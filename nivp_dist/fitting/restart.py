"""When to refit: decided by the state of the run alone, so that a run repeats exactly.

Health at the last step is compared with a baseline, the health soon after the last fit or refit attempt.
"""

from typing import NamedTuple

from nivp_dist.settings.model import RestartSettings


class Health(NamedTuple):
    """Numbers that get worse as the parameters drift to where they represent the solution badly.

    Attributes:
        cg_iterations: per velocity. residual: |J v - f| / |f| on fresh points. h: the length of the step.
    """

    cg_iterations: float
    residual: float
    h: float


def reason_to_refit(
    settings: RestartSettings, now: Health | None, baseline: Health | None, steps: int, elapsed: float
) -> str | None:
    """Why the network should be replaced by a fresh one now, or None.

    Args:
        now: health at the last step. baseline: health a few steps after the last fit or refit attempt. Each is None as
            long as it is not known.
        steps, elapsed: accepted steps and time t since that fit or attempt. The steps count for reasons of health; a
            refit that is asked for by restart.every waits for none.
    """
    if not settings.enabled:
        return None
    if settings.every is not None and elapsed >= settings.every:
        return f"t advanced by {elapsed:.3g} since the last fit"
    if now is None or baseline is None or steps < settings.cooldown_steps:
        return None
    if baseline.cg_iterations >= 1 and now.cg_iterations > settings.cg_growth * max(baseline.cg_iterations, 10):
        return f"CG iterations grew from {baseline.cg_iterations:.0f} to {now.cg_iterations:.0f} per velocity"
    if now.residual > settings.residual_growth * baseline.residual and now.residual > 1e-2:
        return f"the residual on fresh points grew from {baseline.residual:.1e} to {now.residual:.1e}"
    if now.h < baseline.h / settings.step_shrink:
        return f"the step size fell from {baseline.h:.1e} to {now.h:.1e}"
    return None
