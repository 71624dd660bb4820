"""The views of a problem: the default ones, and mistakes in others."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import InputError
from nivp_dist.problems import Axes, Periodic, Problem, Real, View, checks
from nivp_dist.problems.registry import load
from nivp_dist.problems.views import views_of
from nivp_dist.settings.model import ProblemSettings


class Kinetic(Problem):
    """At rest, on a circle and in two velocities."""

    chosen: object = ()
    outputs = 1
    density = True

    @property
    def domain(self):
        return Axes(Periodic(0.0, 2.0), Real(), Real())

    @property
    def views(self):
        return self.chosen

    def initial(self, x):
        return jnp.exp(-(x[1] ** 2) - x[2] ** 2) / (2 * np.pi)

    def rhs(self, u, x, t):
        return 0.0 * u(x)


@pytest.mark.parametrize(
    "name, d, views",
    [
        ("advection", 1, [View(axes=(0,))]),
        ("wave", 2, [View(axes=(0, 1), output=k) for k in (0, 1)]),
        ("heat", 3, [View(axes=(i,), marginal=m) for m in (False, True) for i in range(3)]),
        ("heat", 9, [View(axes=(i,), marginal=m) for m in (False, True) for i in range(4)]),
    ],
)
def test_default_views_suit_the_dimension(name, d, views):
    problem = load(ProblemSettings(name=name, parameters={"dimension": d}))
    assert list(views_of(problem)) == views


def test_declared_views_take_their_place():
    views = (View(axes=(2, 0), at={1: 0.5}), View(axes=(0,), marginal=True), View(axes=(0, 1), at={}))
    assert views_of(Kinetic(chosen=views)) == views and checks.check(Kinetic(chosen=views), "k.toml") == []


@pytest.mark.parametrize(
    "views, line",
    [
        (View(), "views must be a tuple of views, such as (View(axes=(0,)),), got View("),
        (((0, 1),), "views must be a tuple of views, such as (View(axes=(0,)),), got ((0, 1),)"),
        ((View(axes=(0, 1, 2)),), "views[0]: axes must be one or two different axes of 0 to 2, such as (0,) or (0, 1)"),
        ((View(), View(axes=(0, 3))), "views[1]: axes must be one or two different axes of 0 to 2, such as"),
        ((View(axes=(1, 1)),), "views[0]: axes must be one or two different axes of 0 to 2, such as"),
        ((View(axes=0),), "views[0]: axes must be one or two different axes of 0 to 2, such as (0,) or (0, 1), got 0"),
        ((View(output=1),), "views[0]: output must be one of 0 to 0, got 1"),
        ((View(at=0.5),), "views[0]: at must be a dictionary, axis -> coordinate, such as {2: 0.5}, got 0.5"),
        ((View(at={1: 0.5}),), "views[0]: at names the axis 1, which is not one of the other axes"),
        ((View(axes=(1, 2), at={0: 2.5}),), "views[0]: at[0] must be a number between 0 and 2, got 2.5"),
        ((View(at={2: "0"}),), "views[0]: at[2] must be a number between -inf and inf, got '0'"),
        ((View(at={2: 0.0}, marginal=True),), "views[0]: a marginal is the integral over all other axes: leave out at"),
    ],
)
def test_a_mistake_is_one_line_before_the_run(views, line):
    with pytest.raises(InputError, match="^" + re.escape(f"k.toml: Kinetic.{line}")):
        checks.check(Kinetic(chosen=views), "k.toml")
