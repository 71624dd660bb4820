"""Domains: every kind answers the same questions."""

import numpy as np
import pytest

from nivp_dist.problems import Box, OpenBox, PeriodicBox, WholeSpace

BOXES = {"zero": Box, "periodic": PeriodicBox, "none": OpenBox}


@pytest.mark.parametrize("walls, kind", BOXES.items())
def test_boxes(walls, kind):
    domain = kind(2, (-1.0, 0.0), (1.0, 3.0))
    assert (domain.walls, domain.bounded, domain.dimension, domain.volume) == (walls, True, 2, 6.0)
    np.testing.assert_array_equal(domain.centre, [0.0, 1.5])
    np.testing.assert_array_equal(domain.scale, [1.0, 1.5])
    inside = domain.contains(np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [-0.9, 0.1]]))
    np.testing.assert_array_equal(inside, [True, False, False, True])
    x = domain.sample(np.random.default_rng(0), 500)
    assert x.shape == (500, 2) and domain.contains(x).all()
    # 4 standard errors of the mean of 500 uniform numbers.
    assert np.all(np.abs(x.mean(axis=0) - domain.centre) < 4 * domain.scale / np.sqrt(3 * 500))


def test_whole_space():
    domain = WholeSpace(2, (0.5, -0.5), 2.0)
    assert (domain.walls, domain.bounded, domain.dimension, domain.volume) == ("none", False, 2, np.inf)
    np.testing.assert_array_equal(domain.scale, [2.0, 2.0])
    assert domain.contains(np.array([[1e300, -1e300]])).all()
    x = domain.sample(np.random.default_rng(0), 500)
    assert np.all(np.abs(x.mean(axis=0) - domain.centre) < 4 * domain.scale / np.sqrt(500))
    assert np.all(np.abs(x.std(axis=0) - domain.scale) < 4 * domain.scale / np.sqrt(2 * 500))


def test_domains_are_compared_by_kind_and_numbers():
    assert Box(2) == Box(2, -1, (1.0, 1.0)) and hash(Box(2)) == hash(Box(2, -1, (1.0, 1.0)))
    assert len({Box(2), Box(3), OpenBox(2), PeriodicBox(2), WholeSpace(2), Box(2, 0.0)}) == 6
    with pytest.raises(ValueError, match="read-only"):
        Box(2).lower[0] = 0.0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Box(0), "dimension must be at least 1, got 0"),
        (lambda: Box(1, -np.inf), "lower must be finite, got -inf"),
        (lambda: Box(2, 1, (2.0, 1.0)), "lower must be below upper on every axis"),
        (lambda: WholeSpace(1, scale=0.0), "scale must be positive, got 0.0"),
        (lambda: Box(3, (0.0, 0.0)), "broadcast"),
    ],
)
def test_wrong_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
