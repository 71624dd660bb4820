"""Given data on the walls of a domain: u = l + v, a lifting l that has the data and a v whose data are zero.

The network represents v, which satisfies its boundary conditions exactly, and so u has the given data exactly:

    v_t = L[l + v](x, t) - l_t(x, t).

For one axis l is the sum of the data at its two ends times functions of the coordinate. For several it is their Boolean
sum (Gordon 1971, transfinite interpolation): the axes are taken one after another, each corrects what the ones before
have left at its walls. It uses the data on the walls alone.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.problems.axes import Axis
from nivp_dist.problems.base import Problem

MOST_AXES = 4  # a value of l with data on k axes takes 3^k - 1 values of the data, and more with slopes
ROUNDING = 1e-14  # coefficients of polynomials below this, relative to the largest, are zero
LARGEST_CONDITION = 100.0  # of the 2 x 2 system for a linear function; two Neumann ends have none


class End(NamedTuple):
    """One end of an axis that has data.

    Attributes:
        axis: its number. name: "lower" or "upper". sign: -1 or 1, the direction of the outward normal. bound: x there.
        b: of the condition du/dn + b u = g; inf for u = g.
        shape: coefficients, constant first, of the polynomial in the network's coordinate that has g = 1 at this end
            and g = 0 at the other.
    """

    axis: int
    name: str
    sign: int
    bound: float
    b: float
    shape: tuple[float, ...]


class Lifting:
    """l of a problem with wall data: l(x, t) at a point x (d,), of the shape of u(x)."""

    def __init__(self, problem: Problem):
        self.problem, self.domain = problem, problem.domain
        self.axes = tuple(i for i, axis in enumerate(self.domain.axes) if None not in axis.conditions)
        self.ends = {i: _ends(i, self.domain.axes[i]) for i in self.axes}

    def __call__(self, x, t):
        return self._of_axes(self.axes, t)(x)

    def at_points(self, x, t):
        """l at points x (n, d): (n, m)."""
        return jnp.reshape(jax.vmap(lambda point: self(point, t))(x), (len(x), self.problem.outputs))

    def rate(self, x, t):
        """l_t(x, t)."""
        t = jnp.asarray(t, jnp.float64)
        return jax.jvp(lambda t: self(x, t), (t,), (jnp.ones_like(t),))[1]

    def datum(self, end: End, x, t):
        """The given data at the point of a wall next to x."""
        wall, shape = self._on_wall(end, x), () if self.problem.outputs == 1 else (self.problem.outputs,)
        data = self.problem.wall_data(wall, t, end.axis, end.name)
        return jnp.broadcast_to(jnp.asarray(data, x.dtype), shape)

    def condition(self, end: End, u: Callable, x):
        """What the condition of an end takes of a function u, du/dn + b u or u, at the point of the wall next to x."""
        wall = self._on_wall(end, x)
        if end.b == np.inf:
            return u(wall)
        normal = end.sign * (np.arange(self.domain.dimension) == end.axis)
        value, slope = jax.jvp(u, (wall,), (jnp.asarray(normal, wall.dtype) + 0 * wall,))
        return slope + end.b * value

    def _of_axes(self, axes: tuple[int, ...], t) -> Callable:
        """The function of one point that has the data of these axes, one or more."""

        def lifted(x):
            *others, last = axes
            before = self._of_axes(tuple(others), t) if others else None
            value = before(x) if before else jnp.zeros((), x.dtype)
            for end in self.ends[last]:
                missing = self.datum(end, x, t) - (self.condition(end, before, x) if before else 0.0)
                xi = (x[last] - self.domain.centre[last]) / self.domain.scale[last]
                value = value + missing * sum(c * xi**k for k, c in enumerate(end.shape) if c)
            return value.astype(x.dtype)

        return lifted

    def _on_wall(self, end: End, x):
        return jnp.where(np.arange(self.domain.dimension) == end.axis, jnp.asarray(end.bound, x.dtype), x)


def lifting_of(problem: Problem) -> Lifting | None:
    """The lifting of a problem that has wall data; None if it has none."""
    return Lifting(problem) if callable(problem.wall_data) else None


def without_lifting(problem: Problem, u: Callable, t) -> Callable:
    """The part of a solution that the network represents, as a function of one point."""
    lifting = lifting_of(problem)
    return u if lifting is None else lambda x: u(x) - lifting(x, t)


def rate_without_lifting(problem: Problem, f, x, t):
    """v_t at a point x (d,), from u_t = f there; f itself without wall data."""
    lifting = lifting_of(problem)
    return f if lifting is None else f - jnp.reshape(lifting.rate(x, t), jnp.shape(f)).astype(f.dtype)


def _ends(number: int, axis: Axis) -> tuple[End, End]:
    low, high = cast(tuple[float, float], axis.conditions)
    lower, upper = _shapes(axis.scale, low, high)
    return End(number, "lower", -1, axis.lower, low, lower), End(number, "upper", 1, axis.upper, high, upper)


def _shapes(scale: float, low: float, high: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The polynomials of ``End.shape`` for both ends of an axis, whose half width is scale: linear where such exist."""

    def condition(sign: int, b: float):
        """Of the monomials 1, xi, xi^2 at xi = sign."""
        values, slopes = np.array([1.0, sign, 1.0]), np.array([0.0, 1.0, 2.0 * sign]) * sign / scale
        return values if b == np.inf else slopes + b * values

    conditions = np.stack([condition(-1, low), condition(1, high)])
    sizes = np.linalg.norm(conditions, axis=1)  # of very different size for a large b, or a short axis
    scaled = conditions / sizes[:, None]
    degree = 1 if np.linalg.cond(scaled[:, :2]) < LARGEST_CONDITION else 2
    shapes = np.linalg.pinv(scaled[:, : degree + 1]).T / sizes[:, None]
    shapes[np.abs(shapes) < ROUNDING * np.abs(shapes).max(axis=1, keepdims=True)] = 0.0
    lower, upper = shapes.tolist()
    return tuple(lower), tuple(upper)
