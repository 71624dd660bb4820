"""The compiled programs of the Galerkin method: theta, t, points -> theta', and the norms that judge a step.

Points stay on their devices. A program is one `shard_map` over the mesh axis "points": every device forms its partial
products, and one all-reduce of p numbers sums them in each CG iteration, one of p x rank numbers in each sketch.
p-vectors are replicated. No program differentiates with respect to theta through a replicated value (the factors are
cotangents of per-sample quantities), so no hidden all-reduce can scale a gradient by the number of devices. With
solver.shard_vectors the p-vectors of CG are sharded too (``vectors``).
"""

from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import sum_over_devices
from nivp_dist.backend.host_numbers import pack, packed, read
from nivp_dist.backend.mesh import AXIS, program
from nivp_dist.galerkin import kernel, norms, not_finite, nystrom, taylor
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.energy import EnergyOperator
from nivp_dist.galerkin.linear_solver import LinearSolver
from nivp_dist.galerkin.methods import ITERATIVE, initial_rank, largest_rank
from nivp_dist.galerkin.regularisation import Regularisation
from nivp_dist.galerkin.spectrum import SpectrumPrograms
from nivp_dist.network.frames import Basis, balanced
from nivp_dist.points.points import Points
from nivp_dist.settings.automatic import mu_of, number_of_points
from nivp_dist.settings.model import SolverSettings

REPLICATED = P()


class Velocity(NamedTuple):
    """A velocity and how it was found.

    Attributes:
        v: theta' (p,). rate: the field's rate J v on the points (n, m).
        next_guess: the initial guess of the next solve on the same points, see ``Galerkin.initial_guess``.
        numbers: a ``Quality``, packed for the host.
    """

    v: jax.Array
    rate: jax.Array
    next_guess: jax.Array
    numbers: jax.Array

    @property
    def quality(self) -> "Quality":
        """How good it is: one transfer from the device, which waits for the velocity."""
        found = read(Quality, self.numbers)
        return found._replace(iterations=int(found.iterations), code=int(found.code))


class Quality(NamedTuple):
    """How good a velocity is, in numbers of the host.

    Attributes:
        residual: |J v - f| / |f| on the points. rhs_norm: |f|.
        iterations, solver_residual, code: of the linear solver, with its true relative residual and a result code
            (``pcg.CODE_NAMES``).
    """

    residual: float
    rhs_norm: float
    iterations: int
    solver_residual: float
    code: int


class Galerkin:
    """The programs of one configuration on one mesh; each is compiled once.

    Args:
        fit_order: 0 for velocities, in a fit the order of its corrections; only the choice of an automatic method
            depends on it.
        rate_rtol: with solver.rtol = "auto" the relative error of J v at which CG stops; zero: CG stops by its
            residual alone.

    Attributes, all compiled programs on global arrays:
        velocity: (theta, t, points, regularisation, initial guess) -> ``Velocity``.
        rate: (theta, v, points) -> J v (n, m). field, values: (theta, x) -> the field or u (n, m).
        step_norms, check_residual: the functions of ``norms``, their numbers packed (``backend.host_numbers``).
        residual_squares, unresolved_data: those of ``norms`` too.
    """

    def __init__(
        self, discretisation: Discretisation, solver: SolverSettings, fit_order: int = 0, rate_rtol: float = 0.0
    ):
        self.discretisation, self.solver, self.axis = discretisation, solver, AXIS
        self.network, self.problem, self.mesh = discretisation.network, discretisation.problem, discretisation.mesh
        self.linear_solver = LinearSolver(discretisation, solver, fit_order, rate_rtol)
        self.method, self.hardware = self.linear_solver.method, self.linear_solver.hardware
        self.points_spec = Points._make((P(AXIS), P(AXIS), P(AXIS)))
        self.shared_spec = self.linear_solver.regularisation_spec()
        self._prepare: dict = {}  # by rank and adapted_basis
        self._corrections: dict = {}  # by order
        self._define_solves()
        self._define_norms()

    def _define_solves(self):
        every, split, shared, compiled = REPLICATED, self.points_spec, self.shared_spec, self.program
        guess = P(AXIS) if self.method == "dual_pcg" else every
        results = Velocity._make(every for _ in Velocity._fields)._replace(rate=P(AXIS), next_guess=guess)
        self.velocity = compiled(self._velocity, every, every, split, shared, guess, out_specs=results)
        self._cholesky = compiled(kernel.cholesky, every, every)
        self._zero_samples = compiled(self._zeros, split, out_specs=P(AXIS))

    def _define_norms(self):
        every, split, compiled, it = REPLICATED, self.points_spec, self.program, self.discretisation
        self.rate = compiled(it.rate, every, every, split, out_specs=P(AXIS))
        self.field = compiled(it.field, every, P(AXIS), out_specs=P(AXIS))
        self.values = compiled(it.values, every, every, P(AXIS), out_specs=P(AXIS))
        step_norms, check_residual = (packed(partial(each, it)) for each in (norms.step_norms, norms.check_residual))
        self.step_norms = compiled(step_norms, every, every, every, every, P(AXIS), P(AXIS), split)
        self.check_residual = compiled(check_residual, every, every, every, split)
        self.unresolved_data = compiled(partial(norms.unresolved_data, it), every, every, split)
        squares = partial(norms.residual_squares, it)
        self.residual_squares = compiled(squares, every, every, every, split, out_specs=P(AXIS))
        self._find_not_finite = compiled(partial(not_finite.find, it), every, every, split)

    @cached_property
    def spectrum(self) -> SpectrumPrograms:
        """The programs that measure the spectrum of M."""
        return SpectrumPrograms(self)

    def rhs_not_finite(self, theta, t: float, points: Points) -> str | None:
        """One line that names a point where the problem's rhs is not finite though u is; None where it is finite."""
        found, x, integrals = self._find_not_finite(theta, t, points)
        return not_finite.describe(self.discretisation, theta, t, x, integrals) if bool(found) else None

    @property
    def initial_rank(self) -> int:
        """The rank of the approximation that CG starts with; 0 with direct solves."""
        if self.method not in ITERATIVE:
            return 0
        if self.solver.rank != "adaptive":
            return min(self.network.size, self.solver.rank)
        return initial_rank(self.method, self.network, mu_of(self.solver), self.largest_rank)

    @property
    def largest_rank(self) -> int:
        """What an adaptive rank may grow to, within the memory of a device; 0 with a fixed rank or direct solves."""
        if self.method not in ITERATIVE or self.solver.rank != "adaptive":
            return 0
        rows = -(-number_of_points(self.discretisation.sampling) // self.mesh.size) * self.network.outputs
        parts = self.mesh.size if self.solver.shard_vectors else 1
        fits = largest_rank(self.method, self.network, rows, parts, self.hardware)
        return min(self.solver.max_rank, self.network.size, fits)

    def initial_guess(self, velocity, points: Points):
        """The initial guess of the first solve on new points, where theta' was `velocity` (p,) on others.

        Parameters of the solution do not depend on the points. With "dual_pcg" the unknowns are one a sample, and
        those of other points are of no use: zeros (n m,).
        """
        return self._zero_samples(points) if self.method == "dual_pcg" else velocity

    def program(self, function, *in_specs, out_specs: Any = REPLICATED):
        """function of one device's shards -> a compiled function of global arrays (``backend.mesh.program``)."""
        return program(self.mesh, function, *in_specs, out_specs=out_specs)

    # Regularisation ---------------------------------------------------------------------------------

    def prepare(self, theta, points: Points, key, rank: int, adapted_basis: bool = True) -> Regularisation:
        """mu, and with CG the Nystrom approximation of the given rank, at (theta, points).

        adapted_basis: regularise in the basis in which one mu suits all parameters (``network.frames``), or in that
        of the network.
        """
        return self.preparation(rank, adapted_basis)(theta, points, key)

    def with_mu(self, regularisation: Regularisation, mu) -> Regularisation:
        """Another absolute mu, with what all solves with it share."""
        lower = None if regularisation.factor is None else self._cholesky(regularisation.factor.gram, mu)
        return regularisation._replace(mu=mu, lower=lower)

    def preparation(self, rank: int, adapted_basis: bool = True):
        """The compiled program of ``prepare``: (theta, points, key) -> Regularisation."""
        if (rank, adapted_basis) not in self._prepare:
            body = partial(self._regularisation, rank=rank, adapted_basis=adapted_basis)
            spec = self.shared_spec if rank else self.shared_spec._replace(factor=P())
            self._prepare[rank, adapted_basis] = self.program(body, P(), self.points_spec, P(), out_specs=spec)
        return self._prepare[rank, adapted_basis]

    def _regularisation(self, theta, points, key, *, rank, adapted_basis):
        basis = self._whitening_basis(theta, points) if adapted_basis else None
        operator = self.operators(theta, points, basis)[1]
        traces = sum_over_devices(operator.traces())
        if basis is not None and self.solver.equal_shares:
            basis = basis._replace(scales=balanced(traces))
            operator, traces = self.operators(theta, points, basis)[1], traces * basis.scales**2
        trace = jnp.sum(traces)
        mu, limit = mu_of(self.solver) * trace, jnp.asarray(self.solver.max_iterations, jnp.int64)
        empty = nystrom.Sketch(jnp.zeros((self.network.size, 0)), jnp.zeros((0,)))
        if rank == 0:
            return Regularisation(mu, trace, empty, limit, basis)
        if self.method == "dual_pcg":
            factor = kernel.factor(self.operators(theta, points, basis)[0], key, rank, AXIS)
            return Regularisation(mu, trace, empty, limit, basis, factor)
        vectors = self.linear_solver.vectors
        omega = nystrom.test_matrix(vectors, key, rank)
        product = vectors.columns(operator.normal_columns, omega)
        sketch = nystrom.sketch(vectors, omega, product, operator.dtype)
        return Regularisation(mu, trace, sketch, limit, basis)

    def _whitening_basis(self, theta, points) -> Basis:
        """Frames of quadratic forms, with solver.equal_shares of first layers too, and all scales one."""
        frames = self.network.frames(theta, points.x, points.weights, AXIS)
        if not self.solver.equal_shares:
            frames = frames[: len(self.network.quadratics)]
        return Basis(frames, jnp.ones(len(self.network.layers)))

    # Solves -----------------------------------------------------------------------------------------

    def _velocity(self, theta, t, points, regularisation, guess):
        basis = regularisation.basis
        operators = operator, _ = self.operators(theta, points, basis)
        f = self.right_hand_side(theta, t, points)
        guess = guess if self.method == "dual_pcg" else self.network.to_basis(guess, basis)
        solved = self.linear_solver.solve(operators, f, points.weights, regularisation, guess)
        rate = operator.apply(solved.v)
        squares = jnp.stack([norms.square(points, rate - f), norms.square(points, f)])
        v = self.network.from_basis(solved.v, basis)
        if self.discretisation.norm == "energy":
            rate = self.discretisation.rate(theta, v, points)
        misfit, f_square = sum_over_devices(squares)
        residual = jnp.sqrt(misfit / jnp.where(f_square > 0, f_square, 1.0))
        guess = solved.next_guess if self.method == "dual_pcg" else v
        numbers = (residual, jnp.sqrt(f_square), solved.iterations, solved.residual, solved.code)
        return Velocity(v, rate, guess, pack(numbers))

    def corrections(self, order: int):
        """The compiled program (theta, points, misfit, regularisation, dampings) -> (c, order, p): for several mu_i at
        once the Gauss-Newton correction (M + mu_i I)^-1 J^T W misfit, and the terms of higher order that continue it
        (``taylor.curve``).

        misfit: (n, m), target minus field. dampings: (c,), mu_i relative to tr M.
        """
        if order not in self._corrections:
            specs = P(), self.points_spec, P(AXIS), self.shared_spec, P()
            self._corrections[order] = self.program(partial(self._curves, order=order), *specs)
        return self._corrections[order]

    def _curves(self, theta, points, misfit, regularisation, dampings, *, order):
        it, basis = self.discretisation, regularisation.basis
        operators = self.operators(theta, points, basis)
        at_damping = self.linear_solver.at_dampings(operators, misfit, points.weights, regularisation)
        field = lambda theta: it.field(theta, points.x)  # noqa: E731

        def one(mu):
            solve = at_damping(mu)
            return taylor.curve(lambda f: self.network.from_basis(solve(f), basis), field, theta, misfit, order)

        return jax.lax.map(one, dampings * regularisation.trace)

    def operators(self, theta, points, basis):
        """J in float64, for rates, right-hand sides and true residuals, and J in solver.precision."""
        if self.discretisation.norm == "energy":
            operator = EnergyOperator.build(self.discretisation, theta, points, basis)
            return operator, operator
        exact, precision = self.discretisation.operator(theta, points, basis), self.solver.precision
        if precision == "float64":
            return exact, exact
        return exact, self.discretisation.operator(theta, points, basis, precision)

    def right_hand_side(self, theta, t, points):
        """f at every point (n, k), in the components of the norm."""
        it = self.discretisation
        return (it.rhs if it.norm == "field" else it.energy_rate)(theta, t, points)

    def _zeros(self, points):
        """One zero a sample (n m,): made from the weights, so that they lie on the devices as the points do."""
        return jnp.repeat(0 * points.weights, self.network.outputs)
