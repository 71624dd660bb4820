"""Corrections of implicit steps by conjugate gradients, without the matrix A^T W A (``implicit``).

The equation is linearised once for a correction, by ``jax.linearize``: products with A and A^T evaluate the stored
derivatives of the points, and each iteration sums p numbers over the devices. Rows of A are formed block by block, for
the sketch of the preconditioner and for the trace.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, memory_of, platform_of, program
from nivp_dist.backend.point_blocks import in_blocks, sum_in_blocks
from nivp_dist.galerkin import nystrom, pcg
from nivp_dist.galerkin.implicit import CORRECTION_SPEC, EQUATION_SPEC, Correction, Equation, ImplicitSteps, own_theta
from nivp_dist.galerkin.jacobian import EXPLICIT_BLOCK
from nivp_dist.galerkin.velocity import Galerkin


class Approximation(NamedTuple):
    """Attributes: sketch: of A^T W A, for the preconditioner. trace: its exact trace."""

    sketch: nystrom.Sketch
    trace: jax.Array


class Linearised(NamedTuple):
    """The equation at theta on this device's points, to first order.

    Attributes:
        values: q - gamma f, (n, m). apply: v (p,) -> A v (n, m). transpose: r (n, m) -> A^T W r (p,), of these points.
    """

    values: jax.Array
    apply: Callable
    transpose: Callable


class IterativeCorrections:
    """The programs of one discretisation; each is compiled once.

    Args:
        steps: whose equations are solved. galerkin: by "pcg", for its settings, ranks and tolerances.

    Attributes:
        correction: the compiled program (theta, equation, damping, approximation, limit, accuracy) -> ``Correction``;
            damping: relative to the trace of the approximation; limit: products at most; accuracy: with solver.rtol =
            "auto" the error of A delta at which CG stops, relative to it, by an estimate.
    """

    def __init__(self, steps: ImplicitSteps, galerkin: Galerkin):
        self.steps, self.galerkin, self.vectors = steps, galerkin, galerkin.linear_solver.vectors
        self._approximations: dict[int, Callable] = {}  # by rank
        self._spec = Approximation._make((nystrom.Sketch._make((self.vectors.spec, P())), P()))
        specs = (P(), EQUATION_SPEC, P(), self._spec, P(), P())
        self.correction = program(galerkin.mesh, self._correction, *specs, out_specs=CORRECTION_SPEC)

    def approximation(self, theta, equation: Equation, key, rank: int) -> Approximation:
        """The approximation of A^T W A at theta (p,) of the given rank."""
        if rank not in self._approximations:
            body = lambda theta, equation, key: self._approximation(theta, equation, key, rank)  # noqa: E731
            specs = (P(), EQUATION_SPEC, P())
            self._approximations[rank] = program(self.galerkin.mesh, body, *specs, out_specs=self._spec)
        return self._approximations[rank](theta, equation, key)

    def linearised(self, theta, equation: Equation) -> Linearised:
        """The equation to first order at theta, on one device.

        Where the stored derivatives of all points are more than sampling.chunk or a quarter of the memory allows, they
        are computed anew in every product, block by block.
        """
        it, points, own = self.steps.discretisation, equation.points, own_theta(theta, equation)
        n, most = len(points.x), memory_of(it.mesh) // 4

        def linearise(at, size: int):
            at = jax.vmap(at, (None, 0))
            return jax.linearize(lambda theta: in_blocks(lambda x: at(theta, x), points.x, at_most=size), own)

        at = lambda theta, point: self.steps.left_side(theta, equation, point)  # noqa: E731
        fits = not it.chunk or it.chunk >= n
        values, apply = linearise(at if fits else jax.checkpoint(at), it.chunk)
        stored = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(apply))
        if fits and stored > most:
            values, apply = linearise(jax.checkpoint(at), max(1, n * most // stored))
        transpose = jax.linear_transpose(apply, own)
        return Linearised(
            values,
            lambda v: apply(own_theta(v, equation)),
            lambda r: transpose(points.weights[:, None] * r)[0],
        )

    # The programs on one device -----------------------------------------------------------------------

    def _approximation(self, theta, equation: Equation, key, rank: int) -> Approximation:
        points, own, vectors = equation.points, own_theta(theta, equation), self.vectors
        block = self.steps.discretisation.chunk
        if platform_of(self.galerkin.mesh) == "cpu":
            block = min(block or EXPLICIT_BLOCK, EXPLICIT_BLOCK)

        def weighted_rows(weights, x):
            rows = self.steps.rows(own, equation, x)
            return rows, jnp.repeat(weights, len(rows) // len(x))[:, None]

        def columns(matrix):
            def term(weights, x):
                rows, weights = weighted_rows(weights, x)
                return rows.T @ (weights * (rows @ matrix))

            return sum_in_blocks(term, points.weights, points.x, at_most=block)

        def square(weights, x):
            rows, weights = weighted_rows(weights, x)
            return jnp.sum(weights * rows**2)

        trace = jax.lax.psum(sum_in_blocks(square, points.weights, points.x, at_most=block), AXIS)
        omega = nystrom.test_matrix(vectors, key, rank)
        return Approximation(nystrom.sketch(vectors, omega, vectors.columns(columns, omega)), trace)

    def _correction(self, theta, equation: Equation, damping, approximation, limit, accuracy) -> Correction:
        vectors, mu = self.vectors, damping * approximation.trace
        linearised = self.linearised(theta, equation)
        misfit = equation.target - linearised.values

        def product(v):
            change = linearised.apply(vectors.whole(v))
            return vectors.sum(linearised.transpose(change)) + mu * v

        right = vectors.sum(linearised.transpose(misfit)) + mu * vectors.part(equation.anchor - theta)
        stop = self.galerkin.linear_solver.stopping_rule(limit)
        if self.galerkin.solver.rtol == "auto":
            stop = stop._replace(energy_rtol=accuracy)
        preconditioner = nystrom.preconditioner(vectors, approximation.sketch, mu)
        solution = pcg.solve(pcg.System(product, right, vectors.dots), preconditioner, jnp.zeros_like(right), stop)
        delta = vectors.replicated(solution.x)
        predicted = misfit - linearised.apply(delta)
        return Correction(delta, predicted, solution.iterations, solution.residual, solution.code)
