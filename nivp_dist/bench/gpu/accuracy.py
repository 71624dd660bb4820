"""Products, sketches and velocities on the device against a dense Jacobian in float64, which jax.jacrev forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.bench import cases
from nivp_dist.bench.gpu.stages import Plan
from nivp_dist.bench.precision import PRECISIONS
from nivp_dist.bench.products import stored_operator
from nivp_dist.bench.velocity import DenseVelocity
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.methods import ITERATIVE
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.settings.model import NetworkSettings, Precision, SamplingSettings, SolverSettings

# Relative errors of a product: 8e-16, 2e-7, 1.2e-3 and 1e-2 on a CPU. A device sums in another order; with factors of
# the next coarser format the error would be far above the bound.
BOUNDS: dict[Precision, float] = {"float64": 1e-12, "float32": 1e-5, "tensorfloat32": 3e-3, "bfloat16": 3e-2}
# Of a velocity: CG stops at a residual of RTOL, and residuals are in float64 at every precision.
RTOL, VELOCITY_BOUND = 1e-10, 1e-6
MU = 1e-6  # relative: with less, the velocity itself is not determined to that accuracy
VELOCITIES: tuple[tuple[str, Precision], ...] = (
    ("pcg", "float64"),
    ("dual_pcg", "float64"),
    ("primal", "float64"),
    ("pcg", "float32"),
    ("dual", "float64"),
)
POINTS, COLUMNS = 200, 4


def plan() -> Plan:
    """The problem is small everywhere, because the dense Jacobian has to fit."""
    products = [(f"products, {precision}", partial(product_errors, precision)) for precision in PRECISIONS]
    return products + [(f"velocity by {method}, {p}", partial(velocity_error, method, p)) for method, p in VELOCITIES]


def product_errors(precision: Precision) -> dict:
    """Relative errors of M v ("product") and of M V for several columns ("sketch")."""
    network = _network()
    theta, random = network.initialise(jax.random.key(0)), np.random.default_rng(0)
    x, v = random.uniform(-1, 1, (POINTS, network.dimension)), random.standard_normal((network.size, COLUMNS))
    j = np.asarray(jax.jit(jax.jacrev(lambda theta: network.field(theta, x)[:, 0]))(theta))
    exact, errors = j.T @ (j @ v) / POINTS, {}
    weights = jnp.full(POINTS, 1.0 / POINTS)
    kept, product = stored_operator(network, theta, jnp.asarray(x), weights, 0, precision)
    for name, columns, wanted in (("product", v[:, 0], exact[:, 0]), ("sketch", v, exact)):
        result = np.asarray(jax.jit(product)(kept, jnp.asarray(columns)))
        errors[name] = float(np.linalg.norm(result - wanted) / np.linalg.norm(wanted))
    bound = BOUNDS[precision]
    return {"errors": errors, "bound": bound, "passed": max(errors.values()) < bound}


def velocity_error(method, precision: Precision) -> dict:
    """|J (v - v*)| / |J v*| of a velocity, with v* by a dense solve."""
    network, mesh = _network(), make_mesh(1)
    problem, sampling = FokkerPlanckTrap(dimension=network.dimension), SamplingSettings(points=POINTS)
    # Points of equal weight, because the dense solve takes the mean over them.
    points = cases.uniform_points(mesh, jax.random.key(1), problem.domain, POINTS)
    theta, discretisation = network.initialise(jax.random.key(0)), Discretisation(network, problem, sampling, mesh)
    solver = SolverSettings(method=method, mu=MU, rtol=RTOL, max_iterations=1000, precision=precision)
    galerkin = Galerkin(discretisation, solver)
    rank = galerkin.initial_rank if method in ITERATIVE else 0
    shared = galerkin.prepare(theta, points, jax.random.key(2), rank, adapted_basis=False)
    result = galerkin.velocity(theta, 0.0, points, shared, galerkin.initial_guess(jnp.zeros(network.size), points))
    error = DenseVelocity(discretisation, theta, points, float(shared.mu)).error(result.v)
    found = {"error_of_rate": error, "bound": VELOCITY_BOUND, "passed": error < VELOCITY_BOUND}
    return found | {"iterations": result.quality.iterations, "cg_residual": result.quality.solver_residual}


def _network():
    return build_network(NetworkSettings(width=16, depth=2, frequencies=2), FokkerPlanckTrap(dimension=3))
