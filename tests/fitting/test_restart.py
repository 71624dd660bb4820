"""Each reason to refit, and each reason not to."""

import pytest

from nivp_dist.fitting.restart import Health, next_refit_time, reason_to_refit, step_end
from nivp_dist.settings.fits import RestartSettings

SETTINGS = RestartSettings(cg_growth=4, residual_growth=20, step_shrink=50, cooldown_steps=10)
WELL = Health(cg_iterations=20, residual=1e-3, h=1e-2)


def reason(now, baseline=WELL, steps=10, t=0.1, fit_t=0.0, **changes):
    return reason_to_refit(SETTINGS.model_copy(update=changes), now, baseline, steps, t, fit_t)


def test_a_healthy_run_goes_on():
    assert reason(WELL) is None
    assert reason(Health(80, 2e-2, 2e-4)) is None  # exactly at every threshold


@pytest.mark.parametrize(
    "now, words",
    [
        (WELL._replace(cg_iterations=81), "CG iterations"),
        (WELL._replace(residual=2.1e-2), "residual on fresh points"),
        (WELL._replace(h=1.9e-4), "step size"),
    ],
)
def test_each_trigger(now, words):
    assert words in reason(now)
    assert reason(now, enabled=False) is None
    assert reason(now, steps=9) is None
    assert reason(now, baseline=None) is None


def test_the_age_of_the_network():
    assert reason(WELL, t=1e6) is None
    assert reason(WELL, max_age=0.5, t=0.74, fit_t=0.25) is None
    assert "t advanced by 0.5" in reason(WELL, max_age=0.5, t=0.75, fit_t=0.25)
    assert "t advanced" in reason(WELL, baseline=None, steps=1, max_age=0.5, t=0.5)  # it waits for no steps
    assert reason(WELL, max_age=0.5, t=0.5, enabled=False) is None


def test_multiples_of_a_time():
    """A refit for another reason moves none of them, and at one of them it takes its place."""
    assert reason(WELL, every=0.5, t=0.49) is None
    assert "restart.every" in reason(WELL, baseline=None, steps=1, every=0.5, t=0.5)
    assert "restart.every" in reason(WELL, every=0.5, t=0.5, fit_t=0.49)
    assert reason(WELL, every=0.5, t=0.51, fit_t=0.5) is None
    assert reason(WELL, every=0.5, t=0.5, enabled=False) is None


@pytest.mark.parametrize("every", [0.1, 0.05, 0.3, 1 / 3, 1e-3, 7.0])
def test_no_multiple_is_left_out_or_taken_twice(every):
    settings = SETTINGS.model_copy(update={"every": every})
    t, times = 0.0, []
    while len(times) < 1000:
        t = step_end(settings, t, output=1e9)
        assert reason(WELL, every=every, t=t, fit_t=times[-1] if times else 0.0)
        times.append(t)
    assert times == pytest.approx([every * k for k in range(1, 1001)], rel=1e-12)


def test_a_step_ends_at_the_output_or_the_refit_that_comes_first():
    settings = SETTINGS.model_copy(update={"every": 0.1})
    assert step_end(settings, 0.0, output=0.05) == 0.05
    assert step_end(settings, 0.0, output=0.15) == next_refit_time(settings, 0.0) == 0.1
    # 3 * 0.1 is above 0.3 by rounding: the output and the refit are at one time.
    assert next_refit_time(settings, 0.2) == 0.30000000000000004
    assert step_end(settings, 0.2, output=0.3) == 0.3 and reason(WELL, every=0.1, t=0.3, fit_t=0.2)
    assert next_refit_time(settings, 0.3) == pytest.approx(0.4)
    assert step_end(SETTINGS, 0.0, output=0.7) == 0.7  # no refit is asked for
    assert step_end(settings.model_copy(update={"enabled": False}), 0.0, output=0.7) == 0.7


def test_small_numbers_do_not_count():
    # From 1 to 30 iterations, or from a residual of 1e-6 to 1e-4, nothing is wrong yet.
    assert reason(WELL._replace(cg_iterations=30), WELL._replace(cg_iterations=1)) is None
    assert reason(WELL._replace(residual=1e-4), WELL._replace(residual=1e-6)) is None
    # Direct solvers make no iterations at all.
    assert reason(WELL._replace(cg_iterations=100), WELL._replace(cg_iterations=0)) is None
