"""The study of dimensions on made-up records: what ended a run, and what is said of it."""

import pytest
from matplotlib.figure import Figure

from nivp_dist.studies import dimension, endings
from nivp_dist.studies.dimension import ACCURACY, STUDY


def record(d=2, problem="trap", **numbers) -> dict:
    """Of one seed, which reached the end with a small error; p = 10 d, a velocity takes d seconds."""
    facts = {"problem": problem, "dimension": d, "seeds": [0], "parameters": 10 * d, "points": 2000}
    facts |= {"solver": "primal", "t_end": 0.5, "compile_seconds": 9.0}
    seeds = {"fit": 1e-4, "error": ACCURACY / 2, "estimate": 0.1, "parts": [1e-3, 5e-2, 1e-3], "iterations": 0.0}
    seeds |= {"residual": 0.1, "residual_fresh": 0.1, "last_residual": 0.1, "last_residual_fresh": 0.1}
    seeds |= {"effective_dimension": 5.0 * d, "condition": 1e8, "steps": 7, "velocities": 42, "last_points": 2000}
    seeds |= {"seconds_a_velocity": float(d), "fit_seconds": 2.0, "seconds": 9.0, "t": 0.5, "messages": []}
    return facts | {key: [value] for key, value in (seeds | {"failure": None}).items()} | numbers


def ended_by(record: dict) -> str | None:
    return endings.ended_by(record, ACCURACY)


def named(*records) -> dict:
    return {f"{each['problem']}-{each['dimension']}": each for each in records}


@pytest.mark.parametrize("name", dimension.PROBLEMS)
def test_every_dimension_is_a_configuration(name):
    for d in dimension.PROBLEMS[name].dimensions:
        assert dimension.configuration(name, d).problem.parameters["dimension"] == d


def test_what_ended_a_run_is_read_from_its_numbers():
    assert ended_by(record()) is None
    bad = {"error": [2 * ACCURACY]}
    assert (
        ended_by(record(**bad))
        == "error 2.0e-02, of which the largest part is the residual, 1.0 times as large on fresh points"
    )
    assert ended_by(record(**bad, last_residual_fresh=[0.3])).endswith(
        "3.0 times as large on fresh points: too few points"
    )
    assert ended_by(record(**bad, parts=[[0.1, 0.05, 0.0]])).endswith("the largest part is the fit")
    assert ended_by(record(**bad, parts=[[0.1, 0.05, 0.2]])).endswith("the largest part is the errors of the steps")


def test_failures_say_where_they_were():
    late = {"failure": ["not done in 60 s"], "error": [None], "t": [0.1]}
    assert ended_by(record(**late)) == "not done in 60 s: t = 0.1 of 0.5 after 7 steps, 2 s a velocity (1 of 1 seeds)"
    assert ended_by(record(**late, seconds_a_velocity=[None])).endswith("after 7 steps (1 of 1 seeds)")
    assert ended_by(record(**late, velocities=[0])) == "not done in 60 s: in the first step (1 of 1 seeds)"
    assert ended_by(record(**late, fit_seconds=[None])) == "not done in 60 s: in the fit (1 of 1 seeds)"
    failed = {"failure": ["CG at t = 0 did not converge"], "error": [None], "t": [0.0]}
    assert ended_by(record(**failed)) == "t = 0: CG at t = 0 did not converge (1 of 1 seeds)"


def test_the_answer_is_about_the_dimensions_that_were_reached():
    lines = STUDY.answer(named(record(10), record(2)))
    assert lines[0] == "trap: within 0.01 at d = 2, 10; nothing ends it up to d = 10, open beyond"
    assert "from d = 2 to 10: p 20 to 1e+02, seconds a velocity 2 to 10" in lines[1]
    lines = STUDY.answer(named(record(2, error=[1.0]), record(10, failure=["CG failed"], error=[None])))
    assert lines[0] == "trap: at no d" and lines[1].startswith("trap, d = 2: error 1.0e+00") and "CG failed" in lines[2]


def test_tables_and_picture_keep_runs_without_numbers():
    empty = {key: [None] for key in ("fit", "error", "estimate", "residual_fresh", "effective_dimension", "condition")}
    empty |= {
        "seconds_a_velocity": [None],
        "fit_seconds": [None],
        "failure": ["not done in 60 s"],
        "last_points": [None],
    }
    messages = [["capacity: the residual stays", "steps are bound: h rho"], ["capacity: the residual grows"]]
    records = named(record(2, messages=messages), record(10, **empty))
    errors, costs = STUDY.tables(records)
    assert [row[1] for row in errors.rows] == ["d", "2", "10"] and errors.rows[2][-1].startswith(
        "not done in 60 s: in the fit"
    )
    assert [row[-2] for row in errors.rows] == ["warnings, findings", "capacity, steps are bound", ""]
    assert costs.rows[1][4:6] == ["10", "50 %"] and costs.rows[2][4:7] == ["-", "-", "-"]
    figure = Figure()
    STUDY.draw(records, figure)
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[10]]
