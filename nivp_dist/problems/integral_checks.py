"""Checks, before a run, of a nonlocal equation: its integrals, and the nodes by which they are computed."""

import inspect
from collections.abc import Callable

import jax
import numpy as np

from nivp_dist.problems.base import Problem
from nivp_dist.problems.nonlocal_terms import further_arguments, integrals_of, samples
from nivp_dist.problems.user_code import UserCode

WHAT = "integrals(self, u, x, t)"
# Largest difference of the sum of the weights from the volume of a bounded domain, relative to it: nodes may leave out
# walls, and places where u is zero.
VOLUME_TOLERANCE = 0.3
DRAWS = 4  # of points, by which the statistical error of integrals is measured
# Largest change of L[u0] by that error, relative to it, without a warning.
LARGEST_NOISE = 0.1


def check_integrals(problem: Problem, code: UserCode) -> None:
    """Shapes and finite values of the integrals' densities; the nodes.

    Raises InputError with one line (``UserCode.fail``).
    """
    domain, parameters = problem.domain, inspect.signature(problem.rhs).parameters.values()
    taken = sum(parameter.default is parameter.empty for parameter in parameters)
    if callable(problem.integrals) != (taken == 4):
        if taken == 4:
            code.fail(f"rhs has a fourth argument, the integrals: define {WHAT}, or leave it out")
        elif taken == 3:
            code.fail("rhs must take the integrals, too: rhs(self, u, x, t, integrals)")
    if not callable(problem.integrals):
        if callable(problem.quadrature):
            code.fail(f"quadrature() is of no use without {WHAT}: define that too, or leave it out")
        return
    point, time = jax.ShapeDtypeStruct((domain.dimension,), np.float64), jax.ShapeDtypeStruct((), np.float64)
    densities = lambda x, t: problem.integrals(problem.initial, x, t)  # noqa: E731
    shape = np.shape(code.call("integrals(u, x, t)", jax.eval_shape, densities, point, time))
    if len(shape) != 1:
        code.fail(f"integrals(u, x, t) must have shape (k,), got {shape}; stack its parts with jnp.stack")
    if callable(problem.quadrature):
        _nodes(problem, code)
    value = code.call("integrals(u, x, t)", lambda: further_arguments(problem, problem.initial, code.t)[0])
    if not np.all(np.isfinite(value)):
        code.fail(f"integrals(u, x, t) of u0 has integrals that are not finite: {np.asarray(value)}")


def _nodes(problem: Problem, code: UserCode) -> None:
    domain, rule = problem.domain, code.call("quadrature()", lambda: problem.quadrature())
    expected = f"quadrature() must return nodes (q, {domain.dimension}) and weights (q,)"
    if not (isinstance(rule, tuple | list) and len(rule) == 2):
        code.fail(f"{expected}, got {type(rule).__name__}")
    nodes, weights = code.call("quadrature()", lambda: [np.asarray(part, np.float64) for part in rule])
    if not (nodes.ndim == 2 and nodes.shape[1] == domain.dimension and weights.shape == nodes.shape[:1]):
        code.fail(f"{expected}, got {nodes.shape} and {weights.shape}")
    outside = ~np.all((nodes >= domain.lower) & (nodes <= domain.upper), axis=1)
    if outside.any():
        code.fail(f"quadrature() has {outside.sum()} nodes outside of the domain, such as {nodes[outside][0]}")
    if domain.bounded and not abs(weights.sum() - domain.volume) <= VOLUME_TOLERANCE * domain.volume:
        code.fail(
            f"quadrature() has weights whose sum is {weights.sum():.4g}, and the domain has a volume of "
            f"{domain.volume:.4g}: a weight is the volume that its node stands for"
        )


def noise_of_integrals(problem: Problem, points: np.ndarray, code: UserCode) -> list[str]:
    """A warning where sums over points are too noisy for the equation, in a bounded domain: one line, or none."""
    if not callable(problem.integrals) or callable(problem.quadrature) or not problem.domain.bounded:
        return []

    rhs: Callable = problem.rhs  # with a fourth argument

    def rate(x, integrals):
        return rhs(problem.initial, x, code.t, integrals)

    draws = [samples(problem, seed) for seed in range(DRAWS)]
    values = [integrals_of(problem, problem.initial, code.t, draw) for draw in draws]
    rates = np.stack([jax.jit(jax.vmap(rate, (0, None)))(points, value) for value in values])
    noise, size = np.sqrt(np.mean(np.var(rates, axis=0, ddof=1))), np.sqrt(np.mean(rates**2))
    if not noise > LARGEST_NOISE * size:
        return []
    return [
        f"{code.source}: {code.name}.integrals over {len(draws[0][0])} points have a statistical error that changes "
        f"rhs(u, x, t) by {100 * noise / size:.0f} % at the start: define quadrature(self), whose nodes have none"
    ]
