"""The compiled programs of the Galerkin step: theta, t, points -> theta', and the norms that judge it.

Points stay on their devices. A program is one `shard_map` over the mesh axis "points": every device
forms its partial products, and they are summed by one all-reduce of p numbers per CG iteration, one of
p x rank per sketch. p-vectors are replicated. Nothing inside differentiates with respect to theta
through a replicated value (the factors are cotangents of per-sample quantities), so no hidden all-reduce
can scale a gradient by the number of devices. With solver.shard_vectors those of CG are sharded too (``vectors``).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS
from nivp_dist.galerkin import kernel, nystrom
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.galerkin.linear_solver import LinearSolver
from nivp_dist.galerkin.methods import ITERATIVE, first_rank
from nivp_dist.network.frames import Basis, balanced
from nivp_dist.network.network import Network
from nivp_dist.points.points import Points, error_weights
from nivp_dist.problems.base import Problem
from nivp_dist.settings.model import SamplingSettings, SolverSettings


class Regularisation(NamedTuple):
    """What the stages of one step share: mu (absolute), tr M, the sketch (rank 0 for direct solves), the iterations
    that CG may take, the basis that they are of (None: that of the network's own parameters), and the approximation of
    K with "dual_pcg"."""

    mu: jax.Array
    trace: jax.Array
    sketch: nystrom.Sketch
    limit: jax.Array
    basis: Basis | None = None
    factor: kernel.Factor | None = None


def effective_dimension(regularisation: Regularisation):
    """tr M (M + mu)^-1 of what is known of M's spectrum: a lower estimate."""
    if regularisation.factor is not None:
        return kernel.effective_dimension(regularisation.factor, regularisation.mu)
    return nystrom.effective_dimension(regularisation.sketch, regularisation.mu)


class Velocity(NamedTuple):
    """theta', the field's rate J v (n, m) on the points, and what the solve tells: residual |J v - f| / |f| there, |f|,
    the solver's iterations, true relative residual and result code (``pcg.CODE_NAMES``), and what the next solve on the
    same points may start from."""

    v: jax.Array
    rate: jax.Array
    residual: jax.Array
    rhs_norm: jax.Array
    iterations: jax.Array
    solver_residual: jax.Array
    code: jax.Array
    guess: jax.Array


class ResidualCheck(NamedTuple):
    """A velocity on points that it was not fitted to: the residual |J v - f| / |f|; |J v - f| / |q| in the norm of
    ``estimate``; and the coverage, the effective share of the points for integrals of |u| (Kish 1965)."""

    residual: jax.Array
    residual_rate: jax.Array
    coverage: jax.Array


class Galerkin:
    """The programs of one configuration on one mesh; each is compiled once.

    rate_rtol: with solver.rtol = "auto" the relative error of J v at which CG may end; zero: by its residual alone.
    """

    def __init__(
        self,
        network: Network,
        problem: Problem,
        solver: SolverSettings,
        sampling: SamplingSettings,
        mesh: Mesh,
        fitting: bool = False,
        rate_rtol: float = 0.0,
    ):
        self.network, self.problem, self.solver, self.mesh = network, problem, solver, mesh
        self.chunk, self.axis = sampling.chunk, AXIS
        self.linear_solver = LinearSolver(network, solver, sampling.points, mesh.size, AXIS, fitting, rate_rtol)
        self.method = self.linear_solver.method
        self.points_spec = split = Points(P(AXIS), P(AXIS), P(AXIS))
        every, program, by_samples = P(), self.program, self.method == "dual_pcg"
        sketch = nystrom.Sketch(self.linear_solver.vectors.spec, every)
        factor = kernel.Factor(P(None, AXIS), every, every) if by_samples else every
        shared = self.shared_spec = Regularisation(every, every, sketch, every, every, factor)
        self._prepare = {}
        told = Velocity(*(every for _ in Velocity._fields))._replace(rate=P(AXIS))
        guess = P(AXIS) if by_samples else every
        self.velocity = program(
            self._velocity, every, every, split, shared, guess, out_specs=told._replace(guess=guess)
        )
        self._cold = program(self._nothing, split, out_specs=P(AXIS))
        self.rate = program(self._rate, every, every, split, out_specs=P(AXIS))
        self.field = program(self._field, every, P(AXIS), out_specs=P(AXIS))
        self.step_norms = program(self._step_norms, every, every, every, P(AXIS), P(AXIS), split)
        self.check_residual = program(self._check_residual, every, every, every, split)
        self.residual_squares = program(self._residual_squares, every, every, every, split, out_specs=P(AXIS))
        self.correction = program(self._correction, every, split, P(AXIS), shared, every)

    @property
    def first_rank(self) -> int:
        """Of the approximation that CG starts with; 0 where it is not CG that solves."""
        if self.method not in ITERATIVE:
            return 0
        if self.solver.rank != "adaptive":
            return min(self.network.size, self.solver.rank)
        return first_rank(self.method, self.network, self.solver.mu, self.largest_rank)

    @property
    def largest_rank(self) -> int:
        """That an adaptive one may grow to, within the memory of a device; 0 where it is none."""
        if self.method not in ITERATIVE or self.solver.rank != "adaptive":
            return 0
        largest = min(self.solver.max_rank, self.network.size)
        rows = -(-self.linear_solver.points // self.mesh.size) * self.network.outputs
        return min(largest, max(1, kernel.ENTRIES // rows)) if self.method == "dual_pcg" else largest

    def guess(self, velocity, points: Points):
        """What the first solve on new points starts from, where theta' was `velocity` (p,) on others."""
        return self._cold(points) if self.method == "dual_pcg" else velocity

    def program(self, function, *in_specs, out_specs=P()):
        """function of one device's shards -> a compiled function of global arrays.

        No buffer is donated: theta, points and the approximation serve later stages and retries; what does not, the
        guess, is 0.13 of the 826 MB that a velocity takes (p = 107,581, n = 16,384).
        """
        return jax.jit(jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs))

    # Programs -------------------------------------------------------------------------------------

    def prepare(self, theta, points: Points, key, rank: int, framed: bool = True) -> Regularisation:
        """mu, and with CG the Nystrom approximation of the given rank, at (theta, points).

        framed: in the basis in which one mu serves all parameters (``frames``), or in that of the network.
        """
        if (rank, framed) not in self._prepare:
            body = partial(self._regularisation, rank=rank, framed=framed)
            found = self.shared_spec if rank else self.shared_spec._replace(factor=P())
            self._prepare[rank, framed] = self.program(body, P(), self.points_spec, P(), out_specs=found)
        return self._prepare[rank, framed](theta, points, key)

    def _regularisation(self, theta, points, key, *, rank, framed):
        basis = None
        if framed:
            frames = self.network.frames(theta, points.x, points.weights, AXIS)
            if not self.solver.equal_shares:
                frames = frames[: len(self.network.quadratics)]
            basis = Basis(frames, jnp.ones(len(self.network.layers)))
        operator = self._operators(theta, points, basis)[1]
        traces = jax.lax.psum(operator.traces(), AXIS)
        if framed and self.solver.equal_shares:
            basis = basis._replace(scales=balanced(traces))
            operator, traces = self._operators(theta, points, basis)[1], traces * basis.scales**2
        trace = jnp.sum(traces)
        mu, limit = self.solver.mu * trace, jnp.asarray(self.solver.max_iterations, jnp.int64)
        if rank == 0:
            empty = nystrom.Sketch(jnp.zeros((self.network.size, 0)), jnp.zeros((0,)))
            return Regularisation(mu, trace, empty, limit, basis)
        if self.method == "dual_pcg":
            factor = kernel.factor(self._operators(theta, points, basis)[0], key, rank, AXIS)
            return Regularisation(mu, trace, kernel.spectrum(factor, key), limit, basis, factor)
        vectors = self.linear_solver.vectors
        omega = nystrom.test_matrix(vectors, key, rank)
        product = vectors.columns(operator.normal_columns, omega)
        sketch = nystrom.sketch(vectors, omega, product, operator.dtype)
        return Regularisation(mu, trace, sketch, limit, basis)

    def _velocity(self, theta, t, points, regularisation, guess):
        basis = regularisation.basis
        operators = operator, _ = self._operators(theta, points, basis)
        f = self._rhs(theta, t, points.x)
        guess = guess if self.method == "dual_pcg" else self.network.to_basis(guess, basis)
        solved = self.linear_solver.solve(operators, f, points.weights, regularisation, guess)
        rate = operator.apply(solved.v)
        squares = jnp.stack([self._square(points, rate - f), self._square(points, f)])
        v = self.network.from_basis(solved.v, basis)
        misfit, f_square = jax.lax.psum(squares, AXIS)
        residual = jnp.sqrt(misfit / jnp.where(f_square > 0, f_square, 1.0))
        guess = solved.guess if self.method == "dual_pcg" else v
        return Velocity(v, rate, residual, jnp.sqrt(f_square), solved.iterations, solved.residual, solved.code, guess)

    def _nothing(self, points):
        return jnp.repeat(0 * points.weights, self.network.outputs)

    def _correction(self, theta, points, misfit, regularisation, dampings):
        """Gauss-Newton corrections (M + mu_i I) delta_i = J^T W misfit for several mu_i at once.

        Args:
            misfit: (n, m), target minus field. dampings: (c,), mu_i relative to tr M.
        Returns: (c, p).
        """
        operators = self._operators(theta, points, regularisation.basis)
        dampings = dampings * regularisation.trace
        found = self.linear_solver.several(operators, misfit, points.weights, regularisation, dampings)
        return jax.vmap(lambda v: self.network.from_basis(v, regularisation.basis))(found)

    def _rate(self, theta, v, points):
        """J v at every point: (n, m)."""
        return self._operator(theta, points).apply(v)

    def _step_norms(self, theta, new, e, increment, increment_error, points):
        """The error of a step from theta to new, and |u|, over the points, in the norm of the error.

        The pair takes two things along: theta, and with increment = h sum b_i J_i v_i (n, m) the field itself. The
        defect |q(new) - q(theta) - increment| is what they disagree by: the error of the worse of the two. Their
        embedded errors tell whose it is: |J e|, e (p,) the difference of the pair's two solutions, and
        |increment_error|, the same difference of the increment. The error is |J e|, or that share of the defect where
        it is larger: |J e| alone is blind to theta's leaving the line on which J is what it was, and the defect alone
        blames theta where the field is the stiffer of the two (README: errors of a step).

        For a field q = log u that norm is weighted by u, and the scale is one: an error of q is a relative error of u.
        """
        before, after = (self.network.field(at, points.x).astype(jnp.float64) for at in (theta, new))
        judging, size = self._judging(points, before)
        values = (self._rate(theta, e, points), increment_error, after - before - increment, size)
        squares = jnp.stack([self._square(judging, each) for each in values])
        embedded, of_field, defect, scale = jnp.sqrt(jax.lax.psum(squares, AXIS))
        larger = jnp.maximum(embedded, of_field)
        share = embedded / jnp.where(larger > 0, larger, 1.0)
        error = jnp.maximum(embedded, share * defect)  # not a number if one of them is none
        return (error / scale, jnp.ones_like(scale)) if self.network.log_density else (error, scale)

    def _check_residual(self, theta, t, v, points):
        """The velocity v (p,) at (theta, t): a ``ResidualCheck``."""
        network, f = self.network, self._rhs(theta, t, points.x)
        misfit = self._rate(theta, v, points) - f
        field = network.field(theta, points.x)
        judging, size = self._judging(points, field)
        mass = points.measure * jnp.linalg.norm(network.values(theta, points.x).astype(jnp.float64), axis=-1)
        squares = [self._square(points, misfit), self._square(points, f)]
        squares += [self._square(judging, values) for values in (misfit, size)]
        masses = [jnp.sum(mass), jnp.sum(mass**2), jnp.sum(points.measure > 0)]
        squares, masses = jax.lax.psum((jnp.stack(squares), jnp.stack(masses)), AXIS)
        ratio = lambda a, b: a / jnp.where(b > 0, b, 1.0)  # noqa: E731
        residual, rate = (jnp.sqrt(ratio(squares[i], squares[j])) for i, j in ((0, 1), (2, 3)))
        return ResidualCheck(residual, rate, ratio(masses[0] ** 2, masses[1] * masses[2]))

    def _residual_squares(self, theta, t, v, points):
        """|J v - f|^2 at every point: (n,)."""
        misfit = self._rate(theta, v, points) - self._rhs(theta, t, points.x)
        return jnp.sum(misfit**2, axis=-1)

    # Parts ----------------------------------------------------------------------------------------

    def _operator(self, theta, points, basis=None, precision=jnp.float64) -> Operator:
        return Operator.build(self.network, theta, points.x, points.weights, self.chunk, precision, basis)

    def _operators(self, theta, points, basis):
        """J in float64, for rates, right-hand sides and true residuals, and as the solver is to multiply by it."""
        exact, precision = self._operator(theta, points, basis), self.solver.precision
        return exact, exact if precision == "float64" else self._operator(theta, points, basis, precision)

    def _rhs(self, theta, t, x):
        """The field's time derivative f at x (n, d): (n, m) float64."""
        network = self.network

        def at(point):
            point = point.astype(network.dtype)
            u = network.function(theta, unit=point if self.problem.linear else None)
            f = jnp.reshape(self.problem.rhs(u, point, t), (network.outputs,))
            return network.as_field_rate(f, u(point))

        if self._in_chunks(x):
            return jax.lax.map(at, x, batch_size=self.chunk).astype(jnp.float64)
        return jax.vmap(at)(x).astype(jnp.float64)

    def _field(self, theta, x):
        """The network at x (n, d): (n, m)."""
        if self._in_chunks(x):
            return jax.lax.map(lambda point: self.network.field(theta, point[None])[0], x, batch_size=self.chunk)
        return self.network.field(theta, x)

    def _in_chunks(self, x) -> bool:
        return 0 < self.chunk < len(x)

    def _judging(self, points, field):
        """The points with the weights of the error norm, and the field whose norm errors are relative to: (n, m)."""
        log_density = self.network.log_density
        weighted = points._replace(weights=error_weights(points, field, log_density))
        return weighted, jnp.ones_like(field) if log_density else field

    @staticmethod
    def _square(points, values):
        """This device's part of |values|^2 = sum_i w_i |values_i|^2."""
        return jnp.sum(points.weights[:, None] * values.astype(jnp.float64) ** 2)
