"""Failure signatures and the factor on mu, on histories made up of one disease each."""

import numpy as np
import pytest

from nivp_dist.monitoring.adaptation import FACTOR, LARGEST, MOST_POINTS, SETTLE, SOUND, MuAdaptation, PointRefinement
from nivp_dist.monitoring.signatures import ENOUGH, SIGNATURES, WINDOW, StepHistory, StepRecord, thirds

SOUND_STEP = StepRecord(
    h=0.01, rejected=0, residual=9e-4, residual_fresh=1e-3, iterations=20, coverage=0.3, turn=0.9, unsolved=0
)
N = WINDOW
RISING = np.geomspace(1, 10, N)
COIN = np.arange(N) % 2

DISEASES = {
    "iterations_grow": ({"iterations": 20 * RISING}, "conditioning: CG iterations grow.*restart.cg_growth.*solver.mu"),
    "steps_rejected": ({"rejected": COIN + 0.0}, "stiffness: 12 rejected attempts in 24 steps.*network.frequencies"),
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
    "points_miss_the_solution": ({"coverage": 0.004}, "points: of 100 points 0.4 count .*sampling.components"),
    "velocities_turn": ({"turn": np.where(COIN, -0.5, 0.5)}, "oscillation: .* turned back in 12 of 24.*network.alpha"),
}


def series(changes: dict) -> StepRecord:
    columns = SOUND_STEP._asdict() | changes
    return StepRecord(*(np.broadcast_to(np.asarray(column, float), (N,)) for column in columns.values()))


def seen(record: StepRecord) -> dict:
    found = {signature.__name__: signature(record) for signature in SIGNATURES}
    return {name: message for name, message in found.items() if message is not None}


def test_a_sound_run_has_no_signature():
    assert seen(series({})) == {}
    # Nor has one that gets better, or one whose points are fresh draws of noise.
    assert seen(series({"residual_fresh": 4e-2 / RISING, "residual": 4e-2 / RISING, "iterations": 200 / RISING})) == {}
    noise = np.exp(0.3 * np.random.default_rng(0).standard_normal((3, N)))
    noisy = {"residual_fresh": 1e-3 * noise[0], "iterations": 30 * noise[1], "h": 0.01 * noise[2]}
    assert seen(series(noisy)) == {}


@pytest.mark.parametrize("name", DISEASES)
def test_every_disease_has_its_signature_and_no_other(name):
    changes, message = DISEASES[name]
    found = seen(series(changes))
    assert set(found) == {name}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found[name])


def test_every_signature_has_its_disease():
    assert {signature.__name__ for signature in SIGNATURES} == set(DISEASES)


@pytest.mark.parametrize("symptom", [{"iterations": 20 * RISING}, {"residual_fresh": 1e-3 * RISING}])
def test_small_steps_beside_a_rising_residual_are_conditioning(symptom):
    for small in ({"h": 0.01 / RISING**3}, {"rejected": COIN + 0.0}):
        messages = seen(series(small | symptom))
        assert any("and the residual or the CG iterations rise; try a larger solver.mu" in m for m in messages.values())
        assert not any(message.startswith("stiffness") for message in messages.values())


def test_advice_names_settings_that_exist():
    import re

    from nivp_dist.settings.keys import known_keys, sections

    for changes, _ in DISEASES.values():
        for message in seen(series(changes)).values():
            keys = re.findall(rf"(?:{'|'.join(sections())})\.\w+", message)
            assert keys and set(keys) <= set(known_keys())


def follow(watch, steps, start=1):
    """The watch after steps, and (step, message) of what was said."""
    said = []
    for step, record in enumerate(steps, start):
        watch, messages = watch.after_step(record, step)
        said += [(step, message) for message in messages]
    return watch, said


def test_a_signature_speaks_once_an_occurrence():
    sick, sound = SOUND_STEP._replace(coverage=0.001), SOUND_STEP
    watch, said = follow(StepHistory.begin(), [sick] * 60)
    assert [step for step, _ in said] == [ENOUGH]  # enough to say so, and never again while it lasts
    watch, said = follow(watch, [sound] * 20, start=61)
    assert said == []
    _, said = follow(watch, [sick] * 30, start=81)  # back before a whole window without it
    assert said == []
    watch, said = follow(watch, [sound] * (2 * WINDOW), start=81)
    _, said = follow(watch, [sick] * 40, start=200)
    assert len(said) == 1 and said[0][0] > 200


def test_another_network_starts_another_history():
    watch, _ = follow(StepHistory.begin(), [SOUND_STEP._replace(rejected=1, unsolved=1)] * (ENOUGH - 1))
    assert len(watch.recent().h) == ENOUGH - 1 and watch.unsolved()
    watch = watch.after_fit()
    assert len(watch.recent().h) == 0 and not watch.unsolved()
    assert follow(watch, [SOUND_STEP._replace(rejected=1)] * (ENOUGH - 1))[1] == []


def test_a_first_velocity_has_none_to_turn_from():
    watch, said = follow(StepHistory.begin(), [SOUND_STEP._replace(turn=np.nan)] * 20)
    assert len(watch.recent().h) == 20 and said == []


def test_steps_on_kept_points_have_no_residual_of_their_own():
    kept = np.where(COIN, np.nan, 1e-3)
    found = seen(series({"residual_fresh": 2e-2, "residual": kept}))
    assert set(found) == {"points_overfitted"} and "1.0e-03" in found["points_overfitted"]
    assert seen(series({"residual": np.nan, "residual_fresh": 2e-2})) == {}


def test_thirds_are_medians():
    assert thirds(np.array([1, 100, 3, 4, 5, 6, 9, 9, 0.0])) == (3, 5, 9)


# The factor on mu ---------------------------------------------------------------------------------


def factors(steps, remedy=MuAdaptation):
    """That of a remedy after every step."""
    watch, state, found = StepHistory.begin(), remedy(), []
    for step, record in enumerate(steps, 1):
        watch, _ = watch.after_step(record, step)
        state = state.after_step(watch.recent(), step)
        found.append(state.factor)
    return found


def test_a_sound_run_keeps_its_mu():
    assert set(factors([SOUND_STEP] * 40 + [SOUND_STEP._replace(rejected=1)] + [SOUND_STEP] * 5)) == {1.0}


def test_rejections_raise_mu_and_soundness_takes_it_back():
    sick = SOUND_STEP._replace(rejected=3)
    found = factors([SOUND_STEP] * 5 + [sick] + [SOUND_STEP] * 40)
    assert found[4] == 1 and found[5] == FACTOR
    back = found.index(1.0, 6)
    assert back == 5 + SOUND and set(found[back:]) == {1.0}
    # Two in a step do not; two in each of two steps do, and one in nearly every step in the long run.
    assert set(factors([SOUND_STEP._replace(rejected=2), *[SOUND_STEP] * 3] * 5)) == {1.0}
    assert factors([SOUND_STEP._replace(rejected=1)] * 30)[6:9] == [1, FACTOR, FACTOR]
    assert FACTOR in factors([SOUND_STEP] * 5 + [SOUND_STEP._replace(rejected=2)] * 2)


def test_mu_is_given_time_and_has_a_limit():
    found = factors([SOUND_STEP._replace(rejected=5)] * 40)
    raised = [step for step in range(1, 40) if found[step] > found[step - 1]]
    assert np.diff(raised).min() >= SETTLE and found[-1] == LARGEST


def test_steps_that_give_way_without_a_rejection():
    h, residual = 0.01 * np.exp(-0.3 * np.arange(20)), 1e-3 * np.exp(0.3 * np.arange(20))
    steps = [SOUND_STEP._replace(h=a, residual_fresh=b) for a, b in zip(h, residual)]
    assert factors(steps)[-1] > 1
    # Steps that shrink while the residual stays are the solution's, not the solver's.
    assert set(factors([step._replace(residual_fresh=1e-3) for step in steps])) == {1.0}


# The factor on the points --------------------------------------------------------------------------


def test_points_are_doubled_while_velocities_fit_their_own_only():
    overfitted = SOUND_STEP._replace(residual=1e-3, residual_fresh=2e-2)
    found = factors([SOUND_STEP] * 20 + [overfitted] * 60, PointRefinement)
    assert set(found[:20]) == {1} and found[-1] == MOST_POINTS
    # Judged by the steps since: those before a change do not count against what it has mended.
    doubled = found.index(2)
    assert set(found[doubled : doubled + ENOUGH]) == {2}
    mended = factors([SOUND_STEP] * 20 + [overfitted] * (doubled - 19) + [SOUND_STEP] * 60, PointRefinement)
    assert mended[doubled] == 2 and mended[-1] == 2
