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


def test_the_estimate_and_what_is_conserved_beside_the_error():
    def entry(t, error, estimate, energy):
        return {"t": t, "relative_l2": error, "estimate": estimate, "invariants": {"energy": energy}}

    summary = {"errors": [entry(0.0, 1e-3, 1.1e-3, [-2.0, 0.03]), entry(0.5, 2e-3, None, [-1.9, 0.04])]}
    assert tables.error_lines(summary)[1:] == [
        "    t  relative L2  estimate    drift of energy",
        "    0     1.00e-03  1.10e-03  +0.0e+00 +- 2e-02",
        "  0.5     2.00e-03         -  +5.0e-02 +- 3e-02",
    ]
    # Drift is relative to |-2|; errors of both integrals, 0.03 and 0.04, are independent.
    assert tables.drift(*summary["errors"], "energy") == pytest.approx((0.05, 0.025))
    assert tables.drift(*summary["errors"], "mass") is None
    start = {"invariants": {"energy": [0.0, 0.1]}}
    assert tables.drift(start, start, "energy") is None  # relative to nothing


def test_errors_in_words():
    assert tables.errors(1e-3, 2e-3) == "relative L2 error 1.00e-03, estimated 2.00e-03"
    assert tables.errors(float("nan"), 2e-3) == "no reference, estimated relative error 2.00e-03"
    assert tables.errors(None, None) == "no reference" and tables.errors(1e-3, None) == "relative L2 error 1.00e-03"
