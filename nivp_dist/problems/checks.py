"""Is this problem well posed as written? Asked before the network is built, so that a mistake costs a second."""

import inspect
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist import backend  # noqa: F401  float64 before any array is made
from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem, has_reference
from nivp_dist.problems.domains import Domain
from nivp_dist.problems.registry import first_line, place_of

POINTS = 64  # where values are looked at
SCALE_POINTS = 4096  # among which the size of u0 is sought
# |u0| on the walls (periodic: its jump) against max |u0|. A Gaussian five of its widths away is at 4e-6: no error that
# a network's own would not hide.
BOUNDARY_TOLERANCE = 1e-5
SYMMETRY_TOLERANCE = 1e-9  # of u0 and L[u0] at mirrored points, against the largest
LINEARITY_TOLERANCE = 1e-6  # |L[u + v] - L[u] - L[v]| against the largest of them


def check(problem: Problem, source: str) -> None:
    """Domain, shapes, finite values, boundary data and reference of a problem, at fixed points and t = 0.

    source: what to call the problem in messages: its file, or its name. Raises InputError: one line with the user's
    file and line where an exception was raised there.
    """
    ask = _Asker(problem, source)
    domain = _domain(problem, ask)
    points = _points(domain, POINTS)
    x = jax.ShapeDtypeStruct((domain.dimension,), np.float64)
    time = jax.ShapeDtypeStruct((), np.float64)
    shape = () if problem.outputs == 1 else (problem.outputs,)

    def rhs(x, t):
        return problem.rhs(problem.initial, x, t)

    ask.shape("initial(x)", shape, problem.initial, x)
    ask.shape("rhs(u, x, t)", shape, rhs, x, time)

    initial = jax.jit(jax.vmap(problem.initial))
    ask.finite("initial(x)", points, ask.call("initial(x)", initial, points))
    _boundary(domain, initial, ask)
    velocity = ask.call("rhs(u, x, t)", jax.jit(jax.vmap(rhs, (0, None))), points, 0.0)
    ask.finite("rhs(u, x, t) at t = 0 with u = initial", points, velocity)
    if callable(problem.invariants):
        _invariants(problem, x, ask)
    if problem.linear:
        _linearity(problem, points, np.asarray(velocity), ask)
    _symmetry(problem, initial, rhs, ask)
    if has_reference(problem):
        _reference(problem, points, ask)


class _Asker:
    """Calls the user's code and turns what goes wrong into one line."""

    def __init__(self, problem: Problem, source: str):
        self.name, self.source = type(problem).__name__, source
        try:
            self.file = inspect.getsourcefile(type(problem))
        except TypeError:  # a class typed into a prompt has no file
            self.file = None

    def fail(self, text: str):
        raise InputError(f"{self.source}: {self.name}.{text}")

    def call(self, what: str, function: Callable, *arguments):
        try:
            return function(*arguments)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  code of users can raise anything
            mend = "; write it with jax.numpy, without float(), if or numpy on x, t or u" if _is_tracing(error) else ""
            place = place_of(error, self.file) or self.source
            raise InputError(f"{place}: {self.name}.{what}: {first_line(error)}{mend}") from None

    def shape(self, what: str, expected: tuple, function: Callable, *arguments):
        result = self.call(what, jax.eval_shape, function, *arguments)
        if not isinstance(result, jax.ShapeDtypeStruct):
            self.fail(f"{what} must return one array, not a {type(result).__name__}; stack its parts with jnp.stack")
        if result.shape != expected:
            outputs = expected[0] if expected else 1
            self.fail(f"{what} must have shape {expected} (outputs = {outputs}), got {result.shape}")
        if not (np.issubdtype(result.dtype, np.floating) or np.issubdtype(result.dtype, np.integer)):
            self.fail(f"{what} must be real, got {result.dtype}")

    def finite(self, what: str, points: np.ndarray, values) -> None:
        bad = ~np.isfinite(np.asarray(values, np.float64).reshape(len(points), -1)).all(axis=1)
        if bad.any():
            where = np.array2string(points[bad][0], precision=3, separator=", ", threshold=6)
            self.fail(f"{what} is not finite at {int(bad.sum())} of {len(points)} points, such as x = {where}")


def _domain(problem: Problem, ask: _Asker) -> Domain:
    domain = ask.call("domain", lambda: problem.domain)
    if not isinstance(domain, Domain):
        mend = "; put @property above it" if callable(domain) else ""
        ask.fail(f"domain must be a Box, PeriodicBox, OpenBox or WholeSpace, got {type(domain).__name__}{mend}")
    if not (isinstance(problem.outputs, int) and problem.outputs >= 1):
        ask.fail(f"outputs must be a whole number of at least 1, got {problem.outputs!r}")
    return domain


def _points(domain: Domain, number: int) -> np.ndarray:
    """Points (number, d), the same in every run: uniform in a box, around the start on the whole space."""
    random = np.random.default_rng(0)
    return domain.sample(random, number)


def _boundary(domain: Domain, initial: Callable, ask: _Asker) -> None:
    if domain.walls == "none":
        return
    inside = np.concatenate([_points(domain, SCALE_POINTS), domain.centre[None]])
    size = np.abs(ask.call("initial(x)", initial, inside)).max()
    for axis in range(domain.dimension):
        low, high = _points(domain, POINTS), _points(domain, POINTS)
        low[:, axis], high[:, axis] = domain.lower[axis], domain.upper[axis]
        at_low, at_high = (np.asarray(ask.call("initial(x)", initial, wall)) for wall in (low, high))
        if domain.walls == "periodic":
            jump = np.abs(at_high - at_low).max()
            if not jump <= BOUNDARY_TOLERANCE * size:
                ask.fail(f"initial(x) is not periodic in x[{axis}]: it jumps by {jump:.3g} (max |u0| = {size:.3g})")
            continue
        for value, wall in ((at_low, domain.lower[axis]), (at_high, domain.upper[axis])):
            largest = np.abs(value).max()
            if not largest <= BOUNDARY_TOLERANCE * size:
                ask.fail(
                    f"initial(x) must vanish on the walls of a Box: |u0| = {largest:.3g} at x[{axis}] = {wall:g} "
                    f"(max |u0| = {size:.3g})"
                )


def _invariants(problem: Problem, x: jax.ShapeDtypeStruct, ask: _Asker) -> None:
    shapes = ask.call("invariants(u, x)", jax.eval_shape, lambda point: problem.invariants(problem.initial, point), x)
    if not (isinstance(shapes, dict) and all(isinstance(name, str) for name in shapes)):
        ask.fail("invariants(u, x) must return a dictionary, name -> density at x")
    for name, density in shapes.items():
        if getattr(density, "shape", None) != ():
            ask.fail(f"invariants(u, x)['{name}'] must be a scalar, got {getattr(density, 'shape', density)}")


def _linearity(problem: Problem, points: np.ndarray, velocity: np.ndarray, ask: _Asker) -> None:
    """L[u0 + v] against L[u0] + L[v], v = 3 u0 sin(sum of the domain's coordinates)."""
    domain = problem.domain

    def other(x):
        return 3 * jnp.sin(jnp.sum((x - domain.centre) / domain.scale)) * problem.initial(x)

    def both(x, t):
        return problem.rhs(other, x, t), problem.rhs(lambda y: problem.initial(y) + other(y), x, t)

    apart, together = ask.call("rhs(u, x, t)", jax.jit(jax.vmap(both, (0, None))), points, 0.0)
    size = np.maximum(np.abs(velocity), np.abs(apart)).max()
    misfit = np.abs(np.asarray(together) - velocity - np.asarray(apart)).max()
    if not misfit <= LINEARITY_TOLERANCE * size:
        ask.fail(
            f"linear = True, but rhs(u + v) differs from rhs(u) + rhs(v) by {misfit:.3g} (max |rhs| = {size:.3g}): "
            "set it to False"
        )


def _symmetry(problem: Problem, initial: Callable, rhs: Callable, ask: _Asker) -> None:
    domain = problem.domain
    if problem.even == ():
        return
    named = isinstance(problem.even, tuple) and all(axis in range(domain.dimension) for axis in problem.even)
    if not (named and domain.bounded):
        ask.fail(f"even = {problem.even} must name axes of a box, a tuple of some of 0 to {domain.dimension - 1}")
    points = _points(domain, SCALE_POINTS)
    parts = {"initial(x)": initial, "rhs(u, x, t)": jax.jit(jax.vmap(lambda x: rhs(x, 0.0)))}
    for what, function in parts.items():
        values = np.asarray(ask.call(what, function, points))
        for axis in problem.even:
            mirrored = points.copy()
            mirrored[:, axis] = 2 * domain.centre[axis] - points[:, axis]
            misfit = np.abs(np.asarray(ask.call(what, function, mirrored)) - values).max()
            if not misfit <= SYMMETRY_TOLERANCE * np.abs(values).max():
                ask.fail(f"even = {problem.even}, but {what} is not even along axis {axis}: take that out")


def _reference(problem: Problem, points: np.ndarray, ask: _Asker) -> None:
    values = np.asarray(ask.call("reference(x, t)", problem.reference, points, 0.0))
    allowed = [(len(points),)] + [(len(points), k) for k in range(1, problem.outputs + 1)]
    if values.shape not in allowed:
        allowed = f"(n,) or (n, k), k <= {problem.outputs}"
        ask.fail(f"reference(x, t) must have shape {allowed}, got {values.shape} for n = {POINTS}")
    ask.finite("reference(x, t) at t = 0", points, values)


def _is_tracing(error: Exception) -> bool:
    return isinstance(error, (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError))
