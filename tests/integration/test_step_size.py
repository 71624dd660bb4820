"""The step-size controller, and steps that end at output times."""

import numpy as np
import pytest

from nivp_dist.integration.step_size import StepControl, fit_to_end

CONTROL = StepControl(order=3, min_step=1e-3, max_step=10.0)


def test_factors_stay_within_their_limits():
    assert CONTROL.accepted(1.0, 0.0, 1.0, False) == 4.0
    assert CONTROL.accepted(1.0, 1e-30, 1e30, False) == 4.0
    assert CONTROL.accepted(5.0, 1e-9, 1.0, False) == 10.0  # max_step
    assert CONTROL.accepted(1.1e-3, 1.0, 1e-4, False) == 1e-3  # min_step
    assert CONTROL.rejected(1.0, 1e30) == pytest.approx(0.2)
    assert CONTROL.rejected(1.0, 1.0 + 1e-12) == pytest.approx(0.9)


def test_no_growth_after_a_rejection():
    assert CONTROL.accepted(1.0, 1e-6, 1.0, False) > 1
    assert CONTROL.accepted(1.0, 1e-6, 1.0, True) == 1.0
    assert CONTROL.accepted(1.0, 0.99, 1.0, True) < 1.0


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_an_error_that_is_not_finite_cuts_by_the_most_allowed(error):
    assert CONTROL.rejected(1.0, error) == pytest.approx(0.2)


def test_control_settles_on_the_tolerance():
    """For error = (h / 0.1)^3 the step tends to the fixed point of its rule."""
    h, previous, history = 1e-2, 1.0, []
    for _ in range(200):
        error = (h / 0.1) ** 3
        if error > 1:
            h = CONTROL.rejected(h, error)
            continue
        h, previous = CONTROL.accepted(h, error, previous, False), error
        history.append(h)
    # Fixed point: 1 = safety * error^(-0.7/3) error^(0.4/3), so that error = safety^10.
    np.testing.assert_allclose(history[-1], 0.1 * (0.9**10) ** (1 / 3), rtol=1e-6)


def test_the_exponents_are_those_of_proportional_integral_control():
    expected = 0.9 * 0.5 ** (-0.7 / 3) * 0.3 ** (0.4 / 3)
    assert CONTROL.accepted(1.0, 0.5, 0.3, False) == pytest.approx(expected, rel=1e-14)
    assert CONTROL.rejected(1.0, 8.0) == pytest.approx(0.45, rel=1e-14)


# Output times ---------------------------------------------------------------------------------------------------------


def test_a_step_far_from_the_output_keeps_its_length():
    assert fit_to_end(1.0, 0.1, 2.0) == (0.1, False)


@pytest.mark.parametrize("h", [0.5, 0.6, 10.0, 0.5 * (1 - 1e-10)])
def test_a_step_that_reaches_the_output_ends_there(h):
    assert fit_to_end(1.5, h, 2.0) == (0.5, True)


def test_two_halves_in_place_of_a_step_and_a_remainder():
    assert fit_to_end(1.0, 0.6, 2.0) == (0.5, False)
    assert fit_to_end(1.5, 0.5, 2.0) == (0.5, True)


def test_a_guessed_step_may_change_by_any_factor():
    """Its error decides alone: of an error that falls with h^3, the step that is asked for meets the tolerance."""
    guessed = CONTROL.without_limits()
    for error in (30.0, 1e7):
        assert guessed.rejected(1.0, error) == pytest.approx(0.9 * error ** (-1 / 3), rel=1e-9)
    assert CONTROL.rejected(1.0, 1e7) == 0.2 == guessed.rejected(1.0, np.inf)
    assert guessed.accepted(0.01, 1e-7, 1.0, False) == pytest.approx(0.009 * 1e-7 ** (-0.7 / 3), rel=1e-9)
    assert CONTROL.accepted(0.01, 1e-7, 1.0, False) == 0.04
