"""Vectors in parts against the same algebra in numpy, on 1, 2 and 4 devices."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS, make_mesh
from nivp_dist.galerkin.vectors import COLUMNS, Sharded, Whole

SIZE, RANK = 4 * 23 - 3, 11  # no multiple of the devices
pytestmark = pytest.mark.devices
RANDOM = np.random.default_rng(0)
A, B, R = (RANDOM.standard_normal(shape) for shape in ((SIZE, RANK), (SIZE, RANK), (SIZE,)))


@pytest.fixture(params=["whole", "sharded"])
def vectors(request, mesh):
    return Whole(SIZE, AXIS) if request.param == "whole" else Sharded(SIZE, AXIS, mesh.size)


@pytest.fixture
def program(mesh):
    """function of replicated arrays -> its results, which are to be replicated."""

    def call(function, *arrays):
        return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P()))(*arrays)

    return call


def test_whole_vectors_are_recovered_from_their_parts(vectors, program):
    np.testing.assert_array_equal(program(lambda v: vectors.replicated(vectors.part(v)), R), R)
    np.testing.assert_array_equal(program(lambda v: vectors.replicated(vectors.part(v)), A), A)
    doubled = program(lambda v: vectors.dots((2 * vectors.part(vectors.whole(vectors.part(v))),) * 2), R)
    np.testing.assert_allclose(doubled, [4 * R @ R], rtol=1e-14)


def test_sums_over_devices_and_products_of_columns(vectors, program, mesh):
    share = 1 + np.arange(mesh.size)

    def local(v):
        return (1.0 + jax.lax.axis_index(AXIS)) * v

    np.testing.assert_allclose(program(lambda v: vectors.replicated(vectors.sum(local(v))), R), share.sum() * R)
    many = RANDOM.standard_normal((SIZE, COLUMNS + 5))  # two groups, the second filled up
    product = program(lambda v: vectors.replicated(vectors.columns(local, vectors.part(v))), many)
    np.testing.assert_allclose(product, share.sum() * many, rtol=1e-14)


def test_dot_products(vectors, program):
    dots, inner, applied = program(
        lambda a, b, r: (
            vectors.dots((vectors.part(a[:, 0]), vectors.part(r)), (vectors.part(r), vectors.part(r))),
            vectors.inner(vectors.part(a), vectors.part(b)),
            vectors.inner(vectors.part(a), vectors.part(r)),
        ),
        *(A, B, R),
    )
    np.testing.assert_allclose(dots, [A[:, 0] @ R, R @ R], rtol=1e-13)
    np.testing.assert_allclose(inner, A.T @ B, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(applied, A.T @ R, rtol=1e-12, atol=1e-12)


def factors(vectors):
    def replicated(a):
        q, r = vectors.qr(vectors.part(a))
        return vectors.replicated(q), r

    return replicated


def test_orthogonal_factors_keep_ill_conditioned_columns(vectors, program):
    """A factorisation by Gram matrices would lose columns below 1e-8 of the largest."""
    a = A * np.logspace(0, -13, RANK)
    q, r = map(np.asarray, program(factors(vectors), a))
    np.testing.assert_allclose(q.T @ q, np.eye(RANK), atol=1e-13)
    np.testing.assert_allclose(q @ r, a, atol=1e-14)
    np.testing.assert_array_equal(r, np.triu(r))


def test_orthogonal_factors_of_parts_with_fewer_rows_than_columns(mesh, program):
    a = A[: RANK + 1]
    q, r = program(factors(Sharded(RANK + 1, AXIS, mesh.size)), a)
    np.testing.assert_allclose(q @ r, a, atol=1e-13)
    np.testing.assert_allclose(q.T @ q, np.eye(RANK), atol=1e-13)


@pytest.mark.parametrize("devices, most", [(3, 3), (4, 2)])
def test_orthogonal_factors_are_combined_a_few_at_a_time(devices, most):
    """No device holds the factors R of all parts, but of as many as the largest prime factor of their number."""
    vectors = Sharded(SIZE, AXIS, devices)
    program = jax.jit(jax.shard_map(factors(vectors), mesh=make_mesh(devices), in_specs=P(), out_specs=P()))
    q, r = map(np.asarray, program(A))
    np.testing.assert_allclose(q @ r, A, atol=1e-13)
    np.testing.assert_allclose(q.T @ q, np.eye(RANK), atol=1e-13)
    stacked = {count for count in range(2, devices + 1) if f"f64[{count},{RANK},{RANK}]" in str(program.trace(A).jaxpr)}
    assert stacked == {most}


def test_normal_numbers_do_not_depend_on_the_devices(mesh, program):
    def numbers(devices):
        vectors = Sharded(SIZE, AXIS, devices)
        return lambda: vectors.replicated(vectors.normal(jax.random.key(3), 400))

    drawn = np.asarray(program(numbers(mesh.size)))
    alone = jax.jit(jax.shard_map(numbers(1), mesh=make_mesh(1), in_specs=(), out_specs=P()))
    np.testing.assert_allclose(drawn, alone(), rtol=1e-13)
    assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size) and abs(drawn.std() - 1) < 4 / np.sqrt(2 * drawn.size)
    assert np.unique(drawn).size == drawn.size
