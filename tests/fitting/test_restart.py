"""Each reason to refit, and each reason not to."""

import pytest

from nivp_dist.fitting.restart import Health, reason_to_refit
from nivp_dist.settings.model import RestartSettings

SETTINGS = RestartSettings(cg_growth=4, residual_growth=20, step_shrink=50, cooldown_steps=10)
WELL = Health(cg_iterations=20, residual=1e-3, h=1e-2)


def reason(now, baseline=WELL, steps=10, elapsed=0.1, **changes):
    return reason_to_refit(SETTINGS.model_copy(update=changes), now, baseline, steps, elapsed)


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


def test_elapsed_time():
    assert reason(WELL, elapsed=1e6) is None
    assert reason(WELL, every=0.5, elapsed=0.49) is None
    assert "t advanced" in reason(WELL, every=0.5, elapsed=0.5)
    assert "t advanced" in reason(WELL, baseline=None, steps=1, every=0.5, elapsed=0.5)  # it waits for no steps
    assert reason(WELL, every=0.5, elapsed=0.5, enabled=False) is None


def test_small_numbers_do_not_count():
    # From 1 to 30 iterations, or from a residual of 1e-6 to 1e-4, nothing is wrong yet.
    assert reason(WELL._replace(cg_iterations=30), WELL._replace(cg_iterations=1)) is None
    assert reason(WELL._replace(residual=1e-4), WELL._replace(residual=1e-6)) is None
    # Direct solvers make no iterations at all.
    assert reason(WELL._replace(cg_iterations=100), WELL._replace(cg_iterations=0)) is None
