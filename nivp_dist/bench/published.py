"""The published Neural IVP procedure (Finzi et al. 2023, arXiv 2304.14994, and its code), to be compared with.

Written from the paper and from what its code does, for this comparison alone. Nothing of ``galerkin``, ``fitting``,
``points`` or ``run`` is used: what it shares with the package is the network as a function of (theta, x), the
problem's equation, and the coefficients of the Runge-Kutta pairs.

- M v by differentiating again on every product: the gradient of v -> mean |J v|^2 / 2, J v by forward mode; several
  columns by vmap of that.
- At every Runge-Kutta stage a fresh Nystrom sketch of fixed rank, mu relative to its largest eigenvalue, CG from zero
  with float64 vectors and float32 products, stopped by the recurrence's residual; one compiled program a stage.
- Uniform points, the same for the stages of a step, new ones for every attempt.
- Embedded Runge-Kutta with |e| <= rtol |theta_0| in parameter space, nothing kept from one step to the next.
- Initial fit by Adam at a constant rate on uniform points, then ridge regression of the head.

Left out, all to its advantage in time: refits (by wall clock there) and logging. Mended, because it would end in NaN:
the shift of the sketch is float32's rounding instead of 1e-8.
"""

import math
import time
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nivp_dist.integration.tableaus import TABLEAUS, attempt

BLOCK = 1 << 27  # entries of the widest array of a vmapped product: points are summed in batches below it


class Settings(NamedTuple):
    """The defaults of the published code and of its README, with the rank and tolerance of the paper.

    Attributes:
        mu: relative to the largest eigenvalue of M. rtol: of a step, |e| / |theta_0|.
        head_ridge: the penalty is head_ridge * points / columns, for sums over the points.
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
    """The evolution ended in numbers that are none, or ran out of time."""


class Published:
    """The procedure for one network and problem.

    network: what represents u, `field(theta, x)`; its dtype is that of the products (float32 as published).
    """

    def __init__(self, network, problem, settings: Settings | None = None):
        self.network, self.problem, self.settings = network, problem, settings or Settings()
        self.dtype = network.dtype
        self.velocity = jax.jit(self._velocity)
        self._update = jax.jit(self._adam_update, static_argnums=2)
        self._equations = jax.jit(self._head_equations)
        self._optimiser = optax.adam(self.settings.learning_rate)

    def sample(self, key, n: int | None = None):
        """Uniform points in the box: (n, d)."""
        domain = self.problem.domain
        lower, upper = jnp.asarray(domain.lower, self.dtype), jnp.asarray(domain.upper, self.dtype)
        shape = (n or self.settings.points, self.network.dimension)
        return lower + (upper - lower) * jax.random.uniform(key, shape, self.dtype)

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
        size = max(1, BLOCK // (widest * columns.shape[1]))
        total, several = 0.0, jax.vmap(self.product, (None, None, 1), 1)
        for start in range(0, len(x), size):  # unrolled, as published
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
        """Eigenvectors (p, l) and eigenvalues (l,), descending, of the Nystrom approximation of M, by an SVD."""
        rank = min(self.settings.rank, self.network.size)
        omega = jnp.linalg.qr(jax.random.normal(key, (self.network.size, rank), self.dtype))[0]
        y = self.products(theta, x, omega)
        shift = jnp.finfo(self.dtype).eps * jnp.linalg.norm(y)
        y = y + shift * omega
        factor = jnp.linalg.cholesky(omega.T @ y)
        b = jax.scipy.linalg.solve_triangular(factor, y.T, lower=True).T
        vectors, singular, _ = jnp.linalg.svd(b, full_matrices=False)
        return vectors, jnp.maximum(singular**2 - shift, 0.0)

    def _conjugate_gradients(self, operator, b, precondition):
        """(x, iterations, residual relative to |b|) of preconditioned CG from zero."""
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
        """From theta (p,) at t = 0 to t_end: (theta, accepted steps, velocities).

        Raises Failed when a step's error is not a number, or after `seconds`.
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
                theta, t, steps = taken.theta, t + step, steps + 1
                h = h * factor if step == h else h
            else:
                h = step * factor
            key = jax.random.split(key)[0]
        return theta, steps, evaluations

    def _on_points(self, x, key):
        return lambda theta, t: self.velocity(theta, t, x, key).v

    # Initial fit ----------------------------------------------------------------------------------

    def begin_fit(self, theta):
        """The state of Adam."""
        return theta.astype(self.dtype), self._optimiser.init(theta.astype(self.dtype))

    def fit_step(self, state, target: Callable, key):
        """One update on a fresh batch. target: x (n, d) -> (n, m), always the same function."""
        return self._update(*state, target, key)

    def _adam_update(self, theta, moments, target, key):
        x = self.sample(key, self.settings.batch)
        goal = target(x)
        gradient = jax.grad(lambda theta: jnp.mean((self.network.field(theta, x) - goal) ** 2))(theta)
        change, moments = self._optimiser.update(gradient, moments, theta)
        return optax.apply_updates(theta, change), moments

    def tune_head(self, theta, target: Callable, key):
        """theta with the last layer replaced by that of a ridge regression on fresh points, towards zero."""
        heads = [layer for layer in self.network.layers if layer.path[-1] == "head"]
        entries = jnp.concatenate([jnp.arange(layer.start, layer.stop) for layer in heads])
        theta, size = theta.astype(self.dtype), len(entries)
        matrix, b = jnp.zeros((size, size)), jnp.zeros(size)
        rows = min(self.settings.batch, self.settings.head_points)
        for part in range(self.settings.head_points // rows):
            x = self.sample(jax.random.fold_in(key, part), rows)
            more = self._equations(theta, entries, x, target(x))
            matrix, b = matrix + more[0], b + more[1]
        penalty = self.settings.head_ridge * self.settings.head_points / (size // len(heads))
        return theta.at[entries].set(jnp.linalg.solve(matrix + penalty * jnp.eye(size), b).astype(self.dtype))

    def _head_equations(self, theta, entries, x, goal):
        """Phi^T Phi and Phi^T y, Phi: what the field is linear in, the columns of J that belong to the head."""

        def row(x):
            return jax.jacrev(lambda head: self._at(theta.at[entries].set(head), x))(theta[entries])

        phi = jax.vmap(row)(x).reshape(-1, len(entries)).astype(jnp.float64)
        return phi.T @ phi, phi.T @ goal.reshape(-1).astype(jnp.float64)

    # ----------------------------------------------------------------------------------------------

    def _at(self, theta, x):
        """The field at one point x (d,): (m,)."""
        return self.network.field(theta, x[None])[0]

    def _rate(self, theta, t, x):
        f = jnp.reshape(self.problem.rhs(self.network.function(theta), x, t), (self.network.outputs,))
        return self.network.as_field_rate(f, self.network.values(theta, x[None])[0])


def _combine(theta, h, coefficients, stages):
    total = h * sum(c * k for c, k in zip(coefficients, stages))
    return total if theta is None else theta + total
