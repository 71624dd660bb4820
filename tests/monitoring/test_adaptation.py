"""The factors on solver.mu and on sampling.points, on made-up histories of steps."""

import numpy as np
from step_records import GOOD_STEP

from nivp_dist.monitoring.adaptation import (
    LARGEST_MU_FACTOR,
    LARGEST_POINT_FACTOR,
    MU_FACTOR,
    OVERFITTED_STEPS,
    SETTLING_STEPS,
    UNTROUBLED_STEPS,
    MuAdaptation,
    PointRefinement,
)
from nivp_dist.monitoring.signatures import StepHistory


def factors(steps, kind=MuAdaptation):
    """The factor after every step."""
    history, state, found = StepHistory.begin(), kind(), []
    for step, record in enumerate(steps, 1):
        history = history.after_step(record, step)[0]
        state = state.after_step(history.recent(), step)
        found.append(state.factor)
    return found


def test_a_good_run_keeps_its_mu():
    assert set(factors([GOOD_STEP] * 40 + [GOOD_STEP._replace(rejected=1)] + [GOOD_STEP] * 5)) == {1.0}


def test_rejections_raise_mu_and_steps_without_lower_it_again():
    failing = GOOD_STEP._replace(rejected=3)
    found = factors([GOOD_STEP] * 5 + [failing] + [GOOD_STEP] * 40)
    assert found[4] == 1 and found[5] == MU_FACTOR
    back = found.index(1.0, 6)
    assert back == 5 + UNTROUBLED_STEPS and set(found[back:]) == {1.0}
    # Two rejections in one step do not raise mu; two in each of two steps do, and one in nearly every step after LONG.
    assert set(factors([GOOD_STEP._replace(rejected=2), *[GOOD_STEP] * 3] * 5)) == {1.0}
    assert factors([GOOD_STEP._replace(rejected=1)] * 30)[6:9] == [1, MU_FACTOR, MU_FACTOR]
    assert MU_FACTOR in factors([GOOD_STEP] * 5 + [GOOD_STEP._replace(rejected=2)] * 2)


def test_mu_is_given_time_and_has_a_limit():
    found = factors([GOOD_STEP._replace(rejected=5)] * 40)
    raised = [step for step in range(1, 40) if found[step] > found[step - 1]]
    assert np.diff(raised).min() >= SETTLING_STEPS and found[-1] == LARGEST_MU_FACTOR


def test_steps_that_shrink_without_a_rejection_raise_mu():
    h, residual = 0.01 * np.exp(-0.3 * np.arange(20)), 1e-3 * np.exp(0.3 * np.arange(20))
    steps = [GOOD_STEP._replace(h=a, residual_fresh=b) for a, b in zip(h, residual)]
    assert factors(steps)[-1] > 1
    # Steps that shrink while the residual stays are due to the solution, not to the solver.
    assert set(factors([step._replace(residual_fresh=1e-3) for step in steps])) == {1.0}


# The factor on the points --------------------------------------------------------------------------


def test_points_are_doubled_while_velocities_fit_their_own_only():
    overfitted = GOOD_STEP._replace(residual=1e-3, residual_fresh=2e-2)
    found = factors([GOOD_STEP] * 20 + [overfitted] * 60, PointRefinement)
    assert set(found[:22]) == {1} and found[22] == 2 and found[-1] == LARGEST_POINT_FACTOR
    # Only the steps since the last change count.
    doubled = found.index(2)
    assert set(found[doubled : doubled + OVERFITTED_STEPS]) == {2}
    mended = factors([GOOD_STEP] * 20 + [overfitted] * (doubled - 19) + [GOOD_STEP] * 60, PointRefinement)
    assert mended[doubled] == 2 and mended[-1] == 2
