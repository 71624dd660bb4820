"""The compiled programs of implicit steps: one equation for a whole function, solved in the least-squares sense.

A step finds parameters theta with

    q(x; theta) - gamma f(x; theta) = sum_j c_j q(x; theta_j)       on the points of the step,

where q is the network's field, f its time derivative by the equation, and the theta_j represent the solution at earlier
times (regularised parametric integrators: arXiv 2403.19234; TENG, arXiv 2404.10771). Corrections are those of the
Levenberg-Marquardt method with A = J - gamma B, B = df / dtheta: here by the matrix A^T W A, whose factors are formed
explicitly and which is summed over the devices; in ``implicit_cg`` without it. Each value of the right-hand side is
taken at the present points, so that points may be drawn anew at every step.

The damping mu is that of Tikhonov's regularisation: a correction delta minimises

    |target - (q - gamma f) - A delta|^2 + mu |theta + delta - anchor|^2.

Where A hardly sees a direction of theta, the anchor decides, and not the iterates before.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import sum_over_devices
from nivp_dist.backend.host_numbers import packed
from nivp_dist.backend.mesh import AXIS, program
from nivp_dist.backend.point_blocks import sum_in_blocks
from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.direct import solve_positive
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.norms import ResidualCheck, masses, square, unresolved_data
from nivp_dist.points.points import Points


class Equation(NamedTuple):
    """q - gamma f(., t) = target on points.

    Attributes:
        gamma, t: times. target: (n, m).
        anchor: (p,), towards which the damping pulls theta.
    """

    gamma: Any
    t: Any
    target: jax.Array
    points: Points
    anchor: jax.Array


# How an ``Equation`` lies on the devices, as PartitionSpecs; below the same of a ``Correction``.
EQUATION_SPEC = Equation._make((P(), P(), P(AXIS), Points._make((P(AXIS), P(AXIS), P(AXIS))), P()))


class Correction(NamedTuple):
    """A step of the Levenberg-Marquardt method.

    Attributes:
        delta: (p,). predicted: (n, m), the misfit that the linearised equation has after it.
        iterations, residual, code: of CG: products, true relative residual, result code (``pcg.CODE_NAMES``).
    """

    delta: jax.Array
    predicted: jax.Array
    iterations: Any = 0
    residual: Any = 0.0
    code: Any = pcg.CONVERGED


CORRECTION_SPEC = Correction._make((P(), P(AXIS), P(), P(), P()))


class Misfit(NamedTuple):
    """The misfit target - (q - gamma f) in the norm of the points, and the part that was not predicted.

    Attributes:
        size: its norm. unpredicted: the norm of its difference from the misfit that was predicted.
    """

    size: Any
    unpredicted: Any


def own_theta(theta, equation: Equation):
    """theta (p,) as a value of each device's own: differentiated with respect to a replicated one, sums over points
    would be sums over the points of all devices, and a second sum would count them as often as there are devices."""
    return theta + 0 * equation.points.weights[0]


class ImplicitSteps:
    """The programs of one discretisation; each is compiled once.

    Attributes, all compiled programs on global arrays:
        combination: (thetas (k, p), coefficients (k,), points) -> sum_j c_j q(x; theta_j) (n, m).
        correction: (theta, equation, damping) -> ``Correction``; damping: relative to the trace of A^T W A.
        misfit: (theta, equation, predicted (n, m)) -> ``Misfit``, packed (``backend.host_numbers``).
        differences: (thetas (k, p), coefficients (r, k), points) -> the norms of r such combinations (r,).
        first_difference: (new, theta, t, h, points) -> norm of q_new - q - h f, the error of an explicit Euler step.
        size: (theta, t, points) -> the norm of the solution, which is that of the field where there is no lifting.
        unresolved_data: (t, h, points), see ``norms``.
        check: (new, thetas (k, p), coefficients (k,), gamma, t, points) -> ``ResidualCheck``, packed; see ``_check``.
    """

    def __init__(self, discretisation: Discretisation):
        self.discretisation = it = discretisation
        every, split = P(), Points._make((P(AXIS), P(AXIS), P(AXIS)))
        equation = EQUATION_SPEC

        def compiled(function, *in_specs, out_specs: Any = every):
            return program(it.mesh, function, *in_specs, out_specs=out_specs)

        self.combination = compiled(self._combination, every, every, split, out_specs=P(AXIS))
        self.correction = compiled(self._correction, every, equation, every, out_specs=CORRECTION_SPEC)
        self.misfit = compiled(packed(self._misfit), every, equation, P(AXIS))
        self.differences = compiled(self._differences, every, every, split)
        self.first_difference = compiled(self._first_difference, every, every, every, every, split)
        self.size = compiled(self._size, every, every, split)
        self.unresolved_data = compiled(partial(unresolved_data, it), every, every, split)
        self.check = compiled(packed(self._check), every, every, every, every, every, split)

    # The functions of one device --------------------------------------------------------------------

    def left_side(self, theta, equation: Equation, point):
        """q - gamma f at one point (d,): (m,)."""
        it = self.discretisation
        point = point.astype(it.network.dtype)
        field = it.network.field(theta, point[None])[0]
        return (field - equation.gamma * it.field_rate_at(theta, equation.t, point)).astype(jnp.float64)

    def rows(self, own, equation: Equation, x):
        """A at points x (B, d), explicitly: (B m, p), outputs fastest. own: theta (p,) from ``own_theta``."""
        return self._derivatives(own, equation, x, points_axis=0).reshape(-1, own.size)

    def _derivatives(self, own, equation: Equation, x, points_axis: int):
        """A at points x (B, d): (m, p), and the axis of the points before or after."""
        at_point = jax.jacrev(lambda theta, point: self.left_side(theta, equation, point))
        return jax.vmap(lambda point: at_point(own, point), out_axes=points_axis)(x)

    def _values(self, theta, equation: Equation):
        at = jax.vmap(lambda point: self.left_side(theta, equation, point))
        return self.discretisation.in_blocks(at, equation.points.x)

    def _correction(self, theta, equation: Equation, damping):
        points, chunk, own = equation.points, self.discretisation.chunk, own_theta(theta, equation)

        def term(weights, x, target):
            # The square roots of the weights stand on both sides, so that A^T W A is a product of one array with its
            # own transpose: XLA computes that in less than half of the time, and stores A once. The barrier keeps it
            # from forming A anew with its axes exchanged, from which the product takes twice the time.
            root = jnp.sqrt(weights)
            columns = jax.lax.optimization_barrier(root * self._derivatives(own, equation, x, points_axis=-1))
            columns = jnp.swapaxes(columns, 0, 1).reshape(own.size, -1)
            misfit = target - jax.vmap(lambda point: self.left_side(own, equation, point))(x)
            return columns @ columns.T, columns @ (root * misfit.T).reshape(-1)

        sums = sum_in_blocks(term, points.weights, points.x, equation.target, at_most=chunk)
        matrix, gradient = sum_over_devices(sums)
        mu = damping * jnp.trace(matrix)
        delta = solve_positive(matrix, mu, gradient + mu * (equation.anchor - theta))
        values, change = jax.jvp(lambda theta: self._values(theta, equation), (theta,), (delta,))
        return Correction(delta, equation.target - values - change)

    def _misfit(self, theta, equation: Equation, predicted):
        misfit = equation.target - self._values(theta, equation)
        squares = jnp.stack([square(equation.points, each) for each in (misfit, misfit - predicted)])
        return Misfit(*jnp.sqrt(sum_over_devices(squares)))

    def _combination(self, thetas, coefficients, points):
        return jnp.tensordot(coefficients, self._fields(thetas, points.x), axes=1)

    def _differences(self, thetas, coefficients, points):
        combined = jnp.tensordot(coefficients, self._fields(thetas, points.x), axes=1)
        squares = jnp.stack([square(points, each) for each in combined])
        return jnp.sqrt(sum_over_devices(squares))

    def _size(self, theta, t, points):
        solution = self.discretisation.solution_field(theta, t, points.x)
        return jnp.sqrt(sum_over_devices(square(points, solution)))

    def _first_difference(self, new, theta, t, h, points):
        before, after = self._fields(jnp.stack([theta, new]), points.x)
        change = after - before - h * self.discretisation.rhs(theta, t, points)
        return jnp.sqrt(sum_over_devices(square(points, change)))

    def _check(self, new, thetas, coefficients, gamma, t, points) -> ResidualCheck:
        """The equation on points that theta was not fitted to.

        The difference quotient (q - sum_j c_j q_j) / gamma takes the place of J v in the residual of a velocity:
        the quotient less f is relative to f in `residual`, and to the solution in `residual_rate`.
        """
        it = self.discretisation
        field, f = it.field(new, points.x).astype(jnp.float64), it.rhs(new, t, points)
        misfit = (field - self._combination(thetas, coefficients, points)) / gamma - f
        mass = points.measure * jnp.linalg.norm(it.values(new, t, points.x).astype(jnp.float64), axis=-1)
        solution = it.solution_field(new, t, points.x)
        squares = jnp.stack([square(points, each) for each in (misfit, f, solution)])
        sums = masses(points, mass)
        (misfit, f, size), sums = sum_over_devices((squares, sums))
        ratio = lambda a, b: a / jnp.where(b > 0, b, 1.0)  # noqa: E731
        residual, rate = jnp.sqrt(ratio(misfit, f)), jnp.sqrt(ratio(misfit, size))
        return ResidualCheck(residual, rate, ratio(sums[0] ** 2, sums[1] * sums[2]))

    def _fields(self, thetas, x):
        """(k, n, m) float64."""
        return jax.lax.map(lambda theta: self.discretisation.field(theta, x).astype(jnp.float64), thetas)
