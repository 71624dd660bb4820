import pytest

from nivp_dist import formatting


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0 s"), (41.6, "42 s"), (59.7, "1 min 00 s"), (133, "2 min 13 s"), (11100, "3 h 05 min"), (187200, "2 d 4 h")]
    + [(None, "-"), (float("inf"), "-")],
)
def test_durations(seconds, text):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    "value, text",
    [(0.0, "0"), (0.3125, "0.3125"), (1 / 3, "0.3333"), (1.2e-7, "1.20e-07"), (-5e5, "-5.00e+05")]
    + [(34, "34"), (None, "-"), (float("nan"), "-"), ("heat", "heat")],
)
def test_numbers(value, text):
    assert formatting.number(value) == text


def test_sizes():
    assert [formatting.size(count) for count in (81_300, 2_040_000, 1.5075e11)] == ["81.3 kB", "2.04 MB", "151 GB"]


def test_errors_in_words():
    assert formatting.describe_error(1e-3, 2e-3) == "relative L2 error 1.00e-03, estimated 2.00e-03"
    assert formatting.describe_error(float("nan"), 2e-3) == "no reference, estimated relative error 2.00e-03"
    assert (
        formatting.describe_error(None, None) == "no reference"
        and formatting.describe_error(1e-3, None) == "relative L2 error 1.00e-03"
    )
