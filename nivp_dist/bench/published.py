"""The published Neural IVP procedure (Finzi et al. 2023, arXiv 2304.14994, and its code), with which ours is compared.

It is written from the paper and its code, for this comparison only, and uses nothing of the rooms ``galerkin``,
``fitting``, ``points`` and ``run``. It shares with the package the network as a function of (theta, x), the equation of
the problem, and the Runge-Kutta pairs.

- A product M v is the gradient of v -> mean |J v|^2 / 2 with J v by forward differentiation, so that the network is
  differentiated again for every product. Several columns are a vmap of that.
- Every Runge-Kutta stage draws a new Nystrom sketch of fixed rank. mu is relative to the sketch's largest eigenvalue.
  CG starts from zero, with float64 vectors and float32 products, and stops by the residual of its recurrence. A stage
  is one compiled program.
- The points are uniform, the same for all stages of a step, and new for every attempt.
- The embedded Runge-Kutta pair accepts a step with |e| <= rtol |theta_0| in the parameters. Nothing is kept from one
  step to the next.
- The initial fit is in ``published_fit``.

Refits, which depend on the wall time there, and logging are left out; without them it is faster. One defect is mended,
because it leads to NaN: the shift of the sketch is the rounding error of float32 instead of 1e-8.
"""

import math
import time
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from nivp_dist.integration.tableaus import TABLEAUS, attempt
from nivp_dist.network.network import Network
from nivp_dist.problems.base import Problem

MAX_ENTRIES = 1 << 27  # of the largest array of a vmapped product, 512 MiB in float32: points are taken in batches


class Settings(NamedTuple):
    """The defaults are those of the published code and its README; rank and tolerance are those of the paper.

    Attributes:
        points: for the velocities.
        rank: of the sketch.
        mu: regularisation relative to the largest eigenvalue of M.
        tolerance, max_iterations: of CG.
        method, rtol: the Runge-Kutta pair, and the largest |e| / |theta_0| of a step.
        learning_rate, batch, epochs: of Adam; an epoch is a step on `batch` new points.
        head_points, head_ridge: points of the regression of the head; its penalty is head_ridge * points / columns,
            where the squares are summed over the points.
    """

    points: int = 5000
    rank: int = 250
    mu: float = 1e-7
    tolerance: float = 1e-8
    max_iterations: int = 100
    method: str = "bogacki_shampine"
    rtol: float = 1e-3
    learning_rate: float = 3e-4
    batch: int = 10_000
    epochs: int = 100_000
    head_points: int = 200_000
    head_ridge: float = 1e-5


class Velocity(NamedTuple):
    """theta' (p,) float64, CG iterations, the residual of its recurrence relative to |F|, and mu (absolute)."""

    v: jax.Array
    iterations: jax.Array
    residual: jax.Array
    mu: jax.Array


class Failed(Exception):
    """The evolution ended with NaN, or ran out of time."""


def uniform_points(problem: Problem, dtype, key: jax.Array, n: int) -> jax.Array:
    """Uniform points in the box of a problem: (n, d)."""
    domain = problem.domain
    lower, upper = jnp.asarray(domain.lower, dtype), jnp.asarray(domain.upper, dtype)
    return lower + (upper - lower) * jax.random.uniform(key, (n, domain.dimension), dtype)


class Published:
    """The velocities and the evolution for one network and problem.

    The products have the dtype of the network (float32 as published).
    """

    def __init__(self, network: Network, problem: Problem | None, settings: Settings | None = None):
        self.network, self.settings = network, settings or Settings()
        self.problem: Any = problem  # None: for products alone
        self.dtype = network.dtype
        self.velocity = jax.jit(self._velocity)

    def sample(self, key: jax.Array) -> jax.Array:
        """The points of a step: (n, d)."""
        return uniform_points(self.problem, self.dtype, key, self.settings.points)

    # Products -------------------------------------------------------------------------------------

    def product(self, theta, x, v):
        """J^T J v / n: (p,) for v (p,), theta (p,), x (n, d), all of the network's dtype."""

        def half_square(x, v):
            tangent = jax.jvp(lambda theta: self._at(theta, x), (theta,), (v,))[1]
            return jnp.sum(tangent**2) / 2

        return jax.grad(lambda v: jnp.mean(jax.vmap(half_square, (0, None))(x, v)))(v)

    def products(self, theta, x, columns):
        """J^T J V / n: (p, l) for V (p, l)."""
        widest = max(max(layer.rows, layer.columns) for layer in self.network.layers)
        size = max(1, MAX_ENTRIES // (widest * columns.shape[1]))
        total, several = 0.0, jax.vmap(self.product, (None, None, 1), 1)
        for start in range(0, len(x), size):  # unrolled in the program, as published
            batch = x[start : start + size]
            total = total + several(theta, batch, columns) * len(batch)
        return total / len(x)

    def force(self, theta, t, x):
        """J^T f / n: (p,)."""

        def pairing(x, v):
            tangent = jax.jvp(lambda theta: self._at(theta, x), (theta,), (v,))[1]
            return jnp.sum(tangent * self._rate(theta, t, x))

        return jax.grad(lambda v: jnp.mean(jax.vmap(pairing, (0, None))(x, v)))(jnp.zeros_like(theta))

    # Velocity -------------------------------------------------------------------------------------

    def _velocity(self, theta, t, x, key) -> Velocity:
        theta, x = theta.astype(self.dtype), x.astype(self.dtype)
        vectors, eigenvalues = self._sketch(theta, x, key)
        mu = self.settings.mu * eigenvalues[0].astype(jnp.float64)
        b = self.force(theta, t, x).astype(jnp.float64)

        def operator(v):
            return self.product(theta, x, v.astype(self.dtype)).astype(jnp.float64) + mu * v

        vectors, eigenvalues = vectors.astype(jnp.float64), eigenvalues.astype(jnp.float64)
        scaling = (eigenvalues[-1] + mu) / (eigenvalues + mu)

        def precondition(r):
            part = vectors.T @ r
            return vectors @ (scaling * part) + r - vectors @ part

        v, iterations, residual = self._conjugate_gradients(operator, b, precondition)
        return Velocity(v, iterations, residual, mu)

    def _sketch(self, theta, x, key):
        """Eigenvectors (p, l) and descending eigenvalues (l,) of the Nystrom approximation of M, by an SVD."""
        rank = min(self.settings.rank, self.network.size)
        omega = jnp.linalg.qr(jax.random.normal(key, (self.network.size, rank), self.dtype))[0]
        y = self.products(theta, x, omega)
        shift = jnp.finfo(self.dtype).eps * jnp.linalg.norm(y)
        y = y + shift * omega
        factor = jnp.linalg.cholesky(omega.T @ y)
        b = jax.scipy.linalg.solve_triangular(factor, y.T, lower=True).T
        vectors, singular, _ = jnp.linalg.svd(b, full_matrices=False)
        return vectors, jnp.maximum(singular**2 - shift, 0.0)

    def _conjugate_gradients(self, operator, b, precondition) -> tuple[jax.Array, Any, jax.Array]:
        """Preconditioned CG from zero: (x, iterations, residual of the recurrence relative to |b|)."""
        size = jnp.linalg.norm(b)

        def go_on(state):
            _, r, _, _, iterations = state
            return (jnp.linalg.norm(r) > self.settings.tolerance * size) & (iterations < self.settings.max_iterations)

        def iterate(state):
            x, r, direction, z_r, iterations = state
            product = operator(direction)
            alpha = z_r / (direction @ product)
            x, r = x + alpha * direction, r - alpha * product
            z = precondition(r)
            z_r, before = z @ r, z_r
            return x, r, z + (z_r / before) * direction, z_r, iterations + 1

        z = precondition(b)
        x, r, _, _, iterations = jax.lax.while_loop(go_on, iterate, (jnp.zeros_like(b), b, z, z @ b, 0))
        return x, iterations, jnp.linalg.norm(r) / size

    # Evolution ------------------------------------------------------------------------------------

    def evolve(self, theta, t_end: float, key, seconds: float = float("inf")) -> tuple[jax.Array, int, int]:
        """From theta (p,) at t = 0 to t_end: (theta, accepted steps, evaluations of the velocity).

        Raises Failed if the error of a step is not finite, or after `seconds`.
        """
        tableau, started = TABLEAUS[self.settings.method], time.perf_counter()
        bound = self.settings.rtol * float(jnp.linalg.norm(theta))
        t, h, steps, evaluations = 0.0, 20 * t_end * self.settings.rtol, 0, 0
        while t < t_end - 1e-7:
            velocity, step = self._on_points(self.sample(key), key), min(h, t_end - t)
            taken = attempt(tableau, velocity, _combine, theta, t, step, None)
            evaluations += taken.evaluations
            error = float(jnp.linalg.norm(taken.error))
            if not math.isfinite(error):
                raise Failed(f"the error of a step is not a number, at t = {t:.4g} after {steps} steps")
            if time.perf_counter() - started > seconds:
                raise Failed(f"not done in {seconds:g} s, at t = {t:.4g} after {steps} steps")
            factor = 0.97 * (bound / max(error, 1e-300)) ** (1 / tableau.order)
            if error < bound:
                theta, t, steps = cast(jax.Array, taken.theta), t + step, steps + 1
                h = h * factor if step == h else h
            else:
                h = step * factor
            key = jax.random.split(key)[0]
        return theta, steps, evaluations

    def _on_points(self, x, key):
        return lambda theta, t: self.velocity(theta, t, x, key).v

    def _at(self, theta, x):
        """The field at one point x (d,): (m,)."""
        return self.network.field(theta, x[None])[0]

    def _rate(self, theta, t, x):
        """The rate of the field that the equation asks for at one point: (m,)."""
        f = jnp.reshape(self.problem.rhs(self.network.function(theta), x, t), (self.network.outputs,))
        return self.network.as_field_rate(f, self.network.values(theta, x[None])[0])


def _combine(theta, h, coefficients, stages):
    total = h * sum(c * k for c, k in zip(coefficients, stages))
    return total if theta is None else theta + total
