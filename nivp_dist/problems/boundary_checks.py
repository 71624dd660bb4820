"""Checks, before a run, of what the network satisfies exactly: boundary conditions, wall data, symmetries.

All functions raise InputError with one line (``UserCode.fail``).
"""

from collections.abc import Callable

import jax
import numpy as np

from nivp_dist.problems.base import Problem, symmetries
from nivp_dist.problems.domains import Domain
from nivp_dist.problems.user_code import UserCode
from nivp_dist.problems.wall_data import MOST_AXES, End, Lifting

POINTS = 64  # points at which functions are evaluated; a mistake of shape or sign shows at any of them
SCALE_POINTS = 4096  # points for max |u0|, which a narrow u0 attains at few of them
# Largest |u0 - g| on the walls (periodic: the largest jump of u0) over max |u0|. A Gaussian five widths away is at 4e-6
# of its peak, below the error of any fit.
BOUNDARY_TOLERANCE = 1e-5
# Largest |du0/dn + b u0 - g| where slopes are prescribed, over max |u0| per half width. What has zero slope there and
# differs from u0 by a slope of 1e-3 differs in value by less than 1e-4, because the wrong slope needs to reach a tenth
# of the width only.
SLOPE_TOLERANCE = 1e-3
# Largest misfit of the lifting of wall data, relative to the data: rounding, which derivatives amplify.
LIFTING_TOLERANCE = 1e-6
# Largest difference of u0, or L[u0], at mirrored points over its largest value. For an even function it is rounding,
# which derivatives amplify.
SYMMETRY_TOLERANCE = 1e-9


def points_of(domain: Domain, number: int) -> np.ndarray:
    """Points (number, d) of the domain, the same in every run."""
    return domain.sample(np.random.default_rng(0), number)


def check_wall_data(problem: Problem, code: UserCode) -> None:
    """Shapes and finite values of the data on all walls, and whether they agree where walls meet."""
    what, lifting, points = "wall_data(x, t, axis, end)", Lifting(problem), points_of(problem.domain, POINTS)
    if not 0 < len(lifting.axes) <= MOST_AXES:
        code.fail(f"{what} needs 1 to {MOST_AXES} axes that are Wall, Neumann or Robin, got {len(lifting.axes)}")
    if symmetries(problem):
        code.fail("wall_data and even or parities exclude each other: leave out the latter")
    shapes = [(), (problem.outputs,)] if problem.outputs > 1 else [()]
    ends = [end for axis in lifting.axes for end in lifting.ends[axis]]
    for end in ends:
        data = lambda x, t: problem.wall_data(x, t, end.axis, end.name)  # noqa: E731, B023
        result = code.call(what, jax.eval_shape, data, *_point_and_time(problem))
        if result is None or np.shape(result) not in shapes:
            wanted, got = " or ".join(map(str, shapes)), "None" if result is None else f"the shape {np.shape(result)}"
            code.fail(
                f"{what} must be a number, of shape {wanted}, got {got} for axis {end.axis}, '{end.name}'; where there "
                "are no data it is 0.0"
            )
        given = code.call(what, jax.jit(jax.vmap(lambda x: lifting.datum(end, x, code.t))), points)  # noqa: B023
        code.finite(f"wall_data(x, t, {end.axis}, '{end.name}') at t = {code.t:g}", points, given)
    for t in (code.t, code.t + 1.0):
        for end in ends:
            misfits, given = _misfits(problem, lambda x: lifting(x, t), end, points, t, code)  # noqa: B023
            if not (worst := np.abs(misfits).max()) <= LIFTING_TOLERANCE * np.abs(given).max():
                slope = "" if end.b == np.inf else "; slopes are du/dn, n the outward normal"
                code.fail(
                    f"wall_data of axis {end.axis}, '{end.name}', does not agree with those of another axis where "
                    f"their walls meet: they differ by {worst:.3g} at t = {t:g}; let them change smoothly to one "
                    f"value{slope}"
                )


def check_boundary(problem: Problem, initial: Callable, code: UserCode) -> None:
    """Compare u0 with the boundary conditions."""
    domain = problem.domain
    call = lambda function, x: np.asarray(code.call("initial(x)", function, x))  # noqa: E731
    points = points_of(domain, SCALE_POINTS)
    size = np.abs(call(initial, np.concatenate([points, domain.centre[None]]))).max()
    for axis in domain.axes_of("periodic"):
        low, high = points[:POINTS].copy(), points[:POINTS].copy()
        low[:, axis], high[:, axis] = domain.lower[axis], domain.upper[axis]
        jump = np.abs(call(initial, high) - call(initial, low)).max()
        if not jump <= BOUNDARY_TOLERANCE * size:
            code.fail(f"initial(x) is not periodic in x[{axis}]: it jumps by {jump:.3g} (max |u0| = {size:.3g})")
    lifting = Lifting(problem)
    for end in (end for axis in lifting.axes for end in lifting.ends[axis]):
        misfits, given = _misfits(problem, problem.initial, end, points[:POINTS], code.t, code)
        misfit, largest = float(np.abs(misfits).max()), float(np.abs(given).max())
        scale, tolerance = 1.0, BOUNDARY_TOLERANCE
        if end.b != np.inf:
            scale, tolerance = domain.scale[end.axis], SLOPE_TOLERANCE
        if not misfit * scale <= tolerance * max(size, largest):
            code.fail(f"initial(x) {_unsatisfied(problem, end, misfit)} (max |u0| = {size:.3g})")


def _misfits(problem: Problem, u: Callable, end: End, points: np.ndarray, t: float, code: UserCode):
    """The misfits of a function of one point in the condition of an end, next to points (n, d), and the data there."""
    lifting = Lifting(problem)

    def parts(x):
        given = lifting.datum(end, x, t) if callable(problem.wall_data) else 0.0
        return lifting.condition(end, u, x) - given, given

    return code.call("initial(x)", jax.jit(jax.vmap(parts)), points)


def _unsatisfied(problem: Problem, end: End, misfit: float) -> str:
    where = f"= {misfit:.3g} at x[{end.axis}] = {end.bound:g}"
    if callable(problem.wall_data):
        left = "u0" if end.b == np.inf else f"du0/dn + {end.b:g} u0" if end.b else "du0/dn"
        return f"must have the wall data at the start, t = t_start: |{left} - g| {where}"
    if end.b == np.inf:
        return f"must vanish on the walls: |u0| {where}"
    if end.b == 0:
        return f"must have zero slope on Neumann walls: |du0/dx| {where}"
    return f"must have du0/dn + {end.b:g} u0 = 0 on Robin walls: its size is {where[2:]}"


def check_symmetry(problem: Problem, initial: Callable, rhs: Callable, code: UserCode) -> None:
    """Compare u0 and L[u0] with themselves at mirrored points."""
    domain, outputs = problem.domain, problem.outputs
    declared = isinstance(problem.even, tuple) and isinstance(problem.parities, dict)
    if not declared or not set(symmetries(problem)) <= set(domain.bounded_axes):
        allowed = ", ".join(map(str, domain.bounded_axes)) or "none here"
        if not declared or not set(problem.even) <= set(domain.bounded_axes):
            code.fail(f"even = {problem.even} must be a tuple of axes that are bounded: {allowed}")
        code.fail(f"parities = {problem.parities} must have bounded axes as keys: {allowed}")
    for axis, signs in problem.parities.items():
        if axis in problem.even or len(signs) != outputs or not set(signs) <= {1, -1}:
            code.fail(
                f"parities[{axis}] = {signs} must be a sign, 1 or -1, for each output, and axis {axis} not in even"
            )
    points = points_of(domain, SCALE_POINTS)
    parts = {"initial(x)": initial, "rhs(u, x, t)": jax.jit(jax.vmap(lambda x: rhs(x, code.t)))}
    for what, function in parts.items() if symmetries(problem) else ():
        values = np.asarray(code.call(what, function, points))
        for axis, signs in symmetries(problem).items():
            mirrored = points.copy()
            mirrored[:, axis] = 2 * domain.centre[axis] - points[:, axis]
            of_mirrored = np.asarray(code.call(what, function, mirrored))
            misfit = np.abs(of_mirrored - values * (np.array(signs) if values.ndim > 1 else signs[0])).max()
            if misfit <= SYMMETRY_TOLERANCE * np.abs(values).max():
                continue
            if axis in problem.even:
                code.fail(f"even = {problem.even}, but {what} is not even along axis {axis}: remove that axis")
            code.fail(f"parities[{axis}] = {signs}, but {what} has other signs along axis {axis}: correct them")


def _point_and_time(problem: Problem) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    return jax.ShapeDtypeStruct((problem.domain.dimension,), np.float64), jax.ShapeDtypeStruct((), np.float64)
