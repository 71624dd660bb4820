"""The study of steps on made-up metrics, each with one bound, and on a stored run."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from stored_runs import make_run

from nivp_dist.bench import accuracy
from nivp_dist.errors import RunFailed
from nivp_dist.studies import steps
from nivp_dist.studies.step_bounds import ACCURACY, NONLINEARITY, NOTHING, OUTPUTS, STABILITY, bounds, cut, relative
from nivp_dist.studies.steps import STUDY

STEPS, FAR = 20, [1e9]


def metrics(h=0.1, **numbers) -> dict:
    """Of steps that the error bounds, with theta of norm 2. numbers: one for all steps, or one for each."""
    base = {"theta_norm": 2.0, "theta_step": 0.02, "jacobian_share": 0.05, "h_rho": 0.4, "h_rho_limit": 4.0}
    base |= {"error": 2e-6, "rejected": 0.0}
    found = {name: np.broadcast_to(value, STEPS).astype(float) for name, value in (base | numbers).items()}
    sizes = np.broadcast_to(h, STEPS).astype(float)
    return found | {"h": sizes, "t": np.cumsum(sizes)}


def found_in(of: dict, ends: list, max_step=1e6) -> list[str]:
    """The bounds of steps with these metrics."""
    short = cut(of, ends, max_step)
    return bounds(relative(of, 1e-5, short), short)


@pytest.mark.parametrize(
    "numbers, bound",
    [
        ({}, ACCURACY),
        ({"h_rho": 3.0}, STABILITY),
        # Single steps that miss the fast modes, and the largest stable value unknown for modes that grow.
        ({"h_rho": np.where(np.arange(STEPS) % 3 == 1, 0.3, 3.0)}, STABILITY),
        ({"h_rho": 3.0, "h_rho_limit": np.nan}, ACCURACY),
        ({"theta_step": 0.4, "jacobian_share": 0.5}, NONLINEARITY),
        ({"theta_step": 0.4, "jacobian_share": 0.5, "h_rho": 3.0}, STABILITY),
        ({"h": 0.1 * 1.2 ** np.arange(STEPS)}, NOTHING),
        ({"h": 0.1 * 1.02 ** np.arange(STEPS)}, ACCURACY),
        # Implicit steps have none of these numbers.
        ({"h_rho": np.nan, "h_rho_limit": np.nan, "jacobian_share": np.nan, "theta_step": 0.4}, ACCURACY),
    ],
)
def test_a_bound_is_recognised_in_all_steps(numbers, bound):
    assert found_in(metrics(**numbers), FAR) == [bound] * STEPS


def test_steps_that_meet_an_output_and_the_halves_before_it_are_cut():
    h = np.full(STEPS, 0.1)
    h[5], h[11:13] = 0.03, 0.06
    of = metrics(h)
    found = found_in(of, [0.0, of["t"][5], of["t"][12]])
    assert [step for step, bound in enumerate(found) if bound == OUTPUTS] == [5, 11, 12]
    assert set(found) == {OUTPUTS, ACCURACY}  # that a step after a cut is longer is no growth
    assert found_in(of, FAR, max_step=0.1).count(OUTPUTS) == STEPS - 3


def test_numbers_are_relative_to_their_limits():
    short = np.arange(STEPS) == 1
    found = relative(metrics(0.1 * 1.5 ** np.arange(STEPS)), 1e-5, short)
    assert {name: values[0] for name, values in found.items()} == pytest.approx(
        {"stability": 0.1, "motion": 0.01, "jacobian_share": 0.05, "error": 0.2, "growth": 1.5**2}
    )
    assert list(np.isnan(found["growth"])) == [False, True, *[False] * (STEPS - 3), True]


def record(problem, thirds, **facts) -> dict:
    """Of a run of 30 steps from t = 0 to 3; thirds: the bound of most steps of each, seven of ten."""
    numbers, found = relative(metrics(), 1e-5, np.zeros(STEPS, bool)), []
    of = {name: np.resize(values, 30) for name, values in (metrics() | numbers).items()}
    of["t"] = 0.1 * np.arange(1, 31)
    for place, bound in enumerate(thirds):
        found.append(steps.third([*[bound] * 7, *[OUTPUTS] * 3] * 3, of, np.arange(10 * place, 10 * place + 10)))
    return {"problem": problem, "method": "bdf", "t_end": 3.0, "stopped": None, "thirds": found} | facts


def test_the_answer_says_which_bound_is_the_commonest_and_when():
    heat = record("heat", [NOTHING, STABILITY, STABILITY])
    wave = record("wave", [NONLINEARITY] * 3, stopped="not finished", t_end=9.0)
    records = {"heat": heat, "wave": wave}
    lines = STUDY.answer(records)
    assert lines[0].startswith(
        "Of the 60 steps of 2 runs the bound is: stability of 23 %, nonlinearity of theta of 35 %"
    )
    assert "Stability is the commonest in heat (t = 1 to 2, 2 to 3)." in lines
    assert "Nonlinearity of theta is the commonest in wave (always)." in lines
    assert "Accuracy is the commonest in none." in lines and lines[-1] == "Not carried to the end: wave at t = 3 of 9."
    shares, numbers = STUDY.tables(records)
    assert shares.rows[1][3] == "nothing 70 %, outputs and limits 30 % (to t = 1)"
    assert numbers.rows[1][1:] == ["0 to 1", "10", "0", "0.1", "0.1", "0.01", "0.05", "0.2", "1"]
    figure = Figure()
    STUDY.draw(records, figure)
    first = figure.axes[0].containers
    assert [bar.get_width() for bar in first[-1]] == pytest.approx([70, 0])  # the bars of `nothing`


def test_every_run_of_the_sheet_is_a_case_and_the_cheapest_come_first():
    names = [case.name for case in steps.cases(quick=False)]
    assert len(names) == len({accuracy.run_name(row) for row in accuracy.ROWS}) and names[0] == "advection-2d"


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Measures a stored run of so many steps, all with half the h rho at which they are stable."""

    def measured(count, **entry) -> dict:
        make_run(tmp_path / "run", {"name": "heat"}, steps=count)
        monkeypatch.setattr(accuracy, "measure", lambda row, directory: {"error": 1e-3, "failed": None} | entry)
        return steps.measure(steps.QUICK[0], tmp_path)

    return measured


def test_the_bounds_are_read_from_a_run(stored):
    found = stored(12)
    assert found["method"] == "cash_karp" and found["error"] == 1e-3 and found["stopped"] is None
    assert [(each["from"], each["to"], each["steps"]) for each in found["thirds"]] == [
        (0, pytest.approx(1 / 6), 4),
        (pytest.approx(1 / 6), pytest.approx(1 / 3), 4),
        (pytest.approx(1 / 3), 0.5, 4),
    ]
    assert [each["bounds"][STABILITY] for each in found["thirds"]] == [4, 4, 2]  # the last two meet the output
    assert found["thirds"][0]["stability"] == 0.5 and found["thirds"][0]["rejected"] == 2


def test_of_a_run_of_a_few_steps_nothing_is_said(stored):
    with pytest.raises(RunFailed, match="8 steps, fewer than 9: not finished"):
        stored(8, failed="not finished")
