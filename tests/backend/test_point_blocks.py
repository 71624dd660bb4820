"""Blocks of points: the same values as at once, and a memory that does not grow with the points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import point_blocks
from nivp_dist.backend.mesh import AXIS, make_mesh, memory_of, pointwise
from nivp_dist.backend.point_blocks import in_blocks, peak_bytes, sum_in_blocks
from nivp_dist.fitting.errors import relative_errors
from nivp_dist.fitting.head import HeadTuning
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.jacobian import factor_bytes, largest_chunk
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems.double_well import DoubleWell
from nivp_dist.problems.wave import Wave
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings

SMALL = 2**20  # bytes of a block in place of MOST_BYTES


def both(x, y):
    """A function of points with a tuple as result."""
    return jnp.sin(x) * y[:, None], jnp.sum(x, axis=1)


def loops(function, *arrays) -> int:
    """The trips of the loops in a function's jaxpr."""
    equations = jax.make_jaxpr(function)(*arrays).eqns
    return sum(equation.params["length"] for equation in equations if equation.primitive.name == "scan")


@pytest.mark.parametrize("at_most, most_bytes, trips", [(0, 2**20, 0), (11, 2**20, 0), (4, 2**20, 3), (0, 400, 2)])
def test_values_in_blocks_are_those_at_once(monkeypatch, at_most, most_bytes, trips):
    monkeypatch.setattr(point_blocks, "MOST_BYTES", most_bytes)
    random = np.random.default_rng(0)
    x, y = jnp.asarray(random.standard_normal((11, 3))), jnp.asarray(random.standard_normal(11))
    blocked = lambda x, y: in_blocks(both, x, y, at_most=at_most)  # noqa: E731
    assert loops(blocked, x, y) == trips
    jax.tree.map(np.testing.assert_array_equal, blocked(x, y), both(x, y))


def test_a_sum_in_blocks_counts_every_point_once():
    random = np.random.default_rng(1)
    weights, x = random.uniform(size=11), random.standard_normal((11, 3))
    function = lambda weights, x: (weights @ x, jnp.sum(weights))  # noqa: E731
    sums = sum_in_blocks(function, jnp.asarray(weights), jnp.asarray(x), at_most=4)
    np.testing.assert_allclose(sums[0], weights @ x, rtol=1e-13)
    np.testing.assert_allclose(sums[1], np.sum(weights), rtol=1e-13)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_pointwise_program_keeps_points_where_they_are(devices):
    """Without communication, whatever the blocks."""
    mesh = make_mesh(devices)
    x = jax.device_put(np.arange(24.0).reshape(8, 3), jax.NamedSharding(mesh, P(AXIS)))
    program = pointwise(mesh, lambda factor, x: factor * jnp.sum(x, axis=1), at_most=1)
    values = program(2.0, x)
    assert values.sharding.is_equivalent_to(jax.NamedSharding(mesh, P(AXIS)), 1)
    np.testing.assert_array_equal(values, 2 * np.sum(np.asarray(x), axis=1))
    text = program.lower(2.0, x).compile().as_text()
    assert "all-reduce" not in text and "all-gather" not in text


class Case:
    """A problem and the programs of its steps and fits, for any number of points."""

    def __init__(self, problem, **network):
        self.network = build_network(NetworkSettings(**network), problem)
        self.discretisation = Discretisation(self.network, problem, SamplingSettings(points=100), make_mesh(1))
        self.theta = self.network.initialise(jax.random.key(0))

    def galerkin(self):
        return Galerkin(self.discretisation, SolverSettings(method="pcg", rank=4))

    def points(self, n: int):
        shape = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float64)  # noqa: E731
        return Points(shape(n, self.network.dimension), shape(n), shape(n))


CASES = {
    "wave": lambda: Case(Wave(dimension=3), width=20, depth=3),
    "density": lambda: Case(DoubleWell(dimension=10), width=32, depth=2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_predicted_memory_is_that_which_xla_allocates(name):
    """Of the field and of the right-hand side: the latter takes five times the memory of the former and more."""
    case, n = CASES[name](), 2000
    x = case.points(n).x
    field = lambda x: case.discretisation.field(case.theta, x)  # noqa: E731
    rhs = lambda x: case.discretisation.rhs(case.theta, 0.1, Points(x, x[:, 0], x[:, 0]))  # noqa: E731
    predicted, allocated = [], []
    for function in (field, rhs):
        predicted.append(peak_bytes(function, x))
        options = {"xla_llvm_disable_expensive_passes": True}
        memory = jax.jit(function).lower(x).compile(compiler_options=options).memory_analysis()
        allocated.append(memory.temp_size_in_bytes + memory.output_size_in_bytes)
    ratios = np.array(predicted) / allocated
    assert np.all((ratios > 0.7) & (ratios < 3)), (predicted, allocated)
    assert predicted[1] > 3 * predicted[0]


@pytest.fixture(scope="module")
def small_case():
    return Case(Wave(dimension=2), width=8, depth=1)


def lowered(case, name, n):
    """The program of that name for n points."""
    galerkin, points, theta, target = case.galerkin(), case.points(n), case.theta, jnp.float64
    target = jax.ShapeDtypeStruct((n, case.network.outputs), jnp.float64)
    if name == "errors of a fit":
        return relative_errors(galerkin).lower(theta[None], points, target, 0.0)
    if name == "head tuning":
        return HeadTuning(galerkin, 1e-8)._program.lower(theta, points, target)
    if name == "values":
        return galerkin.values.lower(theta, 0.0, points.x)
    if name == "check of the residual":
        return galerkin.check_residual.lower(theta, 0.0, theta, points)
    return galerkin.step_norms.lower(theta, 0.0, theta, theta, target, target, points)


@pytest.mark.parametrize("name", ["errors of a fit", "head tuning", "values", "check of the residual", "step norms"])
def test_no_program_holds_the_intermediate_results_of_all_points(small_case, monkeypatch, name):
    """Memory beside arguments and results grows by the factors of the rate J v and by numbers that every point has."""
    monkeypatch.setattr(point_blocks, "MOST_BYTES", SMALL)
    few, many = 20_000, 80_000
    memory = [lowered(small_case, name, n).compile().memory_analysis().temp_size_in_bytes for n in (few, many)]
    factors = sum(layer.rows + small_case.network.outputs * layer.columns for layer in small_case.network.layers)
    numbers = 3 * factors if name in ("check of the residual", "step norms") else 12
    assert memory[1] - memory[0] < 8 * numbers * (many - few), memory


@pytest.mark.parametrize("memory", [2**20, 2**24])
def test_the_automatic_chunk_keeps_factors_within_a_quarter_of_the_memory(small_case, monkeypatch, memory):
    """And twice as many would not be. A velocity with four times the points then takes little more memory."""
    network = small_case.network
    chunk = largest_chunk(network, memory)
    assert factor_bytes(network, chunk, jnp.float64) <= memory / 4 < factor_bytes(network, 2 * chunk, jnp.float64)
    monkeypatch.setattr("nivp_dist.galerkin.discretisation.memory_of", lambda mesh: memory)
    assert small_case.discretisation.chunk == chunk
    if memory == 2**20:
        lower, key = small_case.galerkin().preparation(4).lower, jax.random.key(0)
        programs = [lower(small_case.theta, small_case.points(n), key).compile() for n in (20_000, 80_000)]
        few, many = (program.memory_analysis().temp_size_in_bytes for program in programs)
        assert many - few < 8 * 60_000 * 12, (few, many)


def test_the_devices_of_a_cpu_are_taken_to_have_a_fixed_memory():
    assert memory_of(make_mesh(1)) == 2**34
