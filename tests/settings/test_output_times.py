"""The output times that a configuration names."""

from fractions import Fraction

import pytest

from nivp_dist.errors import InputError
from nivp_dist.settings.output_times import output_times
from nivp_dist.settings.validation import validate


def config(times=(), every=None, t_start=0.0, t_end=1.0):
    output = {"times": list(times)} | ({} if every is None else {"every": every})
    settings = {"problem": {"name": "heat"}, "integrator": {"t_start": t_start, "t_end": t_end}, "output": output}
    return validate(settings, "config", {})


def test_start_end_and_the_times_that_are_named():
    assert output_times(config(times=[0.5, 0.25, 0.5])) == [0.0, 0.25, 0.5, 1.0]
    assert output_times(config(t_start=-2.0, t_end=-1.0, times=[-1.5])) == [-2.0, -1.5, -1.0]


@pytest.mark.parametrize("every", [0.1, 0.05, 0.3, 1 / 3, 1e-3, 7.0])
@pytest.mark.parametrize("t_start", [0.0, 0.7, -2.1])
def test_every_multiple_between_start_and_end_is_there_once(every, t_start):
    """Against rational arithmetic: rounding leaves none out and makes none twice."""
    t_end = t_start + 50.5 * every
    found = output_times(config(every=every, t_start=t_start, t_end=t_end))
    period, low, high = (Fraction(value).limit_denominator(10**9) for value in (every, t_start, t_end))
    multiples = {k * period for k in range(int(low / period) - 1, int(high / period) + 2) if low < k * period < high}
    assert found == pytest.approx(sorted(map(float, multiples | {low, high})), rel=1e-12, abs=1e-12)
    assert all(b - a > 1e-6 * every for a, b in zip(found, found[1:]))


def test_multiples_are_floats_times_the_period_and_named_times_stay_as_they_are():
    assert output_times(config(every=0.1, t_end=0.45)) == [0.0, 0.1, 0.2, 3 * 0.1, 0.4, 0.45]
    assert output_times(config(every=0.1, times=[0.3], t_end=0.45)) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.45]
    assert output_times(config(every=0.1, t_end=0.3)) == [0.0, 0.1, 0.2, 0.3]
    assert output_times(config(every=0.1, t_start=0.1 + 0.2, t_end=0.5)) == [0.1 + 0.2, 0.4, 0.5]
    assert output_times(config(every=5.0)) == [0.0, 1.0]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"every": 0.0}, "config: output.every must be a number above 0, got 0.0"),
        (
            {"every": 1e-6},
            "config: output.every = 1e-06 makes more than 100000 outputs by integrator.t_end = 1: raise it",
        ),
        ({"t_start": 1.0}, "config: integrator.t_end = 1 must come after integrator.t_start = 1"),
        (
            {"t_start": 0.5, "times": [0.25]},
            "config: output.times must lie in [integrator.t_start = 0.5, integrator.t_end = 1.0], got [0.25]",
        ),
    ],
)
def test_mistakes_are_one_line(settings, message):
    with pytest.raises(InputError) as caught:
        config(**settings)
    assert str(caught.value) == message
