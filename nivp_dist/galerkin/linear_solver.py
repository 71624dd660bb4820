"""(M + mu I) v = J^T W f by the configured method, inside of `shard_map`: conjugate gradients or a direct solve.

Each for the p parameters, with M = S^T S, S = W^(1/2) J, or for the n m samples: v = S^T alpha with
(S S^T + mu I) alpha = W^(1/2) f. All are exact up to rounding or the tolerance of CG, and agree with each other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.galerkin import direct, kernel, nystrom, pcg
from nivp_dist.galerkin.methods import choose_method
from nivp_dist.galerkin.vectors import Samples, Sharded, Whole
from nivp_dist.network.network import Network
from nivp_dist.settings.model import SolverSettings

LEAST_RESIDUAL = 1e-8  # at which CG ends in any case; rounding is not far below
# Of the error that a rate may have, for the samples: with all of it the trap in 5 dimensions took 39 steps for the 35
# of direct solves, with a tenth 35 and the same errors, at no more time.
RATE_SHARE = 0.1


class Solved(NamedTuple):
    """v (p,), what the next solve on these points may start from (see ``LinearSolver.guess``), and the solver's iterations,
    true relative residual and result code (``pcg.CODE_NAMES``)."""

    v: jax.Array
    guess: jax.Array
    iterations: jax.Array
    residual: jax.Array
    code: jax.Array


class LinearSolver:
    """The solver of one configuration.

    Attributes:
        method: of "pcg", "dual_pcg", "primal", "dual". vectors: how those of "pcg" lie on the devices.
    """

    def __init__(
        self,
        network: Network,
        solver: SolverSettings,
        points: int,
        devices: int,
        axis: str,
        fitting: bool,
        rate_rtol: float,
    ):
        self.network, self.solver, self.points, self.devices, self.axis = network, solver, points, devices, axis
        self.method = choose_method(solver, network, points, fitting, devices)
        automatic = solver.rtol == "auto"
        self.rtol, self.rate_rtol = (LEAST_RESIDUAL, rate_rtol) if automatic else (solver.rtol, 0.0)
        self.vectors = Whole(network.size, axis)
        if solver.shard_vectors:
            self.vectors = Sharded(network.size, axis, devices)

    def solve(self, operators, f, weights, regularisation, guess) -> Solved:
        """operators: of the points (``Galerkin._operators``). f (n, m), weights (n,): of this device."""
        method = self.method_for(len(weights) * self.devices)
        if method == "pcg":
            return self._pcg(operators, f, regularisation, guess)
        if method == "dual_pcg":
            return self._dual_pcg(operators, f, weights, regularisation, guess)
        v = self._direct(method, operators, f, weights)(regularisation.mu)
        code = jnp.where(jnp.all(jnp.isfinite(v)), pcg.CONVERGED, pcg.BROKEN)
        return Solved(v, v, jnp.zeros((), jnp.int64), jnp.zeros(()), code)

    def several(self, operators, f, weights, regularisation, dampings):
        """v (c, p) for several mu (c,)."""
        method = self.method_for(len(weights) * self.devices)
        if method in ("primal", "dual"):
            one = self._direct(method, operators, f, weights)
        else:
            cold = jnp.zeros(f.size) + 0 * f.reshape(-1) if method == "dual_pcg" else jnp.zeros(self.network.size)
            one = lambda mu: self.solve(operators, f, weights, regularisation._replace(mu=mu), cold).v  # noqa: E731
        return jax.lax.map(one, dampings)

    def method_for(self, drawn: int) -> str:
        """The method; but where more points are drawn than were planned, a dual matrix larger than the primal one gives
        way to it: with four times the points it would have sixteen times the entries."""
        outgrown = drawn >= self.points + self.devices and drawn * self.network.outputs > self.network.size
        return "primal" if self.method == "dual" and outgrown else self.method

    # Conjugate gradients --------------------------------------------------------------------------

    def _pcg(self, operators, f, regularisation, guess):
        (exact, operator), vectors, mu = operators, self.vectors, regularisation.mu

        def product(v, true):
            whole = vectors.whole(v)
            return vectors.sum(_either(true, exact, operator, lambda each: each.normal(whole))) + mu * v

        solution = pcg.solve(
            product,
            vectors.sum(exact.transpose(f)),
            nystrom.preconditioner(vectors, regularisation.sketch, mu),
            vectors.part(guess),
            rtol=self.rtol,
            max_iterations=self.solver.max_iterations,
            limit=regularisation.limit,
            dots=vectors.dots,
            energy_rtol=self.rate_rtol,
        )
        v = vectors.replicated(solution.x)
        return Solved(v, v, solution.iterations, solution.residual, solution.code)

    def _dual_pcg(self, operators, f, weights, regularisation, guess):
        """The residual here is s - J v - mu alpha by samples, and bounds the error of the rate J v: both are
        |K (alpha* - alpha)| up to mu |alpha* - alpha|. It is what CG ends by; no estimate is needed."""
        (exact, operator), mu, axis = operators, regularisation.mu, self.axis
        outputs, root = self.network.outputs, kernel.roots(weights, self.network.outputs)
        vectors = Samples(axis)

        def product(alpha, true):
            r = _unweighted(alpha, root, outputs)
            v = jax.lax.psum(_either(true, exact, operator, lambda each: each.transpose(r)), axis)
            return root * _either(true, exact, operator, lambda each: each.apply(v)).reshape(-1) + mu * alpha

        solution = pcg.solve(
            product,
            root * f.reshape(-1),
            kernel.preconditioner(regularisation.factor, mu, axis),
            guess,
            rtol=max(RATE_SHARE * self.rate_rtol, self.rtol),
            max_iterations=self.solver.max_iterations,
            limit=regularisation.limit,
            dots=vectors.dots,
        )
        v = jax.lax.psum(exact.transpose(_unweighted(solution.x, root, outputs)), axis)
        return Solved(v, solution.x, solution.iterations, solution.residual, solution.code)

    # Direct solves --------------------------------------------------------------------------------

    def _direct(self, method, operators, f, weights):
        """mu -> v by one of two matrices, which is made once, whatever the number of mu."""
        if method == "dual":
            return self._dual(operators, f, weights)
        exact, operator = operators
        # One all-reduce carries the parts of the matrix and the right-hand side.
        parts, b = jax.lax.psum((operator.matrix_parts(), exact.transpose(f)), self.axis)
        matrix = operator.assemble(parts)
        return lambda mu: direct.solve_positive(matrix, mu, b)

    def _dual(self, operators, f, weights):
        (exact, operator), outputs, axis = operators, self.network.outputs, self.axis
        root = kernel.roots(weights, outputs)
        # Factors of all samples at once: chunks do not bound the dual matrix.
        everywhere = jax.tree.map(lambda leaf: kernel.gather(leaf, axis), operator.point_factors())
        root_all, s = kernel.gather(root, axis), kernel.gather(root * f.reshape(-1), axis)
        columns = operator.kernel(everywhere).astype(jnp.float64)
        matrix = kernel.gather(root[:, None] * columns.T * root_all, axis)

        def solve(mu):
            # Padding has a zero row and column: mu on the diagonal keeps it positive definite.
            alpha = direct.solve_positive(matrix, mu, s)
            own = jax.lax.dynamic_slice_in_dim(alpha, jax.lax.axis_index(axis) * len(root), len(root))
            return jax.lax.psum(exact.transpose(_unweighted(own, root, outputs)), axis)

        return solve


def _unweighted(alpha, root, outputs: int):
    """alpha (n m,) as what `transpose`, which multiplies by W, makes S^T alpha of: (n, m)."""
    return (alpha / jnp.where(root > 0, root, 1.0)).reshape(-1, outputs)


def _either(true, exact, operator, product):
    """product(exact) or product(operator); what it does must not communicate."""
    return (
        product(exact) if operator is exact else jax.lax.cond(true, lambda: product(exact), lambda: product(operator))
    )
