"""The equation in the norm of an energy, for problems that define its components (``Problem.energy``).

A wave written as (u, w)_t = (w, c lap u) conserves the integral of c |grad u|^2 + w^2. Least squares for grad u and w
in place of u and w project the equation orthogonally with respect to that energy, in which the equation itself is
skew-symmetric. The projected equation then conserves the energy too, up to quadrature, at all wavenumbers at once,
where scales of u and w balance a single one (``network.balance``). Measured for a pulse in one dimension (182
parameters, 600 points, at t = 1.2, the same start and steps): a relative error of u of 1.9e-4 in place of 5.8e-3.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.backend.point_blocks import in_blocks, sum_in_blocks
from nivp_dist.galerkin.discretisation import Discretisation

# Numbers of a block of rows, which bound memory: 64 MiB.
ROW_ENTRIES = 2**23
# The symmetric matrix is formed in so many panels of rows, each from the diagonal on: five eighths of the products.
PANELS = 4


class EnergyOperator(NamedTuple):
    """The Jacobian E of the energy's components e (k,) at points, with the products that a direct solve needs.

    Its rows hold derivatives of u with respect to x, so that they are no outer products: they are formed explicitly, in
    blocks of points. All is local to one device's points: the caller sums.

    Attributes:
        theta: (p,), coefficients of the parameters in the basis. x: (n, d). weights: (n,).
        basis: of the parameters (``frames.Basis``); None: that of the network's own parameters.
    """

    discretisation: Discretisation
    theta: Any
    x: Any
    weights: Any
    basis: Any
    dtype: Any = jnp.float64

    @classmethod
    def build(cls, discretisation: Discretisation, theta, points, basis=None) -> "EnergyOperator":
        """The operator at theta (p,) on points."""
        # Derivatives by a replicated theta would be summed over the devices: this one is each device's own.
        own = discretisation.network.to_basis(theta, basis) + 0 * points.weights[0]
        return cls(discretisation, own, points.x, points.weights, basis)

    def apply(self, v):
        """E v: (n, k) for v (p,)."""
        along = v + 0 * self.theta
        return in_blocks(lambda x: jax.jvp(partial(self._components, x=x), (self.theta,), (along,))[1], self.x)

    def transpose(self, r):
        """E^T W r: (p,) for r (n, k)."""

        def term(weights, x, r):
            pullback = jax.vjp(partial(self._components, x=x), self.theta)[1]
            return pullback(weights[:, None] * r)[0]

        return sum_in_blocks(term, self.weights, self.x, r)

    def normal(self, v):
        """E^T W E v: (p,) for v (p,)."""
        return self.transpose(self.apply(v))

    def matrix_parts(self):
        """Panels of rows of E^T W E from the diagonal on, to be summed over devices."""
        starts = self._panels()
        return self._sum(lambda rows: tuple(rows[:, a:b].T @ rows[:, a:] for a, b in zip(starts, starts[1:])))

    def assemble(self, parts):
        """The matrix (p, p) from ``matrix_parts``."""
        starts = self._panels()
        panels = [jnp.pad(part, ((0, 0), (start, 0))) for part, start in zip(parts, starts)]
        upper = jnp.triu(jnp.concatenate(panels))
        return upper + jnp.triu(upper, 1).T

    def _panels(self):
        """Where they begin, and p."""
        size = self.discretisation.network.size
        return [size * k // PANELS for k in range(PANELS + 1)]

    def normal_columns(self, columns):
        """E^T W E V: (p, l) for V (p, l)."""
        return self._sum(lambda rows: rows.T @ (rows @ columns))

    def traces(self):
        """tr(E^T W E), each layer's part of it: (L,)."""
        squares, layers = self._sum(lambda rows: jnp.sum(rows**2, axis=0)), self.discretisation.network.layers
        return jnp.stack([jnp.sum(squares[layer.start : layer.stop]) for layer in layers])

    def _sum(self, term):
        """The sum of term(rows of W^(1/2) E (b k, p)) over blocks of points."""

        def of_block(weights, x):
            rows = jnp.sqrt(weights)[:, None, None] * jax.vmap(jax.jacrev(self._at), (None, 0))(self.theta, x)
            return term(rows.reshape(-1, rows.shape[-1]))

        components = jax.eval_shape(self._components, self.theta, self.x).shape[-1]
        block = max(1, ROW_ENTRIES // (components * self.discretisation.network.size))
        return sum_in_blocks(of_block, self.weights, self.x, at_most=block)

    def _components(self, theta, x):
        """(b, k) for x (b, d)."""
        return jax.vmap(self._at, (None, 0))(theta, x)

    def _at(self, theta, point):
        it = self.discretisation
        return it.energy_at(it.network.from_basis(theta, self.basis), point)
