"""Checks, before a run, of what the network satisfies exactly: boundary conditions, wall data, symmetries.

All functions raise InputError with one line (``UserCode.fail``).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.problems.base import Problem, symmetries
from nivp_dist.problems.domains import Domain
from nivp_dist.problems.nonlocal_terms import further_arguments
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
DATA = "wall_data(x, t, axis, end)"
# Times at which jumps of the data are looked for, and points; an interval of the times is halved so often.
JUMP_TIMES, JUMP_POINTS, HALVINGS = 257, 8, 30
JUMP_TOLERANCE = 1e-3  # largest change of the data over the last interval, relative to the data
# Largest part of the linearised L that is of second or higher order, relative to all of it: rounding.
ORDER_TOLERANCE = 1e-9
# Largest difference of u0, or L[u0], at mirrored points over its largest value. For an even function it is rounding,
# which derivatives amplify.
SYMMETRY_TOLERANCE = 1e-9


def points_of(domain: Domain, number: int) -> np.ndarray:
    """Points (number, d) of the domain, the same in every run."""
    return domain.sample(np.random.default_rng(0), number)


def check_wall_data(problem: Problem, code: UserCode, t_end: float) -> None:
    """Shapes and finite values of the data on all walls, whether they agree where walls meet, and are continuous."""
    lifting, points = Lifting(problem), points_of(problem.domain, POINTS)
    if not 0 < len(lifting.axes) <= MOST_AXES:
        code.fail(f"{DATA} needs 1 to {MOST_AXES} axes that are Wall, Neumann or Robin, got {len(lifting.axes)}")
    if symmetries(problem):
        code.fail("wall_data and even or parities exclude each other: leave out the latter")
    ends = [end for axis in lifting.axes for end in lifting.ends[axis]]
    for end in ends:
        _shape_of_data(problem, end, code)
    given = jax.jit(jax.vmap(lambda x, t: tuple(lifting.datum(end, x, t) for end in ends), (0, None)))
    for t in (code.t, t_end):
        data = code.call(DATA, given, points, t)
        for end, values in zip(ends, data):
            code.finite(f"wall_data(x, t, {end.axis}, '{end.name}') at t = {t:g}", points, values)
        size = max(float(np.abs(values).max()) * _unit(problem, end) for end, values in zip(ends, data))
        for end in ends:
            misfit = np.abs(_misfits(problem, lambda x: lifting(x, t), end, points, t, code, DATA)[0]).max()  # noqa: B023
            if not misfit * _unit(problem, end) <= LIFTING_TOLERANCE * size:
                slope = "" if end.b == np.inf else "; slopes are du/dn, n the outward normal"
                code.fail(
                    f"wall_data of axis {end.axis}, '{end.name}', does not agree with those of another axis where "
                    f"their walls meet: they differ by {misfit:.3g} at t = {t:g}; let them change smoothly to one "
                    f"value{slope}"
                )
        _periodic(problem, lambda x: lifting(x, t), points, f"wall_data at t = {t:g}", size, code)  # noqa: B023
    rate = code.call(DATA, jax.jit(jax.vmap(lambda x: lifting.rate(x, code.t))), points)
    code.finite(f"the time derivative of wall_data at t = {code.t:g}", points, rate)
    _jumps(lifting, points[:JUMP_POINTS], t_end, code)


def _shape_of_data(problem: Problem, end: End, code: UserCode) -> None:
    shapes = [(), (problem.outputs,)] if problem.outputs > 1 else [()]
    data = lambda x, t: problem.wall_data(x, t, end.axis, end.name)  # noqa: E731
    result = code.call(DATA, jax.eval_shape, data, *_point_and_time(problem))
    if result is None or np.shape(result) not in shapes:
        wanted, got = " or ".join(map(str, shapes)), "None" if result is None else f"the shape {np.shape(result)}"
        code.fail(
            f"{DATA} must be a number, of shape {wanted}, got {got} for axis {end.axis}, '{end.name}'; where there "
            "are no data it is 0.0"
        )


def _jumps(lifting: Lifting, points: np.ndarray, t_end: float, code: UserCode) -> None:
    """Fail where the data jump in time: the network's part of u would have to jump back, and cannot.

    The change of the data within the interval in which it differs most from that by their derivative is halved until
    the interval is tiny. What is continuous then changes by next to nothing.
    """
    at = jax.jit(jax.vmap(lambda x, t: (lifting(x, t), lifting.rate(x, t)), (0, None)))
    known: dict[float, tuple] = {}

    def values(t: float):
        if t not in known:
            known[t] = tuple(np.asarray(part) for part in code.call(DATA, at, points, t))
        return known[t]

    def unexplained(low: float, high: float) -> float:
        (before, slope), (after, slope_after) = values(low), values(high)
        return float(np.abs(after - before - (high - low) * (slope + slope_after) / 2).max())

    times = np.linspace(code.t, t_end, JUMP_TIMES).tolist()
    size = max(np.abs(values(t)[0]).max() for t in times)
    low, high = max(zip(times, times[1:]), key=lambda pair: unexplained(*pair))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = max(((low, middle), (middle, high)), key=lambda pair: unexplained(*pair))
    if (jump := unexplained(low, high)) > JUMP_TOLERANCE * size:
        code.fail(f"wall_data jump by {jump:.3g} at t = {low:.4g}: let them change smoothly, however fast")


def _unit(problem: Problem, end: End) -> float:
    """What a misfit in the condition of an end is multiplied with, to be one of u."""
    scale = problem.domain.scale[end.axis]
    return 1.0 if end.b == np.inf else scale / (1 + abs(end.b) * scale)


def check_boundary(problem: Problem, initial: Callable, code: UserCode) -> None:
    """Compare u0 with the boundary conditions."""
    domain = problem.domain
    call = lambda function, x: np.asarray(code.call("initial(x)", function, x))  # noqa: E731
    points = points_of(domain, SCALE_POINTS)
    size = np.abs(call(initial, np.concatenate([points, domain.centre[None]]))).max()
    _periodic(problem, problem.initial, points[:POINTS], "initial(x)", size, code)
    lifting = Lifting(problem)
    for end in (end for axis in lifting.axes for end in lifting.ends[axis]):
        misfits, given = _misfits(problem, problem.initial, end, points[:POINTS], code.t, code, "initial(x)")
        misfit, largest = float(np.abs(misfits).max()), float(np.abs(given).max())
        unit, tolerance = _unit(problem, end), BOUNDARY_TOLERANCE if end.b == np.inf else SLOPE_TOLERANCE
        if not misfit * unit <= tolerance * max(size, largest * unit):
            code.fail(f"initial(x) {_unsatisfied(problem, end, misfit)} (max |u0| = {size:.3g})")


def _periodic(problem: Problem, u: Callable, points: np.ndarray, what: str, size: float, code: UserCode) -> None:
    """Compare a function of one point at both ends of the periodic axes."""
    domain, at = problem.domain, jax.jit(jax.vmap(u))
    for axis in domain.axes_of("periodic"):
        low, high = points.copy(), points.copy()
        low[:, axis], high[:, axis] = domain.lower[axis], domain.upper[axis]
        jump = np.abs(np.asarray(code.call(what, at, high)) - np.asarray(code.call(what, at, low))).max()
        if not jump <= BOUNDARY_TOLERANCE * size:
            code.fail(f"{what} is not periodic in x[{axis}]: it jumps by {jump:.3g} (max |u0| = {size:.3g})")


def _misfits(problem: Problem, u: Callable, end: End, points: np.ndarray, t: float, code: UserCode, what: str):
    """The misfits of a function of one point in the condition of an end, next to points (n, d), and the data there.

    what: whose function it is, for a message about an exception in it.
    """
    lifting = Lifting(problem)

    def parts(x):
        given = lifting.datum(end, x, t) if callable(problem.wall_data) else 0.0
        return lifting.condition(end, u, x) - given, given

    return code.call(what, jax.jit(jax.vmap(parts)), points)


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


def open_ends(problem: Problem, code: UserCode) -> list[str]:
    """A warning where L has derivatives of second or higher order along an ``Open`` axis: one line, or none.

    What enters through the ends of that axis is then given by nothing.
    """
    for axis in problem.domain.axes_of("open"):
        terms, size = code.call("rhs(u, x, t)", _higher_order(problem, axis, code.t), points_of(problem.domain, POINTS))
        if np.nanmax(terms) > ORDER_TOLERANCE * np.nanmax(size):
            return [
                f"{code.source}: {code.name}.rhs has derivatives of second or higher order along axis {axis}, which is "
                "Open: what enters through its ends is given by nothing, and is not in the estimated error; the run "
                "follows the smooth continuation of u. Where other data are meant, use Wall, Neumann or Robin with "
                "wall_data"
            ]
    return []


def _higher_order(problem: Problem, axis: int, t: float) -> Callable:
    """Points x (n, d) -> what terms of second or higher order along an axis add to the linearised L, and its values.

    L is linearised about u0 and applied to plane waves of two wavenumbers k, the cosine and the sine of k (y - x).
    Terms of first order leave the value at x of the former as it is, and double that of the latter with k.
    """
    scale, amplitudes = problem.domain.scale[axis], np.linspace(1.0, 2.0, problem.outputs)
    amplitudes = amplitudes if problem.outputs > 1 else amplitudes[0]

    def response(wave, k, x):
        def rhs(s):
            u = lambda y: problem.initial(y) + s * amplitudes * wave(k * (y[axis] - x[axis]) / scale)  # noqa: E731
            return problem.rhs(u, x, t, *further_arguments(problem, problem.initial, t))

        return jax.jvp(rhs, (0.0,), (1.0,))[1]

    def parts(x):
        (even, even_2), (odd, odd_2) = ([response(wave, k, x) for k in (1.0, 2.0)] for wave in (jnp.cos, jnp.sin))
        return jnp.abs(even_2 - even) + jnp.abs(odd_2 - 2 * odd), jnp.abs(jnp.stack([even, even_2, odd, odd_2]))

    return jax.jit(jax.vmap(parts))


def check_symmetry(problem: Problem, initial: Callable, rhs: Callable, code: UserCode) -> None:
    """Compare u0 and L[u0] with themselves at mirrored points."""
    domain, outputs = problem.domain, problem.outputs
    allowed = ", ".join(map(str, domain.bounded_axes)) or "none here"
    if not (isinstance(problem.even, tuple) and set(problem.even) <= set(domain.bounded_axes)):
        code.fail(f"even = {problem.even} must be a tuple of axes that are bounded: {allowed}")
    if not (isinstance(problem.parities, dict) and set(problem.parities) <= set(domain.bounded_axes)):
        code.fail(f"parities = {problem.parities} must be a dictionary whose keys are bounded axes: {allowed}")
    for axis, signs in problem.parities.items():
        known = isinstance(signs, tuple) and len(signs) == outputs and set(signs) <= {1, -1}
        if axis in problem.even or not known:
            code.fail(
                f"parities[{axis}] = {signs} must be a tuple with a sign, 1 or -1, for each output, and axis {axis} "
                "not in even"
            )
    for axis in symmetries(problem):
        lower, upper = domain.axes[axis].conditions
        if lower != upper:
            code.fail(f"even or parities name axis {axis}, {domain.axes[axis]}, whose ends differ: leave it out")
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
