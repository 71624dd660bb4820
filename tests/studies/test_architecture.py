"""The study of architectures on made-up records: what its numbers make it say, and that its networks are possible."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from nivp_dist.studies import architecture
from nivp_dist.studies.architecture import STUDY
from nivp_dist.studies.effects import FALSE_ALARMS, effect

BASE = {"fit": [1e-3, 2e-3, 1.5e-3], "tangent": [0.1, 0.1, 0.1], "error": [1e-2, 2e-2, 3e-2]}


def record(choice="", value="", problem="heat", failure=None, **numbers) -> dict:
    facts = {"problem": problem, "choice": choice, "value": value, "parameters": 100, "points": 2000}
    rest = {"steps": [9, 10, 11], "residual": [0.1, 0.2, 0.3], "failure": failure or [None] * 3}
    return facts | BASE | rest | numbers


def named(*records) -> dict:
    return {f"{each['problem']}-{each['choice']}-{each['value']}": each for each in records}


@pytest.mark.parametrize("name", architecture.PROBLEMS)
def test_every_network_is_a_configuration_that_differs_from_the_base(name):
    problem = architecture.PROBLEMS[name]
    base = architecture.configuration(name, ())
    changes = [(choice, value) for choice, values in problem.others.items() for value in values]
    for choice, value in changes:
        network = architecture.configuration(name, (choice, value)).network
        assert network.model_copy(update={choice: getattr(base.network, choice)}) == base.network != network
    cases = [case.name for case in STUDY.cases(False) if case.name.startswith(name)]
    assert len(cases) == len(set(cases)) == 1 + len(changes)


def test_an_effect_has_to_exceed_the_range_of_the_seeds():
    small = effect([1.0, 1.2, 2.0], [1.5, 1.8, 2.2])
    assert small.factor == pytest.approx(1.5) and small.spread == pytest.approx(2.0) and not small.matters
    assert effect([1.0, 1.2, 2.0], [2.1, 3.6, 3.8]).matters
    assert not effect([1.0, 1.2, 2.0], [1.9, 3.6, 3.8]).matters  # the ranges overlap
    below = effect([1.0, 1.2, 1.3], [0.1, 0.12, 0.13])
    assert below.matters and below.size == pytest.approx(10.0)
    assert not effect([1.0, 1.2, 1.3], [0.1, 0.12, 13.0]).matters  # a seed that went wrong
    assert effect([1.0, 1.2, 1.3], [1e-9, 1e-3, 1e-2]).matters  # better in all, by very different factors
    fails = effect([1.0, 1.2, 1.3], [0.1, None, None])
    assert fails.matters and math.isinf(fails.factor)
    assert effect([None, None, 1.0], [1.0, 1.0, 1.0]) is None


def test_the_answer_names_what_matters_and_where():
    fewer = record("frequencies", "1", fit=[1e-1, 2e-1, 1.5e-1], error=[None] * 3, failure=["CG"] * 3)
    more = record("frequencies", "3", fit=[1e-3, 2e-3, 1.4e-3])
    wide = record("width", "18", tangent=[0.01, 0.02, 0.01])
    line, count = STUDY.answer(named(record(), fewer, more, wide))
    assert count == "3 of 9 effects exceed the spread of the seeds; by chance alone it would be 1."
    assert line == (
        "heat (parabolic): the error of the fit depends on frequencies x 1e+02 (1); the residual of the first step "
        "depends on width x 0.1 (18); the error at the end depends on frequencies fails (1)."
    )
    line, _ = STUDY.answer(named(record(), more))
    assert line.count("no choice changes") == 3
    line, _ = STUDY.answer(named(record(error=[None] * 3, failure=["CG"] * 3), more))
    assert line.endswith("the error at the end is open.")
    assert STUDY.answer(named(wide)) == ["open: no base network was measured"]


@pytest.mark.parametrize(("factor", "signs"), [(2.0, ("1.00", "-1.00")), (0.5, ("-1.00", "1.00"))])
def test_the_answer_says_what_the_error_at_the_end_goes_with(factor, signs):
    sizes = [(str(i) if i else "", factor**i, 1.0 + i, 9.0 - i) for i in range(5)]
    records = [
        record("width" if value else "", value, fit=[fit] * 3, tangent=[tangent] * 3, error=[error] * 3)
        for value, error, fit, tangent in sizes
    ]
    _, line, _ = STUDY.answer(named(*records))
    fit, tangent = signs
    assert line == (
        f"heat: over 5 networks the rank correlation of the error at the end is {fit} with the fit and {tangent} with "
        "the first residual."
    )
    assert not any("correlation" in line for line in STUDY.answer(named(*records[:4])))


def test_the_table_marks_what_matters_and_counts_failures():
    failing = record("depth", "1", error=[None, None, 1.0], failure=["CG", "CG", None])
    table, summary = STUDY.tables(named(record(), record("width", "6", fit=[1.0, 1.0, 1.0]), failing))
    head, base, width, depth = table.rows
    assert base[0] == "base" and "*" not in "".join(base)
    assert width[head.index("error of the fit")].endswith("*") and not width[head.index("error at the end")].endswith(
        "*"
    )
    assert depth[-1] == "2 of 3" and depth[head.index("error at the end")].endswith("*")
    assert summary.rows[1:] == [["heat", "width", "x 6.7e+02 (6)", "-", "-"], ["heat", "depth", "-", "-", "fails (1)"]]


def test_the_picture_has_a_panel_for_each_problem_and_fills_what_matters():
    figure = Figure()
    STUDY.draw(named(record(), record("width", "6", fit=[1.0] * 3), record(problem="wave")), figure)
    assert [axis.get_title() for axis in figure.axes] == ["heat (parabolic)", "wave (hyperbolic)"]
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    filled = [line for line in points if line.get_markerfacecolor() != "white"]
    assert len(points) == 6 and [line.get_xdata()[0] for line in filled] == [pytest.approx(1 / 1.5e-3)]


def test_by_chance_alone_few_effects_are_found():
    draws = np.exp(np.random.default_rng(0).standard_normal((4000, 2, 3)))
    found = [effect(base.tolist(), other.tolist()) for base, other in draws]
    assert np.mean([each is not None and each.matters for each in found]) == pytest.approx(FALSE_ALARMS, abs=0.01)
