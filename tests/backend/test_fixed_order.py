"""Sums over points in a fixed order: the same bits on 1, 2 and 4 devices, and the plain programs without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import AXIS, PARTS, sum_over_devices, sum_over_parts
from nivp_dist.backend.mesh import make_mesh, multiple_of_points, program, whole_program
from nivp_dist.backend.point_blocks import in_blocks, sum_in_blocks
from nivp_dist.errors import InputError
from nivp_dist.points.points import Points, pad
from nivp_dist.points.selection import select_by_residual

DEVICES = (1, 2, 4)


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def on_each(compute):
    """compute(mesh) on ordered meshes of 1, 2 and 4 devices: its result, after a check that all have the same bits."""
    results = [compute(make_mesh(devices, ordered=True)) for devices in DEVICES]
    for other in results[1:]:
        assert bits(other) == bits(results[0])
    return results[0]


def split(mesh, array):
    return jax.device_put(array, NamedSharding(mesh, P(AXIS)))


@pytest.fixture
def numbers():
    """Two a part, of very different sizes: nearly every order of their sum rounds differently."""
    chance = np.random.default_rng(0)
    return chance.standard_normal(2 * PARTS) * 10.0 ** chance.integers(-8, 8, 2 * PARTS)


@pytest.mark.devices
def test_a_sum_is_that_of_pairs_of_parts(numbers):
    def total(mesh):
        summed = program(mesh, lambda x: sum_over_devices(sum_over_parts(jnp.sum, x)), P(AXIS))
        return summed(split(mesh, numbers))

    expected = numbers
    while len(expected) > 1:
        expected = expected[::2] + expected[1::2]
    assert float(on_each(total)) == expected[0]
    assert expected[0] != np.cumsum(numbers)[-1]  # another order is another sum


def test_without_it_the_program_is_the_one_with_an_all_reduce():
    mesh, x = make_mesh(2), jnp.arange(8.0)
    ours = program(mesh, lambda x: sum_over_devices(sum_over_parts(jnp.sum, x)), P(AXIS))
    plain = program(mesh, lambda x: jax.lax.psum(jnp.sum(x), AXIS), P(AXIS))
    assert ours.lower(x).as_text() == plain.lower(x).as_text()


@pytest.mark.devices
def test_blocks_of_points_lie_within_the_parts():
    """Matrix products, whose rounding depends on their shape, and blocks that do not divide a part."""
    chance = np.random.default_rng(1)
    a, weights, x = chance.standard_normal((40, 40)), chance.random(7 * PARTS), chance.standard_normal((7 * PARTS, 40))

    def values(mesh):
        def body(weights, x):
            each = in_blocks(lambda x: jnp.tanh(x @ a) @ a, x, at_most=3)
            gram = sum_in_blocks(lambda w, x: (w[:, None] * x).T @ x, weights, x, at_most=3)
            return each, sum_over_devices(gram)

        return program(mesh, body, P(AXIS), P(AXIS), out_specs=(P(AXIS), P()))(split(mesh, weights), split(mesh, x))

    each, gram = on_each(values)
    np.testing.assert_allclose(each, np.tanh(x @ a) @ a, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gram, (weights[:, None] * x).T @ x, rtol=1e-12, atol=1e-11)


@pytest.mark.devices
def test_a_selection_of_points():
    chance = np.random.default_rng(2)
    x, weights, squares = chance.random((300, 2)), chance.random(300), chance.random(320)

    def selected(mesh):
        points = pad(Points(jnp.asarray(x), jnp.asarray(weights / weights.sum()), jnp.asarray(weights)), PARTS)
        choose = whole_program(mesh, lambda *given: select_by_residual(jax.random.key(0), *given, 100, mesh), P(AXIS))
        return choose(jax.tree.map(lambda leaf: split(mesh, leaf), points), split(mesh, squares))

    chosen = on_each(selected)
    assert len(chosen.x) == 128 and np.all(chosen.weights[100:] == 0)
    plain = make_mesh(1)
    other = select_by_residual(
        jax.random.key(0), Points(x, weights / weights.sum(), weights), squares[:300], 100, plain
    )
    np.testing.assert_array_equal(chosen.x[:100], other.x)


def test_the_number_of_devices_divides_that_of_the_parts():
    assert multiple_of_points(make_mesh(2, ordered=True)) == PARTS and multiple_of_points(make_mesh(2)) == 2
    with pytest.raises(InputError, match="^cluster.reproducible = true needs 1, 2, .* or 64 devices, and here are 3: "):
        make_mesh(3, ordered=True)
