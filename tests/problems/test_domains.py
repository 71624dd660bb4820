"""Domains: every kind answers the same questions."""

import numpy as np
import pytest

from nivp_dist.problems import Axes, Box, Neumann, Open, OpenBox, Periodic, PeriodicBox, Real, Wall, WholeSpace

BOXES = {Wall: Box, Periodic: PeriodicBox, Open: OpenBox}


@pytest.mark.parametrize("axis, kind", BOXES.items())
def test_boxes(axis, kind):
    domain = kind(2, (-1.0, 0.0), (1.0, 3.0))
    assert domain == Axes(axis(-1, 1), axis(0, 3)) and hash(domain) == hash(Axes(axis(-1, 1), axis(0, 3)))
    assert (domain.bounded, domain.dimension, domain.volume, domain.bounded_volume) == (True, 2, 6.0, 6.0)
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
    assert domain == Axes(Real(0.5, 2.0), Real(-0.5, 2.0))
    assert (domain.bounded, domain.dimension, domain.volume, domain.bounded_volume) == (False, 2, np.inf, 1.0)
    np.testing.assert_array_equal(domain.scale, [2.0, 2.0])
    assert domain.contains(np.array([[1e300, -1e300]])).all()
    x = domain.sample(np.random.default_rng(0), 500)
    assert np.all(np.abs(x.mean(axis=0) - domain.centre) < 4 * domain.scale / np.sqrt(500))
    assert np.all(np.abs(x.std(axis=0) - domain.scale) < 4 * domain.scale / np.sqrt(2 * 500))


def test_a_product_of_all_kinds():
    domain = Axes(Real(3, 2), Wall(0, 2), Neumann(0, 1), Periodic(-1, 3), Open(0, 0.5))
    assert (domain.real_axes, domain.bounded_axes, domain.polynomial_axes) == ((0,), (1, 2, 3, 4), (0, 1, 4))
    assert (domain.bounded, domain.volume, domain.bounded_volume) == (False, np.inf, 4.0)
    assert domain.axes_of("wall", "neumann") == (1, 2)
    np.testing.assert_array_equal(domain.centre, [3.0, 1.0, 0.5, 1.0, 0.25])
    x = domain.sample(np.random.default_rng(0), 500)
    assert domain.contains(x).all()
    spread = domain.scale / np.where(np.arange(5) > 0, np.sqrt(3), 1.0)
    assert np.all(np.abs(x.mean(axis=0) - domain.centre) < 4 * spread / np.sqrt(500))
    assert np.all(np.abs(x.std(axis=0) - spread) < 4 * spread / np.sqrt(2 * 500))
    assert domain.normalised() == Axes(Real(), Wall(), Neumann(), Periodic(), Open())
    assert repr(domain).startswith("Axes(Real(3.0, 2.0), Wall(0.0, 2.0), ")


def test_domains_are_compared_by_kind_and_numbers():
    assert Box(2) == Box(2, -1, (1.0, 1.0)) and hash(Box(2)) == hash(Box(2, -1, (1.0, 1.0)))
    others = OpenBox(2), PeriodicBox(2), WholeSpace(2), Axes(Wall(), Neumann()), Axes(Neumann(), Wall())
    assert len({Box(2), Box(3), Box(2, 0.0), *others}) == 8
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
        (lambda: Wall(1, 0), r"Wall\(1, 0\): lower must be below upper, and both finite numbers"),
        (lambda: Periodic(0, np.inf), r"Periodic\(0, inf\): lower must be below upper, and both finite numbers"),
        (lambda: Real(0, -1), r"Real\(0, -1\): scale must be positive, and both finite numbers"),
        (lambda: Axes(), r"Axes needs an axis for each coordinate, such as Axes\(Periodic\(0, 1\), Real\(0, 1\)\)"),
        (lambda: Axes(Real(), [Wall()]), r"axis 1 must be a Wall, .* got \[Wall\(-1.0, 1.0\)\]; a list of axes is"),
    ],
)
def test_wrong_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
