"""The study of restarts on made-up records: what its numbers make it say, in both directions."""

import pytest
from matplotlib.figure import Figure

from nivp_dist.studies import restarts
from nivp_dist.studies.restarts import POLICIES, STUDY


def run(error: float | None, seconds: float, refits=()) -> dict:
    outputs = [(0.0, 1e-3), (1.0, 2e-3)] + ([(2.0, error)] if error else [])
    made = [{"t": 1.0, "step": 9, "reason": "", "error": each, "accepted": each < 1e-2} for each in refits]
    facts = {"outputs": outputs, "t": [1.0, 2.0], "h": [0.5, 0.25], "evaluations": 100}
    failure = None if error else "step size below integrator.min_step"
    return facts | {"error": error, "seconds": seconds, "refits": made, "failure": failure}


def record(policy: str, errors, seconds: float = 10.0, refits=()) -> dict:
    facts = {
        "problem": "wave",
        "age": 2.0,
        "policy": policy,
        "title": POLICIES[policy].title,
        "seeds": list(range(len(errors))),
        "parameters": 200,
    }
    return facts | {"runs": [run(error, seconds + i, refits) for i, error in enumerate(errors)]}


def named(*records) -> dict:
    return {each["policy"]: each for each in records}


NONE = record("none", [0.10, 0.11, 0.12])


def test_restarts_pay_where_the_error_falls_by_more_than_the_seeds_differ():
    said = STUDY.answer(named(NONE, record("often", [0.010, 0.011, 0.012], 20.0)))
    assert said[0].startswith("wave: restarts pay: often, Gauss-Newton has x 0.1")
    assert "x 1.9 of the core seconds" in said[1]


@pytest.mark.parametrize(("errors", "spread"), [([0.09, 0.11, 0.12], True), ([0.5, 0.55, 0.6], False)])
def test_otherwise_the_answer_is_open(errors, spread):
    said = STUDY.answer(named(NONE, record("often", errors)))
    assert said[0].endswith("open.") and ("within the spread" in said[1]) == spread


def test_runs_that_fail_are_no_small_errors():
    failing = record("adam", [None, None, 0.01])
    said = " ".join(STUDY.answer(named(NONE, failing)))
    assert "most runs fail" in said and "seldom, Adam: 2 of 3 runs fail." in said
    said = STUDY.answer(named(record("none", [None, None, 0.2]), record("often", [0.1, 0.1, 0.1])))
    assert said[0].startswith("wave: most runs without restarts do not reach the end")
    assert STUDY.answer({"none": NONE}) == ["wave: open: nothing to compare was measured"]
    assert STUDY.answer(named(record("none", [0.1]), record("often", [0.01]))) == [
        "wave: open: one seed decides nothing"
    ]


def test_the_tables_count_refits_and_show_the_error_over_time(tmp_path):
    found = named(NONE, record("adam", [0.1, None, 0.3], refits=(1e-3, 3e-3, 5e-2)))
    totals, times = STUDY.tables(found)
    adam = dict(zip(totals.rows[0], totals.rows[2]))
    assert (adam["refits"], adam["refused"], adam["failed"]) == ("2", "1", "1 of 3")
    assert adam["their error"].startswith("2.0") and adam["core seconds"] == "11"
    assert times.rows[0] == ["restarts", "t = 0", "t = 1", "t = 2"] and times.rows[2][3] == "2.00e-01"
    figure = Figure()
    STUDY.draw(found, figure)
    assert len(figure.axes) == 3
    figure.savefig(tmp_path / "picture.png")


@pytest.mark.parametrize("problem", restarts.PROBLEMS)
def test_policies_differ_in_their_restarts_only(problem):
    configs = {name: restarts.configuration(problem, name, False) for name in POLICIES}
    assert [name for name, config in configs.items() if not config.restart.enabled] == ["none"]
    assert [n for n, c in configs.items() if c.restart.fits(c.fit).method != "gauss_newton"] == ["adam"]
    ages = {name: config.restart.max_age for name, config in configs.items()}
    t_end = configs["none"].integrator.t_end
    assert ages["often"] < ages["seldom"] == ages["adam"] < t_end < ages["state"] == ages["none"]
    base = configs["none"]
    assert all(config.model_copy(update={"restart": base.restart}) == base for config in configs.values())
