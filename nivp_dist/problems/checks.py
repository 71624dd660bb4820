"""Checks of a problem before the network is built: shapes, finite values, boundary data, declared properties."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist import backend  # noqa: F401  float64 before any array is made
from nivp_dist.problems import reads, views
from nivp_dist.problems.base import Problem, has_reference, output_names, stored_initial
from nivp_dist.problems.boundary_checks import (
    POINTS,
    SCALE_POINTS,
    check_boundary,
    check_symmetry,
    check_wall_data,
    open_ends,
    points_of,
)
from nivp_dist.problems.domains import Domain
from nivp_dist.problems.integral_checks import check_integrals, noise_of_integrals
from nivp_dist.problems.nonlocal_terms import further_arguments
from nivp_dist.problems.operators import divergence, generator
from nivp_dist.problems.user_code import UserCode, shown
from nivp_dist.settings.sources import data_path

# Largest |L[u + v] - L[u] - L[v]| over the largest of the three. For a linear L it is rounding too; a nonlinear L
# differs by a part of itself.
LINEARITY_TOLERANCE = 1e-6
# Largest difference of L[u0] from the time derivative that drift and noise give, over the largest |L[u0]|: rounding.
PARTICLES_TOLERANCE = 1e-6
# Largest |reference - u0| at the start over max |u0|. The shipped references differ by 1.5e-6 at most, and the errors
# of runs are rarely below 1e-4: a reference that is further off cannot measure them.
REFERENCE_TOLERANCE = 1e-4
# The same where u0 is the solution of another run, which differs from the reference by the error of that run.
STORED_TOLERANCE = 2e-2


def check(problem: Problem, source: str, t_start: float = 0.0, t_end: float | None = None) -> list[str]:
    """Check domain, shapes, finite values, boundary data, linearity, symmetry and reference at fixed points.

    Args:
        source: the name of the problem in messages, such as its file.
        t_start: the time of the initial condition, at which rhs and reference are evaluated. t_end: of the run, up to
            which wall data are; None: t_start + 1.

    Returns: warnings of one line each, about what leaves the solution right and its reported errors wrong.

    Raises InputError: the first mistake that is found, in one line; for an exception in the user's code with its file
    and line.
    """
    code = UserCode(problem, source, t_start)
    domain = _domain(problem, code)
    points = points_of(domain, POINTS)
    x = jax.ShapeDtypeStruct((domain.dimension,), np.float64)
    time = jax.ShapeDtypeStruct((), np.float64)
    shape = () if problem.outputs == 1 else (problem.outputs,)

    def rhs(x, t):
        return problem.rhs(problem.initial, x, t, *further_arguments(problem, problem.initial, t))

    code.shape("initial(x)", shape, problem.initial, x)
    check_integrals(problem, code)
    code.shape("rhs(u, x, t)", shape, rhs, x, time)

    initial = jax.jit(jax.vmap(problem.initial))
    code.finite("initial(x)", points, code.call("initial(x)", initial, points))
    if callable(problem.wall_data):
        check_wall_data(problem, code, t_start + 1.0 if t_end is None else t_end)
    check_boundary(problem, initial, code)
    velocity = code.call("rhs(u, x, t)", jax.jit(jax.vmap(rhs, (0, None))), points, t_start)
    code.finite(f"rhs(u, x, t) at t = {t_start:g} with u = initial", points, velocity)
    if callable(problem.invariants):
        _invariants(problem, x, code)
    if callable(problem.energy):
        _energy(problem, points, code)
    if problem.linear:
        _linearity(problem, points, np.asarray(velocity), code)
    check_symmetry(problem, initial, rhs, code)
    if callable(problem.drift):
        _particles(problem, points, rhs, code)
    warnings = _reference(problem, initial, code) if has_reference(problem, t_start) else []
    warnings += noise_of_integrals(problem, points, code) + open_ends(problem, code) + _far_away(problem, code)
    return warnings + _undeclared_files(problem, code)


def _domain(problem: Problem, code: UserCode) -> Domain:
    domain = code.call("domain", lambda: problem.domain)
    if not isinstance(domain, Domain):
        hint = "; put @property above it" if callable(domain) else ""
        code.fail(f"domain must be a Box, PeriodicBox, OpenBox, WholeSpace or Axes, got {type(domain).__name__}{hint}")
    if not (isinstance(problem.outputs, int) and problem.outputs >= 1):
        code.fail(f"outputs must be a whole number of at least 1, got {problem.outputs!r}")
    named = problem.output_names
    a_tuple = isinstance(named, tuple) and all(isinstance(name, str) for name in named)
    if named != Problem.output_names and not (a_tuple and len(named) == problem.outputs):
        code.fail(
            f"output_names must be a tuple of one name for each output (outputs = {problem.outputs}), got {named!r}"
        )
    if (text := code.call("views", views.mistake, problem)) is not None:
        code.fail(text)
    return domain


def _invariants(problem: Problem, x: jax.ShapeDtypeStruct, code: UserCode) -> None:
    shapes = code.call("invariants(u, x)", jax.eval_shape, lambda point: problem.invariants(problem.initial, point), x)
    if not (isinstance(shapes, dict) and all(isinstance(name, str) for name in shapes)):
        code.fail("invariants(u, x) must return a dictionary, name -> density at x")
    for name, density in shapes.items():
        if getattr(density, "shape", None) != ():
            code.fail(f"invariants(u, x)['{name}'] must be a scalar, got {getattr(density, 'shape', density)}")


def _energy(problem: Problem, points: np.ndarray, code: UserCode) -> None:
    """The shape of the components of the energy, and e(u0 + v) against e(u0) + e(v)."""
    x, other = jax.ShapeDtypeStruct((problem.domain.dimension,), np.float64), _other(problem)
    shape = np.shape(code.call("energy(u, x)", jax.eval_shape, lambda point: problem.energy(problem.initial, point), x))
    if len(shape) != 1:
        code.fail(f"energy(u, x) must have shape (k,), got {shape}")

    def parts(x):
        both = problem.energy(lambda y: problem.initial(y) + other(y), x)
        return both, both - problem.energy(problem.initial, x) - problem.energy(other, x)

    together, misfit = (np.abs(each).max() for each in code.call("energy(u, x)", jax.jit(jax.vmap(parts)), points))
    if not misfit <= LINEARITY_TOLERANCE * together:
        code.fail(f"energy(u, x) must be linear in u: e(u + v) differs from e(u) + e(v) by {misfit:.3g}")


def _other(problem: Problem) -> Callable:
    """Another function: 3 u0 sin(sum of the scaled coordinates)."""
    domain = problem.domain
    return lambda x: 3 * jnp.sin(jnp.sum((x - domain.centre) / domain.scale)) * problem.initial(x)


def _linearity(problem: Problem, points: np.ndarray, velocity: np.ndarray, code: UserCode) -> None:
    """Compare L[u0 + v] with L[u0] + L[v], v another function."""
    other = _other(problem)

    def both(x, t):
        integrals = further_arguments(problem, problem.initial, t)
        together = problem.rhs(lambda y: problem.initial(y) + other(y), x, t, *integrals)
        return problem.rhs(other, x, t, *integrals), together

    apart, together = code.call("rhs(u, x, t)", jax.jit(jax.vmap(both, (0, None))), points, code.t)
    size = np.maximum(np.abs(velocity), np.abs(apart)).max()
    misfit = np.abs(np.asarray(together) - velocity - np.asarray(apart)).max()
    if not misfit <= LINEARITY_TOLERANCE * size:
        code.fail(
            f"linear = True, but rhs(u + v) differs from rhs(u) + rhs(v) by {misfit:.3g} (max |rhs| = {size:.3g}): "
            "set it to False"
        )


def _particles(problem: Problem, points: np.ndarray, rhs: Callable, code: UserCode) -> None:
    """Compare L[u0] with the time derivative of the density of particles with the problem's drift and noise."""
    d = problem.domain.dimension
    noise = problem.noise if callable(problem.noise) else lambda t: np.zeros((d, 1))
    x, time = (jax.ShapeDtypeStruct(shape, np.float64) for shape in ((d,), ()))
    drift_shape = np.shape(code.call("drift(x, t)", jax.eval_shape, problem.drift, x, time))
    if drift_shape != (d,):
        code.fail(f"drift(x, t) must have shape ({d},), got {drift_shape}")
    noise_shape = np.shape(code.call("noise(t)", jax.eval_shape, noise, time))
    if len(noise_shape) != 2 or noise_shape[0] != d:
        code.fail(f"noise(t) must have shape ({d}, k), got {noise_shape}")

    def both(x, t):
        field = lambda y: problem.drift(y, t)  # noqa: E731
        transport = generator(problem.initial, x, -field(x), noise(t))
        return rhs(x, t), transport - divergence(field, x) * problem.initial(x)

    both = jax.jit(jax.vmap(both, (0, None)))
    for t in (code.t, code.t + 1.0):
        of_rhs, of_particles = (np.asarray(rate) for rate in code.call("drift(x, t)", both, points, t))
        size, misfit = np.abs(of_rhs).max(), np.abs(of_rhs - of_particles).max()
        if not misfit <= PARTICLES_TOLERANCE * size:
            code.fail(
                f"drift and noise do not belong to rhs: -div(a u) + tr(B B^T Hess u) / 2 differs from rhs(u, x, t) at "
                f"t = {t:g} with u = initial by {misfit:.3g} (max |rhs| = {size:.3g}): correct one of them"
            )


def _reference(problem: Problem, initial: Callable, code: UserCode) -> list[str]:
    """Compare the reference at the start with u0, at some points of the domain and at those where |u0| is largest.

    A difference is a warning and not an error, because the run does not use the reference: only the errors that it
    reports are wrong.
    """
    points = points_of(problem.domain, SCALE_POINTS)
    u0 = np.asarray(code.call("initial(x)", initial, points)).reshape(len(points), -1)
    largest = np.argsort(-np.abs(u0).max(axis=1), kind="stable")[: POINTS // 2]
    chosen = np.concatenate([np.arange(POINTS // 2), largest])
    size, points, u0 = np.nanmax(np.abs(u0)), points[chosen], u0[chosen]
    values = np.asarray(code.call("reference(x, t)", problem.reference, points, code.t))
    allowed = [(len(points),)] + [(len(points), k) for k in range(1, problem.outputs + 1)]
    if values.shape not in allowed:
        allowed = f"(n,) or (n, k), k <= {problem.outputs}"
        code.fail(f"reference(x, t) must have shape {allowed}, got {values.shape} for n = {POINTS}")
    code.finite(f"reference(x, t) at t = {code.t:g}", points, values)
    values = np.asarray(values, np.float64).reshape(len(points), -1)
    misfit = np.abs(values - u0[:, : values.shape[1]])
    point, output = np.unravel_index(misfit.argmax(), misfit.shape)
    solution = stored_initial(problem)
    if misfit.max() <= (REFERENCE_TOLERANCE if solution is None else STORED_TOLERANCE) * size:
        return []
    mend = "correct one of them" if solution is None else f"set integrator.t_start to the time of {solution}"
    return [
        f"{code.source}: {code.name}.reference(x, t = {code.t:g}) differs from {code.name}.initial(x) by "
        f"{misfit.max():.3g} in {output_names(problem)[output]} at x = {shown(points[point])} "
        f"(max |u0| = {size:.3g}): {mend}, or the errors that the run reports are wrong"
    ]


def _far_away(problem: Problem, code: UserCode) -> list[str]:
    """A warning where a plain network represents u along a real axis: it does not vanish far away."""
    domain = problem.domain
    if not domain.real_axes or problem.density:
        return []
    axis = domain.axes[domain.real_axes[0]]
    return [
        f"{code.source}: {code.name} is no density, and a network of u itself (network.form = 'direct') does not "
        f"vanish far out along {axis}: use Wall(-V, V) where u is zero beyond V, or density = True if u > 0"
    ]


def _undeclared_files(problem: Problem, code: UserCode) -> list[str]:
    """Warnings about files that the problem has read so far and does not declare."""
    if code.file is None:
        return []
    folder = Path(code.file).parent
    solution = stored_initial(problem)
    names = [*problem.data_files, *([*solution.files, solution.record] if solution is not None else [])]
    declared = {data_path(folder, name) for name in names}
    return [
        f"{code.source}: {code.name} reads {path}, which is not in its data_files: if that is edited, a resume goes on "
        "with another equation"
        for path in sorted(reads.by(folder) - declared)
    ]
