"""What pictures of a solution show: views, which a problem may choose (``Problem.views``)."""

import dataclasses
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nivp_dist.problems.base import Problem

SLICES_FROM = 3  # the smallest dimension of which lines and marginals are shown by default
MOST_AXES, MOST_OUTPUTS = 4, 2  # that are shown by default: the first ones


@dataclasses.dataclass(frozen=True)
class View:
    """A curve along one axis, or an image over two: values of an output, or its marginal.

    Args:
        axes: the one or two axes that are shown, counted from 0: the first runs to the right, the second upwards.
        at: the coordinates on other axes, axis -> value in the units of the equation, such as {2: 0.5}. On an axis that
            is not named it is, at each time, that of the mean of the density of the collocation points.
        output: the number of the output, counted from 0.
        marginal: in place of values the integral over all other axes, as of densities; then ``at`` is empty.
    """

    axes: tuple[int, ...] = (0, 1)
    at: Mapping[int, float] = dataclasses.field(default_factory=dict)
    output: int = 0
    marginal: bool = False


def views_of(problem: "Problem") -> tuple[View, ...]:
    """The views that a problem declares. By default: all of the first two outputs in one or two dimensions; from three
    on lines parallel to the first four axes, and the marginals along these, of the first output."""
    if problem.views:
        return tuple(problem.views)
    d = problem.domain.dimension
    if d < SLICES_FROM:
        return tuple(View(axes=tuple(range(d)), output=k) for k in range(min(problem.outputs, MOST_OUTPUTS)))
    lines = [(axis,) for axis in range(min(d, MOST_AXES))]
    return tuple(View(axes=axes, marginal=marginal) for marginal in (False, True) for axes in lines)


def mistake(problem: "Problem") -> str | None:
    """The first mistake in the views of a problem, in words that follow the name of its class; None without one."""
    views = problem.views
    if not (isinstance(views, tuple) and all(isinstance(view, View) for view in views)):
        return f"views must be a tuple of views, such as (View(axes=(0,)),), got {views!r:.80}"
    found = ((number, _mistake_in(view, problem)) for number, view in enumerate(views))
    return next((f"views[{number}]: {text}" for number, text in found if text), None)


def _mistake_in(view: View, problem: "Problem") -> str | None:
    domain = problem.domain
    d, axes = domain.dimension, view.axes
    known = isinstance(axes, tuple) and all(_is_below(axis, d) for axis in axes)
    if not (known and len(set(axes)) == len(axes) and len(axes) in (1, 2)):
        which = "(0,)" if d == 1 else f"one or two different axes of 0 to {d - 1}, such as (0,) or (0, 1)"
        return f"axes must be {which}, got {axes!r}"
    if not _is_below(view.output, problem.outputs):
        return f"output must be one of 0 to {problem.outputs - 1}, got {view.output!r}"
    if not isinstance(view.at, Mapping):
        return f"at must be a dictionary, axis -> coordinate, such as {{2: 0.5}}, got {view.at!r:.60}"
    for axis, value in view.at.items():
        if not _is_below(axis, d) or axis in axes:
            return f"at names the axis {axis!r}, which is not one of the other axes"
        if not (isinstance(value, Real) and np.isfinite(value) and domain.lower[axis] <= value <= domain.upper[axis]):
            within = f"between {domain.lower[axis]:g} and {domain.upper[axis]:g}"
            return f"at[{axis}] must be a number {within}, got {value!r}"
    if view.marginal and view.at:
        return "a marginal is the integral over all other axes: leave out at"
    if view.marginal and len(axes) == d:
        return "a marginal needs other axes to integrate over: leave out marginal"
    return None


def _is_below(number: object, size: int) -> bool:
    return isinstance(number, Integral) and 0 <= int(number) < size
