"""(M + mu I) v = J^T W f by the configured method, inside of `shard_map`: conjugate gradients or a direct solve.

Each is available for the p parameters, with M = S^T S and S = W^(1/2) J, and for the n m samples, as v = S^T alpha with
(S S^T + mu I) alpha = W^(1/2) f. All are exact up to rounding or the tolerance of CG, and agree with each other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import sum_over_devices
from nivp_dist.backend.mesh import AXIS, is_ordered, multiple_of_points
from nivp_dist.galerkin import direct, kernel, nystrom, pcg
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.hardware import hardware_of
from nivp_dist.galerkin.methods import choose_method
from nivp_dist.galerkin.regularisation import Regularisation
from nivp_dist.galerkin.vectors import Samples, Sharded, Whole
from nivp_dist.settings.automatic import number_of_points
from nivp_dist.settings.model import SolverSettings

# With solver.rtol = "auto" CG stops at this relative residual in any case: at small mu the rounding of the products
# leaves little less.
LEAST_RESIDUAL = 1e-8
# The share of the permitted error of a rate that CG for the samples may make. Measured with the trap in 5 dimensions:
# with all of it a run took 39 steps instead of the 35 of direct solves, with a tenth 35 and the same errors, in no more
# time.
RATE_SHARE = 0.1


class Solved(NamedTuple):
    """A solution of the linear system.

    Attributes:
        v: (p,). next_guess: (p,) or, with "dual_pcg", (n m,), see ``Galerkin.initial_guess``.
        iterations, residual, code: of CG: products, true relative residual, result code (``pcg.CODE_NAMES``).
    """

    v: jax.Array
    next_guess: jax.Array
    iterations: jax.Array
    residual: jax.Array
    code: jax.Array


class LinearSolver:
    """The solver of one configuration; its arguments are those of ``Galerkin``.

    Attributes:
        hardware: that operations are counted for. method: "pcg", "dual_pcg", "primal" or "dual".
        vectors: how those of "pcg" lie on the devices.
    """

    def __init__(self, discretisation: Discretisation, solver: SolverSettings, fit_order: int, rate_rtol: float):
        self.network, mesh = discretisation.network, discretisation.mesh
        self.solver, self.points, self.devices = solver, number_of_points(discretisation.sampling), mesh.size
        self.hardware = hardware_of(mesh, solver.precision)
        self.method = choose_method(solver, self.network, self.points, fit_order, self.hardware, is_ordered(mesh))
        self.padding = multiple_of_points(mesh)
        self.rtol, self.rate_rtol = (LEAST_RESIDUAL, rate_rtol) if solver.rtol == "auto" else (solver.rtol, 0.0)
        size, sharded = self.network.size, solver.shard_vectors
        self.vectors = Sharded(size, AXIS, self.devices) if sharded else Whole(size, AXIS)

    def stopping_rule(self, limit=None) -> pcg.StoppingRule:
        """When conjugate gradients stop. limit: products at most, as a traced number."""
        by_samples = self.method == "dual_pcg"
        rtol = max(RATE_SHARE * self.rate_rtol, self.rtol) if by_samples else self.rtol
        return pcg.StoppingRule(rtol, self.solver.max_iterations, limit, 0.0 if by_samples else self.rate_rtol)

    def regularisation_spec(self) -> Any:
        """How a ``Regularisation`` lies on the devices, as PartitionSpecs."""
        every = P()
        sketch = nystrom.Sketch._make((self.vectors.spec, every))
        factor = kernel.Factor._make((P(None, AXIS), every, every)) if self.method == "dual_pcg" else every
        return Regularisation._make((every, every, sketch, every, every, factor, every))

    def solve(self, operators, f, weights, regularisation, guess) -> Solved:
        """v for the right-hand side f.

        Args:
            operators: J in float64 and in the precision of the solver, on this device's points.
            f (n, m), weights (n,): of this device. guess: see ``Galerkin.initial_guess``.
        """
        method = self.method_for(len(weights) * self.devices)
        if method == "pcg":
            return self._pcg(operators, f, regularisation, guess)
        if method == "dual_pcg":
            return self._dual_pcg(operators, f, weights, regularisation, guess)
        v = self._direct(method, operators, f, weights)(regularisation.mu)(f)
        code = jnp.where(jnp.all(jnp.isfinite(v)), pcg.CONVERGED, pcg.BROKEN)
        return Solved(v, v, jnp.zeros((), jnp.int64), jnp.zeros(()), code)

    def at_dampings(self, operators, first, weights, regularisation) -> Callable[[Any], Callable]:
        """mu -> (f (n, m) -> v (p,)), for many mu and many right-hand sides, of which `first` (n, m) is one.

        A direct solve forms its matrix once for all, and factorises it once for each mu.
        """
        method = self.method_for(len(weights) * self.devices)
        if method in ("primal", "dual"):
            return self._direct(method, operators, first, weights)

        def solve(regularisation, f):
            zero = jnp.zeros(f.size) + 0 * f.reshape(-1) if method == "dual_pcg" else jnp.zeros(self.network.size)
            return self.solve(operators, f, weights, regularisation, zero).v

        def at_mu(mu):
            lower = kernel.cholesky(regularisation.factor.gram, mu) if method == "dual_pcg" else None
            return partial(solve, regularisation._replace(mu=mu, lower=lower))

        return at_mu

    def method_for(self, drawn: int) -> str:
        """The method for so many points.

        Where more are drawn than were planned (sampling.adapt_points), "dual" gives way to "primal" if its matrix is
        the larger one: with four times the points it would have sixteen times the entries.
        """
        outgrown = drawn >= self.points + self.padding and drawn * self.network.outputs > self.network.size
        return "primal" if self.method == "dual" and outgrown else self.method

    # Conjugate gradients --------------------------------------------------------------------------

    def _pcg(self, operators, f, regularisation, guess):
        exact, vectors, mu = operators[0], self.vectors, regularisation.mu

        def product(operator, v):
            return vectors.sum(operator.normal(vectors.whole(v))) + mu * v

        solution = pcg.solve(
            _system(product, operators, vectors.sum(exact.transpose(f)), vectors.dots),
            nystrom.preconditioner(vectors, regularisation.sketch, mu),
            vectors.part(guess),
            self.stopping_rule(regularisation.iteration_limit),
        )
        v = vectors.replicated(solution.x)
        return Solved(v, v, solution.iterations, solution.residual, solution.code)

    def _dual_pcg(self, operators, f, weights, regularisation, guess):
        """CG for the samples. The residual is s - S v - mu alpha with s = W^(1/2) f, and up to mu |alpha* - alpha| it
        equals the error of the rate, |S (v* - v)| = |K (alpha* - alpha)|: no estimate of the error is needed."""
        exact, mu = operators[0], regularisation.mu
        outputs, root = self.network.outputs, kernel.roots(weights, self.network.outputs)
        vectors = Samples(AXIS)

        def product(operator, alpha):
            v = sum_over_devices(operator.transpose(kernel.unweighted(alpha, root, outputs)))
            return root * operator.apply(v).reshape(-1) + mu * alpha

        solution = pcg.solve(
            _system(product, operators, root * f.reshape(-1), vectors.dots),
            kernel.preconditioner(regularisation.factor, mu, AXIS, regularisation.lower),
            guess,
            self.stopping_rule(regularisation.iteration_limit),
        )
        v = sum_over_devices(exact.transpose(kernel.unweighted(solution.x, root, outputs)))
        return Solved(v, solution.x, solution.iterations, solution.residual, solution.code)

    # Direct solves --------------------------------------------------------------------------------

    def _direct(self, method, operators, first, weights):
        """mu -> (f -> v) by one of two matrices, which is formed once for all mu, and factorised once for each."""
        if method == "dual":
            return self._dual(operators, weights)
        exact, operator = operators
        # One all-reduce carries the parts of the matrix and the first right-hand side.
        parts, b = sum_over_devices((operator.matrix_parts(), exact.transpose(first)))
        matrix = operator.assemble(parts)

        def factored(mu):
            solve = direct.factored(matrix, mu)
            return lambda f: solve(b if f is first else sum_over_devices(exact.transpose(f)))

        return factored

    def _dual(self, operators, weights):
        (exact, operator), outputs = operators, self.network.outputs
        root = kernel.roots(weights, outputs)
        # Factors of all samples at once: chunks do not bound the dual matrix.
        everywhere = jax.tree.map(lambda leaf: kernel.gather(leaf, AXIS), operator.point_factors())
        root_all = kernel.gather(root, AXIS)
        columns = operator.kernel(everywhere).astype(jnp.float64)
        matrix = kernel.gather(root[:, None] * columns.T * root_all, AXIS)

        def factored(mu):
            # Padding has a zero row and column: mu on the diagonal keeps it positive definite.
            solve = direct.factored(matrix, mu)

            def velocity(f):
                alpha = solve(kernel.gather(root * f.reshape(-1), AXIS))
                own = jax.lax.dynamic_slice_in_dim(alpha, jax.lax.axis_index(AXIS) * len(root), len(root))
                return sum_over_devices(exact.transpose(kernel.unweighted(own, root, outputs)))

            return velocity

        return factored


def _system(product, operators, right_hand_side, dots) -> pcg.System:
    """The system of product(operator, v), of which operators[0] is exact and operators[1] may be coarser."""
    exact, operator = operators
    exact_product = None if operator is exact else partial(product, exact)
    return pcg.System(partial(product, operator), right_hand_side, dots, exact_product)
