"""The lifting of wall data: a function that has the given data on every wall, whatever the kinds of the walls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import InputError
from nivp_dist.problems import Axes, Neumann, Open, Periodic, Problem, Robin, Wall, checks, laplacian
from nivp_dist.problems.wall_data import Lifting, rate_without_lifting, without_lifting

TIME = 0.7
DOMAINS = [
    Axes(Wall(0, 1), Wall(-1, 2), Open(0, 1)),
    Axes(Neumann(0, 1), Robin(-1, 2, 1.5, np.inf), Open(0, 1)),
    Axes(Robin(0, 1, np.inf, 0), Robin(-1, 2, 2, 30), Open(0, 1)),
    Axes(Robin(0, 1, -0.4, 0.2), Periodic(0, 2), Wall(0, 2)),
]


def known(x, t):
    """A function that is no sum of functions of single coordinates, which a Boolean sum would reproduce."""
    return jnp.sin(x[0] + 2 * x[1]) * jnp.exp(0.3 * x[0] * x[2]) * jnp.cos(t) + x[2] ** 2


def data_of(domain, x, t, axis, end):
    """What the condition of a wall takes of that function."""
    value, slopes = jax.value_and_grad(known)(x, t)
    if (b := domain.axes[axis].conditions[end == "upper"]) == np.inf:
        return value
    return slopes[axis] * (1 if end == "upper" else -1) + b * value


def problem_on(domain, outputs=1):
    class Given(Problem):
        def wall_data(self, x, t, axis, end):
            data = data_of(domain, x, t, axis, end)
            return data if outputs == 1 else jnp.stack([data, 0.0 * data])

    Given.domain, Given.outputs = property(lambda self: domain), outputs
    return Given()


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_the_lifting_has_the_data_on_every_wall(domain):
    lifting, x = Lifting(problem_on(domain)), jnp.asarray(domain.sample(np.random.default_rng(0), 3))
    at = jax.jit(jax.vmap(jax.value_and_grad(lambda x: lifting(x, TIME))))
    for i in lifting.axes:
        axis = domain.axes[i]
        for sign, end, bound, b in zip((-1, 1), ("lower", "upper"), (axis.lower, axis.upper), axis.conditions):
            walls = x.at[:, i].set(bound)
            values, slopes = at(walls)
            got = values if b == np.inf else sign * slopes[:, i] + b * values
            given = [data_of(domain, wall, TIME, i, end) for wall in walls]
            np.testing.assert_allclose(got, given, rtol=1e-12, atol=1e-13)


def test_linear_functions_of_one_wall_coordinate_are_their_own_lifting():
    class Heated(Problem):
        domain = property(lambda self: Axes(Periodic(0, 1), Wall(-1, 3)))

        def wall_data(self, x, t, axis, end):
            return 2.0 if end == "upper" else -1.0

    lifting = Lifting(Heated())
    assert float(lifting(jnp.array([0.3, 1.5]), 0.0)) == pytest.approx(-1 + 3 * 2.5 / 4, abs=1e-14)


def test_rates_and_parts_against_differences():
    problem = problem_on(DOMAINS[1], outputs=2)
    lifting, x = Lifting(problem), jnp.array([0.2, 0.4, 0.9])
    difference = (lifting(x, TIME + 1e-4) - lifting(x, TIME - 1e-4)) / 2e-4
    np.testing.assert_allclose(lifting.rate(x, TIME), difference, rtol=1e-6, atol=1e-9)
    f = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(rate_without_lifting(problem, f, x, TIME), f - lifting.rate(x, TIME), rtol=1e-14)
    u = lambda x: jnp.stack([known(x, TIME), x[0]])  # noqa: E731
    np.testing.assert_allclose(without_lifting(problem, u, TIME)(x), u(x) - lifting(x, TIME), rtol=1e-14)
    points = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(lifting.at_points(points, TIME), [lifting(x, TIME), lifting(2 * x, TIME)], rtol=1e-14)


def test_operators_of_right_hand_sides_act_on_it():
    function = lambda x: Lifting(problem_on(DOMAINS[2]))(x, TIME)  # noqa: E731
    x = jnp.array([0.2, 0.4, 0.9])
    np.testing.assert_allclose(laplacian(function, x), jnp.trace(jax.hessian(function)(x)), rtol=1e-11)


class Good(Problem):
    """A heated bar."""

    domain = property(lambda self: Axes(Wall(0, 1), Robin(0, 1, 1.0, 0.0)))

    def initial(self, x):
        return x[0] * jnp.exp(x[1])

    def rhs(self, u, x, t):
        return laplacian(u, x)

    def wall_data(self, x, t, axis, end):
        if axis == 0:
            return x[0] * jnp.exp(x[1])
        return 0.0 if end == "lower" else x[0] * jnp.exp(1.0)


def given(function):
    return {"wall_data": lambda self, x, t, axis, end: function(x, t, axis, Good().wall_data(x, t, axis, end))}


MISTAKES = [
    ({"domain": property(lambda self: Axes(Open(0, 1), Periodic(0, 1)))}, "needs 1 to 4 axes that are Wall, Neumann"),
    ({"even": (0,)}, "wall_data and even or parities exclude each other: leave out the latter"),
    (given(lambda x, t, axis, g: x), r"wall_data\(x, t, axis, end\) must be a number, of shape"),
    (
        given(lambda x, t, axis, g: None),
        r"must be a number, of shape \(\), got None for axis 0, 'lower'; where there are",
    ),
    (given(lambda x, t, axis, g: x[:1]), r"got the shape \(1,\) for axis 0, 'lower'"),
    (given(lambda x, t, axis, g: jnp.log(-1 - x[0] ** 2)), r"wall_data\(x, t, 0, 'lower'\) at t = 0 is not finite"),
    (
        given(lambda x, t, axis, g: 1.0 * (axis == 0)),
        "wall_data of axis 0, 'lower', does not agree with those of another axis where their walls meet: they differ",
    ),
    (
        given(lambda x, t, axis, g: (2 + t) * g),
        r"must have the wall data .*: \|u0 - g\| = .* at x\[0\] = 1",
    ),
    (
        {"initial": lambda self, x: Good.initial(self, x) * (1 + (1 - x[0]) * x[1])},
        r"\|du0/dn \+ 1 u0 - g\| = .* x\[1\]",
    ),
]


def test_good_data_pass():
    assert checks.check(Good(), "bar") == []


class Plate(Good):
    """Heated at one wall only: elsewhere the data are exactly zero, and the lifting is zero to rounding."""

    domain = property(lambda self: Axes(Wall(0, 1), Wall(0, 1)))

    def initial(self, x):
        return jnp.sin(np.pi * x[0]) * x[1]

    def wall_data(self, x, t, axis, end):
        return jnp.sin(np.pi * x[0]) if (axis, end) == (1, "upper") else 0.0


class Ending(Plate):
    """Data that exist up to t = 1/2 only."""

    def wall_data(self, x, t, axis, end):
        return Plate.wall_data(self, x, t, axis, end) * jnp.sqrt(0.5 - t) / np.sqrt(0.5)


def test_data_of_one_wall_and_of_a_limited_time_pass():
    assert checks.check(Plate(), "plate") == [] and checks.check(Ending(), "plate", 0.0, 0.4) == []
    with pytest.raises(InputError, match=r"Ending.wall_data\(x, t, 0, 'lower'\) at t = 1 is not finite at"):
        checks.check(Ending(), "plate")


@pytest.mark.parametrize("at", [0.05, 0.5003])
def test_data_that_jump_are_refused_and_fast_ones_are_not(at):
    def plate(factor):
        data = lambda self, x, t, axis, end: Plate.wall_data(self, x, t, axis, end) * factor(t)  # noqa: E731
        return type("Plate", (Plate,), {"wall_data": data})()

    assert checks.check(plate(lambda t: 1 + jnp.tanh((t - at) / 1e-4) - jnp.tanh(-at / 1e-4)), "plate") == []
    with pytest.raises(InputError, match=f"Plate.wall_data jump by .* at t = {at}: let them change smoothly"):
        checks.check(plate(lambda t: jnp.where(t > at, 2.0, 1.0)), "plate")


@pytest.mark.parametrize("b", [1e-9, 50.0, 1e9, 1e16, -3.0])
@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
def test_shapes_in_any_unit_of_length(length, b):
    """u = g at the lower end, du/dn + (b / length) u = g at the upper one, by linear functions of xi."""
    lifting = Lifting(problem_on(Axes(Robin(0, length, np.inf, b / length), Open(0, 1), Open(0, 1))))
    lower, upper = (np.array(end.shape) for end in lifting.ends[0])
    assert len(lower) == len(upper) == 2
    at_lower, at_upper, slope = np.array([1, -1]), np.array([1, 1]), np.array([0, 2 / length])
    condition = (slope + b / length * at_upper) * length / (1 + abs(b))
    np.testing.assert_allclose([at_lower @ lower, condition @ lower], [1, 0], atol=1e-13)
    size = length / (1 + abs(b))
    np.testing.assert_allclose([at_lower @ upper / size, condition @ upper / size], [0, 1], atol=1e-13)


@pytest.mark.parametrize("changes, line", MISTAKES, ids=[line[:40] for _, line in MISTAKES])
def test_mistakes_are_told_in_one_line(changes, line):
    with pytest.raises(InputError, match=line) as caught:
        checks.check(type("Bad", (Good,), changes)(), "bar.toml")
    assert str(caught.value).startswith("bar.toml: Bad.") and "\n" not in str(caught.value)
