"""When to refit: a function of the run's state alone, so that a run repeats exactly."""

from typing import NamedTuple

from nivp_dist.settings.model import RestartSettings


class Health(NamedTuple):
    """How the parametrisation is doing: CG iterations a velocity, residual on fresh points, step size."""

    cg_iterations: float
    residual: float
    h: float


def reason_to_refit(
    settings: RestartSettings, now: Health | None, reference: Health | None, steps: int, elapsed: float
) -> str | None:
    """Why the network should be replaced by a fresh one now, or None.

    Args:
        now: at the last step. reference: a few steps after the last fit or refit attempt. None: not known yet.
        steps, elapsed: accepted steps and time t since that fit or attempt.
    """
    if not settings.enabled or now is None or reference is None or steps < settings.cooldown_steps:
        return None
    if settings.every is not None and elapsed >= settings.every:
        return f"t advanced by {elapsed:.3g} since the last one"
    if reference.cg_iterations >= 1 and now.cg_iterations > settings.cg_growth * max(reference.cg_iterations, 10):
        return f"CG iterations grew from {reference.cg_iterations:.0f} to {now.cg_iterations:.0f} a velocity"
    if now.residual > settings.residual_growth * reference.residual and now.residual > 1e-2:
        return f"the residual on fresh points grew from {reference.residual:.1e} to {now.residual:.1e}"
    if now.h < reference.h / settings.step_shrink:
        return f"the step size fell from {reference.h:.1e} to {now.h:.1e}"
    return None
