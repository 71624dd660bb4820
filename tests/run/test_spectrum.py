"""The spectrum that a run measures: when, and that it changes nothing."""

import numpy as np

from nivp_dist.monitoring.conditioning import Bracket
from nivp_dist.run.spectrum import is_due
from nivp_dist.run.stored import METRIC_NAMES

SPECTRUM = {"lambda_max", "lambda_min", "condition", "effective_dimension", "numerical_rank", "rhs_below_mu"}


def measured(ran):
    return [line["step"] for line in ran.metrics if "effective_dimension" in line]


def plain(line):
    return {name: value for name, value in line.items() if name not in SPECTRUM and "small_share" not in name}


def test_measuring_changes_no_bit_of_the_solution(runs, undisturbed):
    for every in (0, 4):
        ran = runs.run(output__spectrum_every=every)
        at_outputs = [line["step"] for line in ran.metrics if line["t"] in (0.1, 0.3)]
        multiples = [line["step"] for line in ran.metrics if line["step"] % 4 == 1]  # M at the start of the step
        assert measured(ran) == (sorted({*multiples, *at_outputs}) if every else [])
        assert len(measured(undisturbed)) > 0
        for t, snapshot in undisturbed.snapshots().items():
            for name, value in snapshot.items():
                np.testing.assert_array_equal(ran.snapshots()[t][name], value)
        assert list(map(plain, ran.metrics)) == list(map(plain, undisturbed.metrics))


def test_what_is_measured(undisturbed):
    line = undisturbed.metrics[0]
    layers = [value for name, value in line.items() if name.startswith("small_share_")]
    assert 1 < line["effective_dimension"] < undisturbed.summary["parameters"]
    assert line["lambda_max"] < line["trace"] and 0 <= line["rhs_below_mu"] <= 1
    assert line["condition"] <= 1.0001 * (line["lambda_max"] / line["mu"] + 1)
    np.testing.assert_allclose(sum(layers), 1)
    assert SPECTRUM | {"spectrum_seconds"} <= set(METRIC_NAMES)


def test_automatic_measurements_do_not_follow_frequent_outputs():
    """With an output at every step only as many outputs count as there are other measurements."""
    assert [step for step in range(40) if is_due(10, True, step, written=step + 1)] == [0, 10, 20, 30]
    assert [step for step in range(40) if is_due(10, True, step, 1 + step // 15 if step % 15 == 14 else None)] == [
        0, 10, 14, 20, 29, 30,
    ]  # fmt: skip
    assert all(is_due(10, False, step, written=step + 1) for step in range(40))
    assert not any(is_due(0, False, step, written=step + 1) for step in range(40))


def test_a_number_with_too_large_an_error_is_left_out():
    assert Bracket(1.0, 2.0).named("condition") == {"condition": 1.5, "condition_error": 0.5}
    assert Bracket(1.0, 4.0).named("condition") == {}
    assert Bracket(1.0, 2.0).named("condition", statistical=0.5) == {}
    assert Bracket(-np.inf, 2.0).named("condition") == {}
