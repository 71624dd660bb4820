"""Findings: a function each, which says what bounds the step size of a run in which nothing fails.

Each takes a StepSeries and returns a message or None, as the failure signatures do.
"""

import numpy as np

from nivp_dist.monitoring.step_series import StepSeries

# What bounds the step size. Runs at the limit of stability have medians of 0.55 to 1.1 of it, because rho changes with
# the points of each step (stiff diffusion on a line); a wave has 0.2, Allen-Cahn 0.1.
AT_STABILITY_LIMIT = 0.5  # median of h rho over its limit
# Medians of |theta_new - theta| / |theta_new|: waves 0.04 to 0.08, a trap 0.2, Allen-Cahn 0.01, diffusion up to 0.02.
# Means of the share: the first steps of the shipped wave and trap 0.3, diffusion 0.15, Allen-Cahn 0.04.
LARGE_MOTION, LARGE_SHARE = 0.03, 0.25


def bound_by_stability(recent: StepSeries) -> str | None:
    """The step size is the largest at which the pair is stable, whatever the tolerance."""
    reached = np.median(recent.stability)
    if not reached >= AT_STABILITY_LIMIT:  # nor where it is NaN, as for implicit steps
        return None
    return (
        f"steps are bound by stability: h rho is {reached:.1f} times its limit, in the median of {len(recent.h)} "
        "steps; a smaller integrator.rtol costs few steps and a larger one saves few; integrator.method = 'bdf' takes "
        "longer ones ('sdirk' for dispersion), and so does a larger solver.mu, with a larger residual"
    )


def bound_by_nonlinearity(recent: StepSeries) -> str | None:
    """Theta moves so far in a step that J changes."""
    motion, share = np.median(recent.motion), np.mean(recent.jacobian_share)
    if motion < LARGE_MOTION or not share >= LARGE_SHARE or np.median(recent.stability) >= AT_STABILITY_LIMIT:
        return None
    return (
        f"steps are bound by the nonlinearity of theta: a step moves it by {100 * motion:.2g} % of its norm, and the "
        f"change of J meanwhile is {100 * share:.0f} % of its error, on average; a larger integrator.rtol or solver.mu "
        "makes steps longer"
    )


FINDINGS = (bound_by_stability, bound_by_nonlinearity)
