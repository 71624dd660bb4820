"""Tables of errors, estimates and drifts as text."""

import pytest

from nivp_dist.report import tables
from nivp_dist.run import history


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
        bound = estimate and 3 * estimate
        numbers = {"relative_l2": error, "estimate": estimate, "estimate_bound": bound}
        return {"t": t} | numbers | {"invariants": {"energy": energy}}

    summary = {"errors": [entry(0.0, 1e-3, 1.1e-3, [-2.0, 0.03]), entry(0.5, 2e-3, None, [-1.9, 0.04])]}
    assert tables.error_lines(summary)[1:] == [
        "    t  relative L2  estimate     bound    drift of energy",
        "    0     1.00e-03  1.10e-03  3.30e-03  +0.0e+00 +- 2e-02",
        "  0.5     2.00e-03         -         -  +5.0e-02 +- 3e-02",
    ]
    # Drift is relative to |-2|; errors of both integrals, 0.03 and 0.04, are independent.
    assert tables.drift(*summary["errors"], "energy") == pytest.approx((0.05, 0.025))
    assert tables.drift(*summary["errors"], "mass") is None
    start = {"invariants": {"energy": [0.0, 0.1]}}
    assert tables.drift(start, start, "energy") is None  # a drift relative to zero is not defined


def test_a_density_has_further_errors_where_they_are_known():
    further = {"relative_l2_normalised": 2e-3, "relative_l2_unweighted": 3e-2, "kl": None}
    summary = {"errors": [{"t": 0.0, "relative_l2": 1e-3} | further, {"t": 1.0, "relative_l2": 2e-3}]}
    assert tables.error_lines(summary)[1:] == [
        "  t  relative L2  normalised  unweighted  KL",
        "  0     1.00e-03    2.00e-03    3.00e-02   -",
        "  1     2.00e-03           -           -   -",
    ]


def test_of_very_many_outputs_the_table_shows_some_evenly_spread():
    """The first and the last among them; a list of times in a message is shortened too."""
    summary = {"errors": [{"t": float(t), "relative_l2": 1e-3} for t in range(1001)]}
    title, _, rows = tables.error_rows(summary)
    times = [float(row[0]) for row in rows]
    assert title.endswith("(24 of 1001 outputs)") and len(times) == 24
    assert times[0] == 0 and times[-1] == 1000 and all(42 <= b - a <= 45 for a, b in zip(times, times[1:]))
    assert len(tables.error_rows({"errors": summary["errors"][:24]})[2]) == 24
    assert history.times([0.1, 0.3]) == "t = 0.1, 0.3"
    assert history.times(range(100)) == "t = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 88 more"
