import pytest

from nivp_dist.report import tables


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
