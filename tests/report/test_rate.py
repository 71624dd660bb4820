"""A rate is given when it means something, and not before."""

import pytest

from nivp_dist.report.rate import Rate, settled_rate


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
def test_settled_rate(rates, expected):
    assert settled_rate(line(rates)) == expected


def test_steps_slower_than_the_window_count_too():
    rate, left = Rate(), None
    for now, position in line([1e-4] * 6, seconds=600.0):
        left = rate.left(now, position, 1.0)
    assert left == pytest.approx((1 - 0.36) / 1e-4)


def test_what_goes_backwards_begins_anew():
    rate = Rate()
    for now, position in line([1.0] * 6):
        rate.left(now, position, 100.0)
    assert rate.left(70.0, 5.0, 100.0) is None
