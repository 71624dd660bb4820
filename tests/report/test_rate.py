"""The rate of a run and the time left are shown only once the rate is steady."""

import pytest

from nivp_dist.report.rate import RemainingTime, settled_rate


def line(rates, seconds=10.0):
    samples = [(0.0, 0.0)]
    for rate in rates:
        samples.append((samples[-1][0] + seconds, samples[-1][1] + rate * seconds))
    return samples


@pytest.mark.parametrize(
    "rates, expected",
    [
        ([1, 1, 1], None),  # too few
        ([1, 1, 1, 1], 1.0),
        ([1, 1, 2, 2], 1.5),
        ([1, 1, 3, 3], None),  # still growing
        ([3, 3, 1, 1], None),
        ([0, 0, 0, 0], None),
        ([0, 0, 1, 1], None),
    ],
)
def test_the_rate_is_the_mean_of_samples_whose_halves_agree_within_a_factor_of_two(rates, expected):
    assert settled_rate(line(rates)) == expected


def test_steps_longer_than_the_window_give_a_rate_too():
    remaining, left = RemainingTime(), None
    for now, position in line([1e-4] * 6, seconds=600.0):
        left = remaining.update(now, position, 1.0)
    assert left == pytest.approx((1 - 0.36) / 1e-4)


def test_a_position_that_falls_starts_a_new_rate():
    remaining = RemainingTime()
    for now, position in line([1.0] * 6):
        remaining.update(now, position, 100.0)
    assert remaining.update(70.0, 5.0, 100.0) is None
