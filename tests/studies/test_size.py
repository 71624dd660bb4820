"""The study of size: slopes and answers of made-up records, in both directions, and one real size."""

import pytest
from matplotlib.figure import Figure

from nivp_dist.errors import InputError
from nivp_dist.studies import size

SIZES = (300, 1000, 3000)


def made_up(power: float, name: str = "advection", **numbers) -> dict:
    """Records whose errors fall as p^-power."""
    facts = {"method": "primal", "fit": 1e-6, "residual": 1e-4, "steps": 10, "seconds_velocity": 0.1, "iterations": 0.0}
    facts |= {"t": 0.1, "effective_dimension": None, "seconds": 5.0, "failure": None}
    return {f"{name}-{p}": facts | {"p": p, "n": 5 * p, "error": 1e-2 * (p / 300) ** -power} | numbers for p in SIZES}


SAID = {1.3: "falls as p^-1.30, at least", 0.7: "falls as p^-0.70, less than", -0.5: "grows as p^0.50, less than"}


@pytest.mark.parametrize(("power", "said"), SAID.items())
def test_the_answer_follows_the_slope(power, said):
    (line,) = size.answer(made_up(power))
    assert said in line and "the fall as p^-1 that is wanted" in line and "to 3,000" in line


def test_sizes_that_did_not_arrive_are_shown_and_not_counted():
    records = made_up(1.0)
    records["advection-9000"] = records["advection-3000"] | {"p": 9000, "error": None, "failure": "not done in 900 s"}
    (line,) = size.answer(records)
    assert "to 3,000 the error falls as p^-1.00" in line.replace("p = 3,000", "3,000")
    (table,) = size.tables(records)
    assert table.rows[-1][0] == "9,000" and table.rows[-1][-1] == "not done in 900 s"
    assert len({len(row) for row in table.rows}) == 1


def test_one_size_is_open():
    records = made_up(1.0)
    assert "open" in size.answer({"advection-300": records["advection-300"]})[0]


def test_problems_are_chosen_by_name():
    names = [case.name for case in size.study_of(["vlasov"]).cases(False)]
    assert names and all(name.startswith("vlasov-") for name in names)
    assert len(size.study_of([]).cases(False)) > len(names)
    with pytest.raises(InputError, match="no problem 'vlassov'; there are advection, wave2d"):
        size.study_of(["vlassov"])


def test_a_picture_has_a_curve_for_each_problem():
    figure = Figure()
    size.draw(made_up(1.0) | made_up(0.5, "vlasov"), figure)
    left, right = figure.axes
    assert len(left.lines) == 4 and len(right.lines) == 2


def test_one_size_is_measured(tmp_path):
    """Errors are those against the exact solution, and the run is one of the study's settings."""
    (case, *_) = size.cases(True)
    record = case.measure(tmp_path)
    assert record["failure"] is None and record["steps"] > 0 and record["method"] == "primal"
    assert 0 < record["fit"] < 1e-3 and 0 < record["error"] < 2 * record["fit"]
    assert record["n"] == 2000 and record["p"] == 137
