import pytest

from nivp_dist.report import tables


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0 s"), (41.6, "42 s"), (59.7, "1 min 00 s"), (133, "2 min 13 s"), (11100, "3 h 05 min"), (187200, "2 d 4 h")]
    + [(None, "-"), (float("inf"), "-")],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    "value, text",
    [(0.0, "0"), (0.3125, "0.3125"), (1 / 3, "0.3333"), (1.2e-7, "1.20e-07"), (-5e5, "-5.00e+05")]
    + [(34, "34"), (None, "-"), (float("nan"), "-"), ("heat", "heat")],
)
def test_numbers(value, text):
    assert tables.number(value) == text


def test_outputs_without_an_error_are_dashes_beside_those_with_one():
    summary = {"errors": [{"t": 0.0, "relative_l2": 1e-3}, {"t": 10.5, "relative_l2": None}]}
    assert tables.error_lines(summary)[1:] == ["     t  relative L2", "     0     1.00e-03", "  10.5            -"]


def test_a_run_that_ended_before_its_first_output():
    assert tables.error_lines({"errors": []})[-1] == "  (no output yet)"
