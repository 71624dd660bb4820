"""Preconditioned conjugate gradients for a symmetric positive definite operator.

Every iteration applies the operator once, and that product is the only thing that communicates where vectors are
replicated; where they are sharded (``vectors``) dot products do, in two groups. Every `refresh` iterations the one
product is spent on the true residual b - A x instead of a search direction: in finite precision the recurrence for the
residual drifts away from it, and a claimed convergence must be real. With a cheap operator for the directions and an
exact one for these residuals (iterative refinement: Higham 2002, Accuracy and Stability, ch. 12) the rounding of the
cheap one is no floor. Measured on Jacobians of advection and the wave (p = 4,241 and 2,312, mu = 1e-9, 128 vectors of
the spectrum deflated), the error of J v in float64, in float32, by CGLS in float32, in float32 with residuals in
float64: after 100 products 1.3e-4, 9.9e-4, 1.5e-4, 1.6e-4; after 300 2.6e-7, 2.1e-3, 4.8e-7, 4.4e-7; after 600 2.5e-11,
0.45, 1.0e-5, 5.8e-11. For the wave CGLS diverges from 100 on.
"""

from typing import Callable, NamedTuple

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
DRIFT = 0.1  # between the recurrence's residual and the true one, relative to the true one
# Iterations whose gains tell the error before them: at least so many, and a share of all, for slow ones gain slowly.
DELAY, DELAY_SHARE = 10, 0.25


class Solution(NamedTuple):
    x: jax.Array  # (p,), the iterate with the smallest true residual seen
    iterations: jax.Array  # products spent
    residual: jax.Array  # true |b - A x| / |b|
    code: jax.Array


class _Loop(
    NamedTuple
):  # b_x: b . x, |x|_A^2 near the solution; gains: alpha z . r by iteration; begun: the latest start
    x: jax.Array
    r: jax.Array
    norm_r: jax.Array
    z_r: jax.Array
    b_x: jax.Array
    direction: jax.Array
    best_x: jax.Array
    best: jax.Array
    fails: jax.Array
    since_refresh: jax.Array
    gains: jax.Array
    begun: jax.Array
    iterations: jax.Array
    code: jax.Array


def solve(
    operator,
    b,
    preconditioner,
    x0,
    *,
    rtol: float,
    max_iterations: int,
    refresh: int = 25,
    dots: Callable = local_dots,
    energy_rtol: float = 0.0,
    limit=None,
) -> Solution:
    """Solve A x = b (Hestenes and Stiefel 1952; preconditioned form as in Golub and Van Loan, alg. 11.5.1).

    With energy_rtol it also ends where |x* - x| <= energy_rtol |x*| in the norm of A, for M + mu I that of J x: an
    iteration takes alpha z . r off the square of that error, so that those of many iterations are nearly all of what it
    was before them (Strakos and Tichy 2002, ETNA 13, eq. 4.8). The residual tells less: it sees most what matters
    least.

    Args:
        operator: (v (p,), true ()) -> A v; true: for a true residual, where not a cheaper A will do.
        preconditioner: r (p,) -> P^-1 r.
        b, x0: (p,) float64; x0 is used only if it beats zero.
        rtol: stop at |b - A x| <= rtol |b|, by the true residual, which is then recomputed.
        max_iterations: products at most.
        refresh: products between two recomputations of the true residual.
        dots: pairs of vectors -> their dot products, over all of their parts.
        energy_rtol: see above; zero: by the residual alone.
        limit: products at most, fewer than max_iterations, where that is known to the running program only.
    """
    limit = max_iterations if limit is None else jnp.minimum(limit, max_iterations)
    norm_b = jnp.sqrt(dots((b, b))[0])
    target = rtol * norm_b

    def body(s: _Loop) -> _Loop:
        done = s.iterations - s.begun
        delay = jnp.maximum(DELAY, DELAY_SHARE * done)
        recent = jnp.where(jnp.arange(max_iterations) >= s.iterations - delay, s.gains, 0.0)
        near = (done > delay) & (jnp.sum(recent) <= energy_rtol**2 * s.b_x)
        small = (s.norm_r <= target) | near
        truth = (s.since_refresh >= refresh) | small | (s.iterations == 0)
        # The one product of the iteration: A times the direction, or times x for the true residual.
        vector = jnp.where(truth, s.x, s.direction)
        product = operator(vector, truth)

        # (a) true residual instead of the recurrence's
        residual = b - product
        drift = residual - s.r
        squared, drift_squared, curvature = dots((residual, residual), (drift, drift), (s.direction, product))
        norm = jnp.sqrt(squared)
        start_zero = (s.iterations == 0) & (norm > norm_b)
        residual = jnp.where(start_zero, b, residual)
        x_true = jnp.where(start_zero, jnp.zeros_like(s.x), s.x)
        norm = jnp.where(start_zero, norm_b, norm)
        improved = norm < s.best
        # Far from what the recurrence believed: the products' precision is used up, and the old direction is no
        # use. Else it is kept: starting CG over every few steps would make it a slow method.
        drifted = (s.iterations > 0) & (jnp.sqrt(drift_squared) > DRIFT * norm)
        fails = jnp.where(norm < 0.9 * s.best, 0, s.fails + drifted)
        restart = (s.iterations == 0) | drifted

        # (b) ordinary step
        alpha = s.z_r / jnp.where(curvature > 0, curvature, 1.0)
        x_step = s.x + alpha * s.direction
        r_step = s.r - alpha * product

        x = jnp.where(truth, x_true, x_step)
        r = jnp.where(truth, residual, r_step)
        z = preconditioner(r)
        z_r, r_r, b_x = dots((z, r), (r, r), (b, x))
        conjugate = z + (z_r / jnp.where(s.z_r > 0, s.z_r, 1.0)) * s.direction
        direction = jnp.where(truth, jnp.where(restart, z, s.direction), conjugate)

        met = truth & ((norm <= target) | (near & ~drifted))
        code = jnp.where(met, CONVERGED, -1)
        code = jnp.where((code < 0) & truth & (fails >= 3), STAGNATED, code)
        broken = ~jnp.isfinite(z_r) | (~truth & ~(curvature > 0))
        code = jnp.where((code < 0) & broken, BROKEN, code)
        return _Loop(
            x=x,
            r=r,
            norm_r=jnp.sqrt(r_r),
            z_r=z_r,
            b_x=b_x,
            direction=direction,
            best_x=jnp.where(met | (truth & improved), x_true, s.best_x),
            best=jnp.where(met | (truth & improved), norm, s.best),
            fails=jnp.where(truth, fails, s.fails),
            since_refresh=jnp.where(truth, 0, s.since_refresh + 1),
            gains=s.gains.at[s.iterations].set(jnp.where(truth, 0.0, alpha * s.z_r)),
            begun=jnp.where(truth & restart, s.iterations, s.begun),
            iterations=s.iterations + 1,
            code=code,
        )

    zero = 0.0 * jnp.isfinite(b)  # made from b: under shard_map it varies over the mesh as b does
    start = _Loop(
        x=x0,
        r=b,
        norm_r=norm_b,
        z_r=jnp.ones(()),
        b_x=jnp.zeros(()),
        direction=zero,
        best_x=zero,
        best=norm_b,
        fails=jnp.zeros((), jnp.int64),
        since_refresh=jnp.zeros((), jnp.int64),
        gains=jnp.zeros(max_iterations),
        begun=jnp.zeros((), jnp.int64),
        iterations=jnp.zeros((), jnp.int64),
        code=jnp.where(norm_b == 0, CONVERGED, -1),  # a right-hand side that is not a number is found BROKEN
    )
    # The last product is kept for a true residual, so that what is reported was measured.
    end = jax.lax.while_loop(lambda s: (s.code < 0) & (s.iterations < limit - 1), body, start)
    last = body(end._replace(since_refresh=jnp.asarray(refresh, jnp.int64)))
    end = jax.tree.map(lambda new, old: jnp.where(end.code < 0, new, old), last, end)
    code = jnp.where(end.code < 0, ITERATION_LIMIT, end.code)
    relative = end.best / jnp.where(norm_b > 0, norm_b, 1.0)
    return Solution(end.best_x, end.iterations, relative, code)
