"""Products with the Jacobian from per-layer factors, against a dense Jacobian made by jax.jacobian."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import point_blocks
from nivp_dist.backend.mesh import AXIS, make_mesh
from nivp_dist.galerkin import blocks, jacobian
from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.network.affine_layers import Layer
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems import Axes, Box, Neumann, Open, Periodic, PeriodicBox, Problem, Real, Robin, Wall, WholeSpace
from nivp_dist.settings.model import NetworkSettings

BOX = Box(2, (-1.0, 0.0), (1.0, 3.0))
SMALL = {"width": 5, "depth": 2, "frequencies": 2, "alpha": [1.0, 1.5]}
UNITS = {"output_scales": [3.0, 0.5]}
COLUMNS = 6
POINTS = 45  # not a multiple of 2, of 4 or of the chunk


class Scalar(Problem):
    @property
    def domain(self):
        return BOX


class System(Scalar):
    outputs = 2


class OnPeriodicBox(Problem):
    @property
    def domain(self):
        return PeriodicBox(2, 0.0, (1.0, 2.0))


class Density(Problem):
    density = True

    @property
    def domain(self):
        return WholeSpace(2, 0.5, (1.0, 2.0))


class SpaceSystem(Problem):
    outputs = 2

    @property
    def domain(self):
        return WholeSpace(2, 0.5, (1.0, 2.0))


class Many(Problem):
    density = True

    @property
    def domain(self):
        return WholeSpace(7, 0.5, 2.0)


class Mixed(Problem):
    @property
    def domain(self):
        return Axes(Wall(0, 1), Periodic(0, 2), Neumann(-1, 1), Open(0, 3), Real(1, 0.5))


class Mirrored(Problem):
    """Robin walls, and outputs of different parities."""

    outputs = 2
    parities = {0: (1, -1), 1: (-1, 1)}

    @property
    def domain(self):
        return Axes(Robin(0, 1, 2.0, 2.0), Periodic(0, 2), Robin(-1, 1, np.inf, 0.5))


class Kinetic(Problem):
    density = True

    @property
    def domain(self):
        return Axes(Periodic(0, 2), Real(0.5, 2), Real())


CASES = {
    "walls": (Scalar(), SMALL),
    "shared trunk": (System(), SMALL | UNITS),
    "separate trunks": (System(), SMALL | UNITS | {"trunk": "separate", "activation": "tanh"}),
    "periodic": (OnPeriodicBox(), SMALL | {"activation": "gelu"}),
    "log density": (Density(), {"width": 5, "depth": 2, "activation": "sin"}),
    "quadratic form of many coordinates": (Many(), {"width": 3, "depth": 1}),
    "exponential": (Density(), {"width": 5, "depth": 1, "form": "exponential"}),
    "exponential system": (SpaceSystem(), UNITS | {"width": 4, "depth": 1, "form": "exponential", "trunk": "separate"}),
    "Robin walls, parities": (
        Mirrored(),
        {"width": 4, "depth": 1, "frequencies": 2, "output_scales": [2.0, 1.0], "alpha": 1.0},
    ),
    "mixed axes": (Mixed(), {"width": 4, "depth": 1, "frequencies": [1, 2, 1, 0, 1], "alpha": [1.0, 1.5]}),
    "log density on mixed axes": (Kinetic(), {"width": 4, "depth": 1, "frequencies": [2, 0, 0]}),
    "exponential in a box": (Scalar(), SMALL | {"form": "exponential", "additive": 3}),
}


def network_of(case, **more):
    problem, settings = CASES[case]
    network = build_network(NetworkSettings(**settings, **more), problem)
    return network, jax.jit(network.initialise)(jax.random.key(3))


def vectors(network):
    random = np.random.default_rng(1)
    v, columns = random.standard_normal(network.size), random.standard_normal((network.size, COLUMNS))
    return v, columns, random.standard_normal((POINTS, network.outputs))


def products(network, chunk, dtype, theta, points, v, columns, r, total=lambda value: value):
    operator = Operator.build(network, theta, points.x, points.weights, chunk, dtype)
    sums = operator.transpose(r), operator.normal(v), operator.normal_columns(columns), operator.matrix()
    return operator.apply(v), *total((*sums, operator.traces()))


@pytest.fixture(scope="module")
def expected(make_points, dense):
    """case -> what the products must be, by a dense Jacobian at the points without padding."""
    cache = {}

    def compute(case):
        if case not in cache:
            network, theta = network_of(case)
            j, w = dense(network, theta, make_points(network.domain, POINTS, make_mesh(1)))
            v, columns, r = vectors(network)
            m = j.T @ (w[:, None] * j)
            by_layer = np.array(
                [np.trace(m[layer.start : layer.stop, layer.start : layer.stop]) for layer in network.layers]
            )
            cache[case] = (j @ v).reshape(r.shape), j.T @ (w * r.reshape(-1)), m @ v, m @ columns, m, by_layer
        return cache[case]

    return compute


@pytest.mark.parametrize("columns", [1, COLUMNS, 400])
@pytest.mark.parametrize("case", CASES)
def test_columns_as_on_a_gpu_against_a_dense_jacobian(case, columns, make_points, expected, monkeypatch):
    """In blocks of one to three points, by explicit rows where there are more columns than numbers in a row."""
    network, theta = network_of(case)
    points = make_points(network.domain, POINTS, make_mesh(1))
    matrix = np.random.default_rng(2).standard_normal((network.size, columns))
    monkeypatch.setattr(jacobian, "GPU_BLOCK_ENTRIES", 3 * min(network.size, 2 * columns * 5))
    operator = Operator.build(network, theta, points.x, points.weights, platform="gpu")
    got, m = jax.jit(operator.normal_columns)(matrix), expected(case)[4]
    np.testing.assert_allclose(got, m @ matrix, rtol=0, atol=1e-12 * np.abs(m @ matrix).max())


def assert_close(got, want, tolerance):
    for name, value, exact in zip(("J v", "J^T W r", "M v", "M V", "M", "tr M by layer"), got, want, strict=True):
        assert value.dtype == jnp.float64, name
        assert value.shape == np.shape(exact), name
        np.testing.assert_allclose(value, exact, rtol=0, atol=tolerance * np.abs(exact).max(), err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_products_against_a_dense_jacobian(case, make_points, expected):
    network, theta = network_of(case)
    points = make_points(network.domain, POINTS, make_mesh(1))
    got = jax.jit(partial(products, network, 0, jnp.float64))(theta, points, *vectors(network))
    assert_close(got, expected(case), 1e-12)


@pytest.mark.parametrize("chunk", [0, 7], ids=["whole", "chunked"])
@pytest.mark.parametrize("precision, bits", [("tensorfloat32", 10), ("bfloat16", 7)])
def test_coarse_products_have_the_rounding_error_of_their_precision(precision, bits, chunk, make_points, expected):
    """That of the factors, in products with one vector; all other products are in float32."""
    network, theta = network_of("shared trunk")
    points = make_points(network.domain, POINTS, make_mesh(1))
    got = jax.jit(partial(products, network, chunk, precision))(theta, points, *vectors(network))
    want = expected("shared trunk")
    for coarse, exact in zip(got[:3], want[:3], strict=True):
        assert 2.0 ** -(bits + 5) < np.abs(coarse - exact).max() / np.abs(exact).max() < 2.0 ** -(bits - 1)
    for value, right in zip(got[3:], want[3:], strict=True):
        np.testing.assert_allclose(value, right, rtol=0, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize(
    "rows, columns, outputs, by_products",
    [(25, 24, 1, True), (25, 24, 2, True), (1326, 1, 1, False), (231, 1, 1, False), (231, 2, 2, True)],
)
def test_the_cheaper_form_of_a_diagonal_block(rows, columns, outputs, by_products):
    """A quadratic form of 50 coordinates has 1,326 rows and a column: their products are 880,000 numbers a point."""
    layer = Layer(("quadratic",), 0, rows, columns, (0, outputs))
    assert blocks._by_products(layer, layer) == by_products
    assert blocks.gram_entries([layer]) < 200_000


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 8 or 9 points, of 3 where J or the products of factors are explicit; none of these divides POINTS."""
    monkeypatch.setattr(jacobian, "SHORT_BLOCK", {8: 8, 4: 16})
    monkeypatch.setattr(jacobian, "LONG_BLOCK", {8: 8, 4: 16})
    monkeypatch.setattr(jacobian, "BLOCK_ENTRIES", 900)
    monkeypatch.setattr(jacobian, "GRAM_ENTRIES", 400)


@pytest.mark.parametrize(
    "case, chunk", [("walls", 0), ("separate trunks", 7), ("shared trunk", 20), ("exponential system", 0)]
)
def test_products_block_by_block_and_chunk_by_chunk(case, chunk, make_points, expected, small_blocks):
    network, theta = network_of(case)
    points = make_points(network.domain, POINTS, make_mesh(1))
    got = jax.jit(partial(products, network, chunk, jnp.float64))(theta, points, *vectors(network))
    assert_close(got, expected(case), 1e-12)


@pytest.mark.devices
@pytest.mark.parametrize(
    "case, chunk",
    [("separate trunks", 0), ("separate trunks", 7), ("mixed axes", 0), ("log density on mixed axes", 7)],
)
def test_products_summed_over_devices(mesh, case, chunk, make_points, expected, small_blocks):
    network, theta = network_of(case)
    points = make_points(network.domain, POINTS, mesh)
    assert len(points.x) % mesh.size == 0
    v, columns, r = vectors(network)
    r = np.concatenate([r, np.ones((len(points.x) - POINTS, r.shape[1]))])  # the padding has weight zero
    body = partial(products, network, chunk, jnp.float64, total=partial(jax.lax.psum, axis_name=AXIS))
    split = Points(P(AXIS), P(AXIS), P(AXIS))
    program = jax.shard_map(
        body, mesh=mesh, in_specs=(P(), split, P(), P(), P(AXIS)), out_specs=(P(AXIS), P(), P(), P(), P(), P())
    )
    jv, *sums = jax.jit(program)(theta, points, v, columns, r)
    assert_close((jv[:POINTS], *sums), expected(case), 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"], ids="network {}".format)
def test_float32_products_are_right_to_float32_rounding(dtype, make_points, expected):
    network, theta = network_of("shared trunk", dtype=dtype)
    points = make_points(network.domain, POINTS, make_mesh(1))
    got = jax.jit(partial(products, network, 0, jnp.float32))(theta, points, *vectors(network))
    want = expected("shared trunk")
    assert_close(got, want, 3e-6)
    # They are float32 products indeed: float64 ones would agree to 1e-12.
    assert np.abs(got[1] - want[1]).max() > 1e-9 * np.abs(want[1]).max()


@pytest.mark.parametrize("size, finer", [(1, 1), (4, 3), (10, 4), (11, 2), (50, 7)])
def test_sums_over_blocks_with_a_partial_last_one(size, finer):
    random = np.random.default_rng(0)
    a, b = random.standard_normal((11, 3)), random.standard_normal(11)
    stacked = jnp.moveaxis(point_blocks.stack(jnp.asarray(a), size), 1, -1), point_blocks.stack(jnp.asarray(b), size)
    assert stacked[0].shape == (-(-11 // size), 3, size)
    smaller = point_blocks.refine(stacked, finer)
    assert smaller[0].shape[-1] <= finer
    for tree in (stacked, smaller):
        np.testing.assert_allclose(point_blocks.sum_over(lambda block: block[0] @ block[1], tree), a.T @ b, rtol=1e-13)


def test_factors_of_all_points_whatever_the_blocks(make_points, small_blocks):
    network, theta = network_of("separate trunks")
    points = make_points(network.domain, POINTS, make_mesh(1))
    plain = network.factors(theta, points.x)[1]
    for chunk in (0, 7):
        got = Operator.build(network, theta, points.x, points.weights, chunk).point_factors()
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14), got, plain)
