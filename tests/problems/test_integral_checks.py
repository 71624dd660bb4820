"""Checks of the integrals of a nonlocal equation and of the nodes by which they are computed."""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import InputError
from nivp_dist.problems import Axes, Box, Periodic, Problem, Real, Wall, checks, gradient
from nivp_dist.problems.vlasov_poisson import VlasovPoisson

X = np.linspace(-1, 1, 41)[1:-1, None]


class Good(Problem):
    """u_t = - E u_x, E the integral of x u."""

    domain = property(lambda self: Box(1))

    def initial(self, x):
        return (1 - x[0] ** 2) * (1 + 0.3 * x[0])

    def integrals(self, u, x, t):
        return (x[0] * u(x))[None]

    def quadrature(self):
        return X, np.full(39, 2 / 39)

    def rhs(self, u, x, t, integrals):
        return -integrals[0] * gradient(u, x)[0]


MISTAKES = [
    ({"quadrature": lambda self: None}, r"quadrature\(\) must return nodes \(q, 1\) and weights \(q,\), got NoneType"),
    ({"quadrature": lambda self: (X, np.ones(3))}, r"weights \(q,\), got \(39, 1\) and \(3,\)"),
    ({"quadrature": lambda self: (2 * X, np.full(39, 2 / 39))}, "has 18 nodes outside of the domain, such as "),
    (
        {"quadrature": lambda self: (X, np.full(39, 1 / 39))},
        "whose sum is 1, and the domain has a volume of 2: a",
    ),
    ({"rhs": lambda self, u, x, t: 0.0}, r"rhs must take the integrals, too: rhs\(self, u, x, t, integrals\)$"),
    ({"integrals": None, "quadrature": None}, r"a fourth argument, the integrals: define integrals\(self, u, x, t\)"),
]


def test_good_integrals_pass():
    assert checks.check(Good(), "mine.toml") == []


@pytest.mark.parametrize("changes, line", MISTAKES, ids=[line[:30] for _, line in MISTAKES])
def test_mistakes_are_told_in_one_line(changes, line):
    with pytest.raises(InputError, match=line) as caught:
        checks.check(type("Bad", (Good,), changes)(), "mine.toml")
    assert str(caught.value).startswith("mine.toml: Bad.") and "\n" not in str(caught.value)


def test_integrals_that_points_are_too_few_for_are_named():
    """The field of a neutral plasma is a small difference of large integrals; that of ``Good`` is not."""
    assert checks.check(type("Points", (Good,), {"quadrature": None})(), "mine.toml") == []
    (warning,) = checks.check(type("Noisy", (VlasovPoisson,), {"quadrature": None})(amplitude=0.01), "mine.toml")
    assert warning.startswith("mine.toml: Noisy.integrals over 4096 points have a statistical error that changes rhs")
    assert warning.endswith("% at the start: define quadrature(self), whose nodes have none")


def test_a_plain_network_on_a_real_axis_is_named():
    class Beam(Problem):
        domain = property(lambda self: Axes(Periodic(0, 1), Real(0, 1)))

        def initial(self, x):
            return x[1] ** 2 * jnp.exp(-(x[1] ** 2))

        def rhs(self, u, x, t):
            return -x[1] * gradient(u, x)[0]

    (warning,) = checks.check(Beam(), "mine.toml")
    assert "Beam is no density" in warning and "does not vanish far out along Real(0.0, 1.0): use Wall" in warning
    walled = {"domain": property(lambda self: Axes(Periodic(0, 1), Wall(-10, 10)))}
    assert checks.check(type("Walled", (Beam,), walled)(), "mine.toml") == []
