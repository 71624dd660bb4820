"""Failure signatures and findings on made-up histories, each with one kind of failure or one bound of the step size."""

import numpy as np
import pytest
from step_records import GOOD_STEP

from nivp_dist.monitoring.findings import FINDINGS
from nivp_dist.monitoring.signatures import ENOUGH, SIGNATURES, WINDOW, StepHistory, thirds
from nivp_dist.monitoring.step_series import StepSeries

RISING = np.geomspace(1, 10, WINDOW)
ALTERNATING = np.arange(WINDOW) % 2

FAILURES = {
    "iterations_grow": ({"iterations": 20 * RISING}, "conditioning: CG iterations grow.*restart.cg_growth.*solver.mu"),
    "steps_rejected": (
        {"rejected": ALTERNATING + 0.0},
        "stiffness: 12 rejected attempts in 24 steps.*network.frequencies",
    ),
    "steps_collapse": ({"h": 0.01 / RISING**3}, "stiffness: the step size fell from 1.0e-02 to .*integrator.rtol"),
    "residual_stays_large": (
        {"residual": 0.1, "residual_fresh": 0.12},
        "capacity: .* stays at 1.2e-01; .*network.width",
    ),
    "residual_grows": (
        {"residual": 1e-3 * RISING, "residual_fresh": 2e-3 * RISING},
        "capacity: the residual on fresh points grows, from 2.8e-03 to .*restart.residual_growth",
    ),
    "points_overfitted": ({"residual_fresh": 2e-2, "residual": 1e-3}, "points: .* 1.0e-03 on .* 2.0e-02 on fresh"),
    "points_miss_the_solution": ({"coverage": 0.004}, "points: of 100 points only 0.4 lie .*sampling.components"),
    "velocities_turn": (
        {"turn": np.where(ALTERNATING, -0.5, 0.5)},
        "oscillation: .* turned back in 12 of 24.*network.alpha",
    ),
    "bound_by_stability": (
        {"stability": np.where(ALTERNATING, 0.6, 1.4), "motion": 0.1, "jacobian_share": 0.9},
        "bound by stability: h rho is 1.0 times its limit, in the median of 24 steps; .*integrator.rtol.*solver.mu",
    ),
    "bound_by_nonlinearity": (
        {"motion": 0.07, "jacobian_share": 0.93},
        "bound by the nonlinearity of theta: .* 7 % of its norm, .* 93 % of its error.*integrator.rtol or solver.mu",
    ),
}


def series(changes: dict) -> StepSeries:
    columns = GOOD_STEP._asdict() | changes
    return StepSeries(*(np.broadcast_to(np.asarray(column, float), (WINDOW,)) for column in columns.values()))


def seen(recent: StepSeries) -> dict:
    found = {signature.__name__: signature(recent) for signature in (*SIGNATURES, *FINDINGS)}
    return {name: message for name, message in found.items() if message is not None}


def test_a_solution_that_overflows_is_named():
    (message,) = seen(series({"coverage": np.where(ALTERNATING, np.nan, 0.5)})).values()
    assert message.startswith("points: the solution has grown without bound") and "nan" not in message


def test_a_good_run_has_no_signature():
    assert seen(series({})) == {}
    # Nor has a run that gets better, nor one whose numbers are noisy.
    assert seen(series({"residual_fresh": 4e-2 / RISING, "residual": 4e-2 / RISING, "iterations": 200 / RISING})) == {}
    noise = np.exp(0.3 * np.random.default_rng(0).standard_normal((3, WINDOW)))
    noisy = {"residual_fresh": 1e-3 * noise[0], "iterations": 30 * noise[1], "h": 0.01 * noise[2]}
    assert seen(series(noisy)) == {}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_has_its_signature_and_no_other(name):
    """A finding is not a failure, but is recognised in the same way."""
    changes, message = FAILURES[name]
    found = seen(series(changes))
    assert set(found) == {name}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found[name])


def test_every_signature_has_its_failure():
    assert {signature.__name__ for signature in (*SIGNATURES, *FINDINGS)} == set(FAILURES)


@pytest.mark.parametrize("symptom", [{"iterations": 20 * RISING}, {"residual_fresh": 1e-3 * RISING}])
def test_small_steps_beside_a_rising_residual_are_conditioning(symptom):
    for small in ({"h": 0.01 / RISING**3}, {"rejected": ALTERNATING + 0.0}):
        messages = seen(series(small | symptom))
        assert any("and the residual or the CG iterations rise; try a larger solver.mu" in m for m in messages.values())
        assert not any(message.startswith("stiffness") for message in messages.values())


def test_advice_names_settings_that_exist():
    import re

    from nivp_dist.settings.keys import known_keys, sections

    for changes, _ in FAILURES.values():
        for message in seen(series(changes)).values():
            keys = re.findall(rf"(?:{'|'.join(sections()[::-1])})\.\w+", message)  # restart.fit before restart
            assert keys and set(keys) <= set(known_keys())


def follow(history, steps, start=1):
    """The history after steps, and (step, message) of all messages."""
    found = []
    for step, record in enumerate(steps, start):
        history, messages, findings = history.after_step(record, step)
        found += [(step, message) for message in messages + findings]
    return history, found


def test_a_signature_gives_one_message_per_occurrence():
    failing, good = GOOD_STEP._replace(coverage=0.001), GOOD_STEP
    history, messages = follow(StepHistory.begin(), [failing] * 60)
    assert [step for step, _ in messages] == [ENOUGH]  # the first step at which it may, and never again while it lasts
    history, messages = follow(history, [good] * 20, start=61)
    assert messages == []
    _, messages = follow(history, [failing] * 30, start=81)  # it was absent for less than a window
    assert messages == []
    history, messages = follow(history, [good] * (2 * WINDOW), start=81)
    _, messages = follow(history, [failing] * 40, start=200)
    assert len(messages) == 1 and messages[0][0] > 200


def test_a_refit_starts_another_history():
    history, _ = follow(StepHistory.begin(), [GOOD_STEP._replace(rejected=1, unsolved=1)] * (ENOUGH - 1))
    assert len(history.recent().h) == ENOUGH - 1 and history.unsolved()
    history = history.after_fit()
    assert len(history.recent().h) == 0 and not history.unsolved()
    assert follow(history, [GOOD_STEP._replace(rejected=1)] * (ENOUGH - 1))[1] == []


def test_a_first_velocity_has_no_angle_to_one_before():
    history, messages = follow(StepHistory.begin(), [GOOD_STEP._replace(turn=np.nan)] * 20)
    assert len(history.recent().h) == 20 and messages == []


def test_steps_on_kept_points_have_no_residual_of_their_own():
    kept = np.where(ALTERNATING, np.nan, 1e-3)
    found = seen(series({"residual_fresh": 2e-2, "residual": kept}))
    assert set(found) == {"points_overfitted"} and "1.0e-03" in found["points_overfitted"]
    assert seen(series({"residual": np.nan, "residual_fresh": 2e-2})) == {}


def test_thirds_are_medians():
    assert thirds(np.array([1, 100, 3, 4, 5, 6, 9, 9, 0.0])) == (3, 5, 9)


# A large residual: staying, falling, and at the start ----------------------------------------------------------------

STAYS = "capacity: the residual on fresh points stays at"
# The first steps of the configuration fokker_planck_trap_5d, whose solution has a boundary layer at first.
LAYER_H = [4.0, 4.0, 5.6, 4.9, 6.5, 7.3, 8.9, 10, 13, 15, 17, 21, 25, 34, 43, 57, 68, 100, 140, 200, 250]
LAYER_RESIDUAL = [271, 278, 276, 228, 210, 198, 214, 202, 187, 175, 147, 156, 126, 121, 93, 76, 59, 43, 25, 13, 5.4]


def capacity_messages(h, residual):
    """(step, message) of the signature of a residual that stays large, along a run."""
    steps = [GOOD_STEP._replace(h=a, residual=b, residual_fresh=b) for a, b in zip(h, residual, strict=True)]
    return [(step, message) for step, message in follow(StepHistory.begin(), steps)[1] if message.startswith(STAYS)]


def test_a_boundary_layer_at_the_start_is_no_lack_of_capacity():
    assert capacity_messages(1e-4 * np.array(LAYER_H), 1e-3 * np.array(LAYER_RESIDUAL)) == []


def test_a_large_residual_that_stays_is_named_as_soon_as_steps_have_settled():
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(60))
    messages = capacity_messages(np.full(60, 0.01), 0.2 * noise)
    assert [step for step, _ in messages] == [ENOUGH] and "2.0e-01" in messages[0][1]


def test_growing_steps_excuse_a_large_residual_for_one_window_only():
    messages = capacity_messages(1e-6 * 1.3 ** np.arange(40), np.full(40, 0.2))
    assert [step for step, _ in messages] == [WINDOW]


def test_a_residual_that_falls_and_then_stays_large_is_named():
    residual = np.concatenate([np.geomspace(0.8, 0.1, 20), np.full(40, 0.1)])
    (step, _), *others = capacity_messages(np.full(60, 0.01), residual)
    assert 20 < step <= 20 + WINDOW and not others


def test_a_residual_that_was_large_and_is_small_is_not_named():
    assert capacity_messages(np.full(30, 0.01), np.geomspace(0.5, 1e-3, 30)) == []


@pytest.mark.parametrize("name", ["residual_stays_large", "residual_grows"])
def test_a_residual_beside_a_right_hand_side_of_nearly_zero_is_no_failure(name):
    """Close to a steady state it is large relative to f, and adds next to nothing to the error."""
    changes, _ = FAILURES[name]
    assert seen(series(changes | {"missed": 1e-3})) == {}
    assert set(seen(series(changes | {"missed": 0.5}))) == {name}


# What bounds the step size -------------------------------------------------------------------------------------------


def test_a_finding_is_no_warning_and_comes_once_in_a_phase():
    """Steps at the limit of stability, some far below it because an output time cut them, and a refit in between."""
    at_limit = [GOOD_STEP._replace(stability=0.05 if number % 5 == 0 else 0.9) for number in range(40)]
    history, warnings, findings = StepHistory.begin(), [], []
    for step, record in enumerate(at_limit + at_limit, 1):
        history, *messages = history.after_step(record, step)
        warnings += messages[0]
        findings += messages[1]
        history = history.after_fit() if step == 40 else history
    assert warnings == [] and len(findings) == 1
    assert findings[0].startswith("steps are bound by stability: h rho is 0.9 times its limit")


@pytest.mark.parametrize(
    "changes",
    [
        {"stability": np.where(np.arange(WINDOW) % 3, 0.3, 1.2)},  # single steps at the limit, as a wave has them
        {"motion": 0.1, "jacobian_share": np.where(ALTERNATING, 0.3, 0.0)},  # theta moves far, but J hardly changes
        {"motion": 0.005, "jacobian_share": 0.99},  # the change of J is all of an error that bounds nothing
    ],
)
def test_steps_that_nothing_but_the_tolerance_bounds_have_no_finding(changes):
    assert seen(series(changes)) == {}
