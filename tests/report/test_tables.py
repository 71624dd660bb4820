"""Tables of errors, estimates and drifts as text."""

import pytest

from nivp_dist.report import tables


def test_an_output_without_an_error_has_a_dash_in_its_column():
    summary = {"errors": [{"t": 0.0, "relative_l2": 1e-3}, {"t": 10.5, "relative_l2": None}]}
    assert tables.error_lines(summary)[1:] == ["     t  relative L2", "     0     1.00e-03", "  10.5            -"]


def test_the_title_names_the_outputs_that_are_compared_where_others_are_not():
    summary = {"output_names": ["u", "v", "w"], "errors": [{"t": 1.0, "relative_l2": 1e-3, "compared_outputs": 2}]}
    assert tables.error_rows(summary)[0] == "relative L2 error of u, v (not of w) against the reference"
    summary["output_names"] = ["u", "v"]
    assert tables.error_rows(summary)[0] == "relative L2 error against the reference"


def test_a_run_without_outputs_has_an_empty_table():
    assert tables.error_lines({"errors": []})[-1] == "  (no output yet)"


def test_columns_for_the_estimate_and_for_the_drift_of_conserved_integrals():
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
    assert tables.drift(start, start, "energy") is None  # a drift relative to zero is not defined
