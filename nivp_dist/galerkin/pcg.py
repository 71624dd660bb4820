"""Preconditioned conjugate gradients for a symmetric positive definite system A x = b.

The method is that of Hestenes and Stiefel (1952), in the preconditioned form of Golub and Van Loan, alg. 11.5.1. It
differs from the textbook in the following.

1. The residual is measured. In finite precision the recurrence for the residual drifts away from b - A x. So every
   `refresh` iterations, and wherever the recurrence claims convergence, the one product of the iteration is spent on
   b - A x instead of a search direction, and replaces the recurrence's residual (van der Vorst and Ye 2000, SIAM J.
   Sci. Comput. 22, 835). Convergence is claimed, and the residual reported, from such a measurement only.
2. A measurement does not restart the iteration. The old direction is kept, since CG that starts over every few steps
   loses its superlinear convergence. It restarts only where the measured residual differs from the recurrence's by
   more than DRIFT: then the precision of the products is used up, and the direction is of no use.
3. The products for search directions may be coarser than those for residuals. This is iterative refinement (Higham
   2002, Accuracy and Stability of Numerical Algorithms, ch. 12): the rounding of the coarse products is no floor. The
   iterations between two measurements are then a loop of their own, in which no product is exact.
   Measured on Jacobians of advection and the wave (p = 4,241 and 2,312, mu = 1e-9, 128 vectors of the spectrum
   deflated), the larger error of J v of the two:

       products                                     after 100    300       600
       float64                                      1.3e-4       2.6e-7    2.5e-11
       float32                                      9.9e-4       2.1e-3    0.45
       float32 in CGLS (diverges for the wave)      1.5e-4       4.8e-7    1.0e-5
       float32, residuals in float64 (this)         1.6e-4       4.4e-7    5.8e-11

4. It can stop by the error in the norm of A, which for A = M + mu I is that of the rate J x. An iteration reduces the
   square of that error by alpha z . r, so that the sum of these over the latest iterations is nearly all of the error
   before them (Strakos and Tichy 2002, ETNA 13, eq. 4.8). The residual is a poor guide: it weighs most the directions
   of large eigenvalues, where the error is small already.
5. The initial guess is dropped if its residual is larger than that of zero, |b|.
6. The iterate of the smallest measured residual is returned with a result code, whether CG converged or not.

An iteration applies A once. Where vectors are replicated that product alone communicates; where they are sharded
(``vectors``) dot products do too, in two groups an iteration.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.galerkin.vectors import local_dots

CONVERGED, ITERATION_LIMIT, STAGNATED, BROKEN = 0, 1, 2, 3
CODE_NAMES = {
    CONVERGED: "converged",
    ITERATION_LIMIT: "iteration limit",
    STAGNATED: "stagnated at the floor of the precision",
    BROKEN: "not a number, or a direction of negative curvature",
}
UNFINISHED = -1  # the code while it iterates
REFRESH = 25  # iterations between two measured residuals: their products are 4 % of all
DRIFT = 0.1  # difference of measured and recursive residual, relative to the measured one, that restarts
# So many drifts, without a measured residual below PROGRESS times the smallest one between them, are stagnation.
MOST_DRIFTS, PROGRESS = 3, 0.9
# The iterations whose gains estimate the error before them: at least DELAY, and DELAY_SHARE of all since the start,
# because slow convergence needs a longer sum.
DELAY, DELAY_SHARE = 10, 0.25


class System(NamedTuple):
    """A x = b with b, x (p,) float64.

    Attributes:
        product: v (p,) -> A v. right_hand_side: b.
        dots: pairs of vectors -> their dot products (number of pairs,), over all devices.
        exact_product: as `product`, for residuals, where that one is coarser; None: the same for both.
    """

    product: Callable
    right_hand_side: jax.Array
    dots: Callable = local_dots
    exact_product: Callable | None = None


class StoppingRule(NamedTuple):
    """Stop at |b - A x| <= rtol |b|, by a measured residual, or after so many products.

    Attributes:
        limit: products at most, as a traced number; None: max_iterations, which bounds it in any case.
        energy_rtol: stop also at |x* - x| <= energy_rtol |x*| in the norm of A, by an estimate; zero: do not. It may
            be a traced number.
    """

    rtol: float
    max_iterations: int
    limit: jax.Array | None = None
    energy_rtol: float | jax.Array = 0.0


class Solution(NamedTuple):
    """Attributes: x (p,), the iterate with the smallest measured residual; iterations: products; residual: its true
    |b - A x| / |b|; code: see CODE_NAMES."""

    x: jax.Array
    iterations: jax.Array
    residual: jax.Array
    code: jax.Array


class _State(NamedTuple):
    """The loop's variables.

    Attributes:
        z_r: z . r with the preconditioned residual z. b_x: b . x, which is |x|^2 in the norm of A at the solution.
        best_x, best: the iterate of the smallest measured residual, and its norm.
        drifts: measured residuals in a row that had drifted. since_refresh: iterations since the latest measurement.
        gains: (max_iterations,), alpha z . r of each iteration. restarted: the iteration of the latest (re)start.
    """

    x: jax.Array
    r: jax.Array
    norm_r: jax.Array
    z_r: jax.Array
    b_x: jax.Array
    direction: jax.Array
    best_x: jax.Array
    best: jax.Array
    drifts: jax.Array
    since_refresh: jax.Array
    gains: jax.Array
    restarted: jax.Array
    iterations: jax.Array
    code: jax.Array


class _Measured(NamedTuple):
    """An iterate x with its measured residual r; improved: on the smallest one; the others as in _State."""

    x: jax.Array
    r: jax.Array
    norm: jax.Array
    improved: jax.Array
    drifted: jax.Array
    drifts: jax.Array
    restart: jax.Array


def solve(system: System, preconditioner: Callable, guess, stop: StoppingRule, refresh: int = REFRESH) -> Solution:
    """Solve A x = b.

    Args:
        preconditioner: r (p,) -> P^-1 r, P symmetric and positive definite.
        guess: x0 (p,) float64.
        refresh: products between two measured residuals.
    """
    limit = stop.max_iterations if stop.limit is None else jnp.minimum(stop.limit, stop.max_iterations)
    b = system.right_hand_side
    norm_b = jnp.sqrt(system.dots((b, b))[0])
    target = stop.rtol * norm_b

    def is_due(s: _State):
        """Whether the next product is for the residual."""
        small = (s.norm_r <= target) | _energy_error_is_small(s, stop)
        return (s.since_refresh >= refresh) | small | (s.iterations == 0)

    def iterate(s: _State, product: Callable, measured) -> _State:
        return _iterate(s, product, measured, system, preconditioner, stop, (norm_b, target))

    def measure(s: _State) -> _State:
        """The state with the residual of its iterate, unless it has ended."""
        now = is_due(s._replace(since_refresh=jnp.asarray(refresh, jnp.int64)))
        end = iterate(s, system.exact_product or system.product, now)
        return jax.tree.map(lambda new, old: jnp.where(s.code < 0, new, old), end, s)

    def refine(s: _State) -> _State:
        """Iterations with coarse products alone, and a measurement."""
        step = lambda s: iterate(s, system.product, jnp.asarray(False))  # noqa: E731
        return measure(jax.lax.while_loop(lambda s: continues(s) & ~is_due(s), step, s))

    # The last product is kept for a measured residual.
    continues = lambda s: (s.code < 0) & (s.iterations < limit - 1)  # noqa: E731
    start = _begin(b, norm_b, guess, stop.max_iterations)
    if system.exact_product is None:
        end = measure(jax.lax.while_loop(continues, lambda s: iterate(s, system.product, is_due(s)), start))
    else:
        end = jax.lax.while_loop(lambda s: (s.code < 0) & (s.iterations < limit), refine, start)
    code = jnp.where(end.code < 0, ITERATION_LIMIT, end.code)
    relative = end.best / jnp.where(norm_b > 0, norm_b, 1.0)
    return Solution(end.best_x, end.iterations, relative, code)


def most_iterations(condition: float, system_condition: float, stop: StoppingRule) -> int:
    """The products after which ``solve`` has ended that starts from zero, in exact arithmetic.

    The error |x - x_k| in the norm of A is at most 2 q^k |x|, q = (sqrt(c) - 1) / (sqrt(c) + 1) with the condition
    number c of the preconditioned matrix (Golub and Van Loan, sec. 11.3), and the relative residual at most the root of
    the condition number of A times that. Products that measure residuals, and those by which an estimated error lags
    behind, are counted.
    """
    q = (math.sqrt(condition) - 1) / (math.sqrt(condition) + 1)
    steps = lambda target: math.ceil(math.log(2 / target) / -math.log(q)) if q > 0 else 1  # noqa: E731
    least = steps(stop.rtol / math.sqrt(system_condition))
    if stop.energy_rtol > 0:
        small = steps(stop.energy_rtol)
        least = min(least, math.ceil(max(small + DELAY, small / (1 - DELAY_SHARE))) + 1)
    return min(stop.max_iterations, least + 2 + least // REFRESH)


def _begin(b, norm_b, guess, max_iterations: int) -> _State:
    zero = 0.0 * jnp.isfinite(b)  # made from b: under shard_map it varies over the mesh as b does
    return _State(
        x=guess,
        r=b,
        norm_r=norm_b,
        z_r=jnp.ones(()),
        b_x=jnp.zeros(()),
        direction=zero,
        best_x=zero,
        best=norm_b,
        drifts=jnp.zeros((), jnp.int64),
        since_refresh=jnp.zeros((), jnp.int64),
        gains=jnp.zeros(max_iterations),
        restarted=jnp.zeros((), jnp.int64),
        iterations=jnp.zeros((), jnp.int64),
        code=jnp.where(norm_b == 0, CONVERGED, UNFINISHED),  # a right-hand side with a NaN is found BROKEN
    )


def _iterate(s: _State, multiply, measure, system: System, preconditioner, stop: StoppingRule, norms) -> _State:
    """One product, for the residual of x where `measure`, else for a step along the direction.

    multiply: v -> A v. norms: |b| and the residual to reach.
    """
    norm_b, target = norms
    b, dots = system.right_hand_side, system.dots
    near = _energy_error_is_small(s, stop)
    product = multiply(jnp.where(measure, s.x, s.direction))
    residual = b - product
    drift = residual - s.r
    squared, drift_squared, curvature = dots((residual, residual), (drift, drift), (s.direction, product))
    measured = _measured(s, residual, (squared, drift_squared), b, norm_b)
    alpha = s.z_r / jnp.where(curvature > 0, curvature, 1.0)
    x_step = s.x + alpha * s.direction
    r_step = s.r - alpha * product

    x = jnp.where(measure, measured.x, x_step)
    r = jnp.where(measure, measured.r, r_step)
    z = preconditioner(r)
    z_r, r_r, b_x = dots((z, r), (r, r), (b, x))
    conjugate = z + (z_r / jnp.where(s.z_r > 0, s.z_r, 1.0)) * s.direction
    direction = jnp.where(measure, jnp.where(measured.restart, z, s.direction), conjugate)
    met = measure & ((measured.norm <= target) | (near & ~measured.drifted))
    return _State(
        code=_code(met, measure, measured.drifts, z_r, curvature),
        x=x,
        r=r,
        norm_r=jnp.sqrt(r_r),
        z_r=z_r,
        b_x=b_x,
        direction=direction,
        best_x=jnp.where(met | (measure & measured.improved), measured.x, s.best_x),
        best=jnp.where(met | (measure & measured.improved), measured.norm, s.best),
        drifts=jnp.where(measure, measured.drifts, s.drifts),
        since_refresh=jnp.where(measure, 0, s.since_refresh + 1),
        gains=s.gains.at[s.iterations].set(jnp.where(measure, 0.0, alpha * s.z_r)),
        restarted=jnp.where(measure & measured.restart, s.iterations, s.restarted),
        iterations=s.iterations + 1,
    )


def _energy_error_is_small(s: _State, stop: StoppingRule):
    done = s.iterations - s.restarted
    delay = jnp.maximum(DELAY, DELAY_SHARE * done)
    recent = jnp.where(jnp.arange(stop.max_iterations) >= s.iterations - delay, s.gains, 0.0)
    return (done > delay) & (jnp.sum(recent) <= stop.energy_rtol**2 * s.b_x)


def _measured(s: _State, residual, squares, b, norm_b) -> _Measured:
    """The iterate of s with its residual b - A x; in the first iteration zero instead, if that is better."""
    squared, drift_squared = squares
    norm = jnp.sqrt(squared)
    start_zero = (s.iterations == 0) & (norm > norm_b)
    residual = jnp.where(start_zero, b, residual)
    x = jnp.where(start_zero, jnp.zeros_like(s.x), s.x)
    norm = jnp.where(start_zero, norm_b, norm)
    improved = norm < s.best
    drifted = (s.iterations > 0) & (jnp.sqrt(drift_squared) > DRIFT * norm)
    drifts = jnp.where(norm < PROGRESS * s.best, 0, s.drifts + drifted)
    return _Measured(x, residual, norm, improved, drifted, drifts, (s.iterations == 0) | drifted)


def _code(met, measure, drifts, z_r, curvature):
    code = jnp.where(met, CONVERGED, UNFINISHED)
    code = jnp.where((code < 0) & measure & (drifts >= MOST_DRIFTS), STAGNATED, code)
    broken = ~jnp.isfinite(z_r) | (~measure & ~(curvature > 0))
    return jnp.where((code < 0) & broken, BROKEN, code)
