"""The spectrum of M and the conditioning of M + mu I, as programs: what a run measures now and then, and uses nowhere.

Where the matrix is small it is decomposed (``Eigen``). Elsewhere functions of it are found by conjugate gradients,
whose coefficients are those of a Gauss quadrature (Golub and Meurant 2010, Matrices, Moments and Quadrature, ch. 6),
here for probes of random signs (stochastic Lanczos quadrature: Ubaru, Chen and Saad 2017, SIAM J. Matrix Anal. Appl.
38, 1075). ``nivp_dist.monitoring.conditioning`` makes numbers with error bounds of both.

All is in the basis that the system is solved in, and in float64.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import sum_over_devices
from nivp_dist.backend.mesh import AXIS, to_host
from nivp_dist.galerkin import kernel, nystrom
from nivp_dist.galerkin.methods import PROBE_STEPS, PROBES, RHS_STEPS, decomposes, measurement_rank
from nivp_dist.galerkin.regularisation import Regularisation
from nivp_dist.galerkin.vectors import Samples

# The relative error of a product with J by solver.precision, of one number.
ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-23, "tensorfloat32": 2.0**-10, "bfloat16": 2.0**-7}


class Eigen(NamedTuple):
    """The decomposition of M.

    Attributes:
        values: (p,), ascending. rhs: (p,), squared components of F in the eigenvectors, relative to |F|^2.
        layers: (L, p), the part that each layer has of the squared components of an eigenvector.
    """

    values: jax.Array
    rhs: jax.Array
    layers: jax.Array


class Coefficients(NamedTuple):
    """The coefficients of k steps of conjugate gradients.

    Attributes:
        alpha, beta: (k,), of the solution and of the direction. z_r: (k,), r . P^-1 r before each step.
    """

    alpha: jax.Array
    beta: jax.Array
    z_r: jax.Array


class Probe(NamedTuple):
    """What one vector z of random signs says of M + mu I.

    Attributes:
        coefficients: of the preconditioned iteration.
        filtered: (L,), each layer's part of z . w with w ~ mu (M + mu)^-1 z.
        quotient: w . (M + mu) w / |w|^2, which is no less than the least eigenvalue of M + mu I.
    """

    coefficients: Coefficients
    filtered: jax.Array
    quotient: jax.Array


class Measured(NamedTuple):
    """What was measured at one step: numpy arrays, equal on all processes; None where a part does not apply.

    Attributes:
        eigen: the decomposition. rhs: coefficients of the iteration for F, not preconditioned. probes: ``Probe`` with
            a leading axis.
    """

    eigen: Any
    rhs: Any
    probes: Any


class SpectrumPrograms:
    """The programs for one solver, a ``velocity.Galerkin``, which are compiled when they are first needed."""

    def __init__(self, galerkin):
        self.galerkin, self.layers = galerkin, galerkin.network.layers
        every, split, shared = P(), galerkin.points_spec, galerkin.shared_spec
        self.eigen = galerkin.program(self._eigen, every, every, split, every)
        self.rhs = galerkin.program(self._rhs, every, every, split, every, every)
        self.probes = galerkin.program(self._probes, every, split, shared, every)

    def measure(self, theta, t: float, points, regularisation: Regularisation, key) -> Measured:
        """All that is known at (theta, t). Every process calls it."""
        basis, whole = regularisation.basis, decomposes(self.galerkin.network)
        decomposition = rhs = probes = None
        if whole:
            decomposition = self.eigen(theta, t, points, basis)
        else:
            rhs = self.rhs(theta, t, points, basis, regularisation.mu)
        if not (whole or is_preconditioned(regularisation)):
            sketch = self.galerkin.prepare(theta, points, key, measurement_rank(self.galerkin.network)).sketch
            regularisation = regularisation._replace(sketch=sketch)
        if is_preconditioned(regularisation):
            probes = self.probes(theta, points, regularisation, key)
        return jax.tree.map(to_host, Measured(decomposition, rhs, probes))

    def _equation(self, theta, t, points, basis):
        """J in float64 and f, on this device's points."""
        return self.galerkin.operators(theta, points, basis)[0], self.galerkin.right_hand_side(theta, t, points)

    def _eigen(self, theta, t, points, basis) -> Eigen:
        operator, f = self._equation(theta, t, points, basis)
        parts, b = sum_over_devices((operator.matrix_parts(), operator.transpose(f)))
        values, vectors = jnp.linalg.eigh(operator.assemble(parts))
        square, squares = b @ b, vectors**2
        layers = [jnp.sum(squares[layer.start : layer.stop], axis=0) for layer in self.layers]
        return Eigen(values, (vectors.T @ b) ** 2 / jnp.where(square > 0, square, 1.0), jnp.stack(layers))

    def _rhs(self, theta, t, points, basis, mu) -> Coefficients:
        vectors = self.galerkin.linear_solver.vectors
        operator, f = self._equation(theta, t, points, basis)
        product = lambda v: vectors.sum(operator.normal(vectors.whole(v))) + mu * v  # noqa: E731
        b = vectors.sum(operator.transpose(f))
        return conjugate_gradients(product, lambda r: r, vectors.dots, b, RHS_STEPS)[0]

    def _probes(self, theta, points, regularisation, key) -> Probe:
        signs = jax.random.rademacher(key, (PROBES, self.galerkin.network.size), jnp.float64)
        operator = self.galerkin.operators(theta, points, regularisation.basis)[0]
        filtered = partial(self._filtered, operator, regularisation)
        return jax.lax.map(lambda z: self._probe(operator, regularisation.mu, z, *filtered(z)), signs)

    def _probe(self, operator, mu, z, coefficients, w) -> Probe:
        square = w @ w
        product = sum_over_devices(operator.normal(w))
        layers = jnp.stack([z[each.start : each.stop] @ w[each.start : each.stop] for each in self.layers])
        return Probe(coefficients, layers, (w @ product + mu * square) / jnp.where(square > 0, square, 1.0))

    def _filtered(self, operator, regularisation, z) -> tuple[Coefficients, jax.Array]:
        """The coefficients for the probe z, and mu (M + mu)^-1 z (p,), approximately."""
        mu = regularisation.mu
        if regularisation.factor is not None:
            return self._filtered_by_samples(operator, regularisation, z)
        vectors = self.galerkin.linear_solver.vectors
        product = lambda v: vectors.sum(operator.normal(vectors.whole(v))) + mu * v  # noqa: E731
        applied = nystrom.preconditioner(vectors, regularisation.sketch, mu)
        coefficients, x = conjugate_gradients(product, applied, vectors.dots, vectors.part(z), PROBE_STEPS)
        return coefficients, mu * vectors.replicated(x)

    def _filtered_by_samples(self, operator, regularisation, z):
        """mu (M + mu)^-1 z = z - S^T (K + mu)^-1 S z, so that the iteration is the one of "dual_pcg"."""
        mu, outputs = regularisation.mu, self.galerkin.network.outputs
        root = kernel.roots(operator.weights, outputs)
        back = lambda alpha: sum_over_devices(operator.transpose(kernel.unweighted(alpha, root, outputs)))  # noqa: E731
        samples = lambda v: root * operator.apply(v).reshape(-1)  # noqa: E731
        applied = kernel.preconditioner(regularisation.factor, mu, AXIS, regularisation.lower)
        product = lambda alpha: samples(back(alpha)) + mu * alpha  # noqa: E731
        coefficients, alpha = conjugate_gradients(product, applied, Samples(AXIS).dots, samples(z), PROBE_STEPS)
        return coefficients, z - back(alpha)


def least_eigenvalue(galerkin, mu: float, trace: float) -> float:
    """No eigenvalue of the preconditioned system is smaller, see ``nystrom.preconditioner`` and ``kernel``.

    The approximation of M is at most M + d, d the rounding error of the products that it is made of, so that
    (M + mu) / (approximation + mu) >= mu / (mu + d). The preconditioner of "pcg" is scaled by mu, that of "dual_pcg"
    by one, and made in float64.
    """
    by_samples = galerkin.method == "dual_pcg"
    error = 2 * ROUNDING["float64" if by_samples else galerkin.solver.precision] * trace
    return (1.0 if by_samples else mu) * mu / (mu + error)


def is_preconditioned(regularisation: Regularisation) -> bool:
    """Whether it has an approximation of M or K."""
    return regularisation.factor is not None or len(regularisation.sketch.eigenvalues) > 0


def conjugate_gradients(product: Callable, preconditioner: Callable, dots: Callable, b, steps: int):
    """So many steps for A x = b from zero, as the textbook has them (Golub and Van Loan, alg. 11.5.1).

    ``pcg.solve`` measures residuals in between, which its coefficients would suffer from. No vectors are kept: rounding
    makes copies of eigenvalues, which a quadrature sums up (Greenbaum 1989, Linear Algebra Appl. 113, 7).

    Returns: ``Coefficients``, x.
    """

    def step(state, _):
        x, r, direction, z_r = state
        image = product(direction)
        (curvature,) = dots((direction, image))
        alpha = _ratio(z_r, curvature)
        x, r = x + alpha * direction, r - alpha * image
        z = preconditioner(r)
        (new,) = dots((z, r))
        beta = _ratio(new, z_r)
        return (x, r, z + beta * direction, new), Coefficients(alpha, beta, z_r)

    z = preconditioner(b)
    (z_r,) = dots((z, b))
    end, coefficients = jax.lax.scan(step, (0.0 * b, b, z, z_r), length=steps)
    return coefficients, end[0]


def _ratio(a, b):
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
