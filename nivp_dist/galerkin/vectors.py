"""How the p-vectors of a CG solve lie on the devices: whole on every one, or a part on each (solver.shard_vectors).

The solve's iterates and the sketch are sharded, about 6 p + p x rank numbers. In place of the all-reduce of a product,
an all-gather of v precedes J v and a reduce-scatter follows: the same number of bytes. Dot products and the
preconditioner add three all-reduces of a few numbers, and one of `rank`, to an iteration. Sharding saves memory, not
time. theta and the velocities of a step, p numbers each, stay whole: every point of every device needs all of theta
(``run.whole_vectors`` counts them).

Everything here is called inside of `shard_map`, by all devices.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.fixed_order import sum_over_devices, sum_over_parts

# Columns of a sharded sketch that are gathered on a device at once, and numbers in them (4 GiB) where p is in the tens
# of millions. Compiled for GPUs (p = 9.8e7, rank 128), a sketch takes 5.3 times the memory of these columns.
COLUMNS, COLUMN_ENTRIES = 64, 2**29


def local_dots(*pairs):
    """a . b for pairs of vectors, over this device's part of them: (number of pairs,)."""
    return jnp.stack([a @ b for a, b in pairs])


class Whole:
    """Vectors (p,) that are the same on every device: dot products need no communication."""

    spec = P()

    def __init__(self, size: int, axis: str):
        self.size, self.axis = size, axis

    def sum(self, local):
        """This device's part of the sum over devices of a vector (p,)."""
        return sum_over_devices(local, self.axis)

    def part(self, vector):
        """This device's part of a vector (p,)."""
        return vector

    def whole(self, part):
        """The vector (p,) of which `part` is this device's part."""
        return part

    def replicated(self, part):
        """The vector (p,), as a value that shard_map knows to be the same on all devices."""
        return part

    def columns(self, product, matrix):
        """This device's part of the sum over devices of product(V), for V (p, l)."""
        return self.sum(product(matrix))

    def dots(self, *pairs):
        """a . b of pairs of vectors: (number of pairs,)."""
        return local_dots(*pairs)

    def inner(self, a, b):
        """A^T b: (l,) or (l, k) for A (p, l) and b (p,) or (p, k)."""
        return a.T @ b

    def qr(self, a):
        """Q (p, l) with orthonormal columns and R (l, l), A = Q R."""
        return jnp.linalg.qr(a)

    def normal(self, key, columns: int):
        """Standard normal numbers (p, columns)."""
        return jax.random.normal(key, (self.size, columns), jnp.float64)


class Samples:
    """Vectors with one entry a sample (n m,): each device has those of its points."""

    def __init__(self, axis: str):
        self.axis = axis

    def dots(self, *pairs):
        """a . b of pairs of vectors: (number of pairs,)."""
        return sum_over_devices(sum_over_parts(local_dots, *pairs), self.axis)


class Sharded(Whole):
    """Vectors of which each of k devices holds ceil(p / k) numbers, the last ones zeros where p is no multiple of k."""

    def __init__(self, size: int, axis: str, devices: int):
        super().__init__(size, axis)
        self.spec, self.devices, self.length = P(axis), devices, -(-size // devices)

    def sum(self, local):
        return jax.lax.psum_scatter(self._padded(local), self.axis, tiled=True)

    def part(self, vector):
        return jax.lax.dynamic_slice_in_dim(self._padded(vector), self._start(), self.length)

    def whole(self, part):
        return jax.lax.all_gather(part, self.axis, tiled=True)[: self.size]

    def replicated(self, part):
        return jax.lax.all_gather(part, self.axis, tiled=True, to="invarying")[: self.size]

    def columns(self, product, matrix):
        """As in ``Whole``, but a few columns at a time, so that no device ever holds all of V."""
        count = -(-matrix.shape[1] // min(COLUMNS, max(1, COLUMN_ENTRIES // self.size)))
        width = -(-matrix.shape[1] // count)
        padded = jnp.pad(matrix, ((0, 0), (0, count * width - matrix.shape[1])))
        groups = jnp.moveaxis(padded.reshape(self.length, count, width), 1, 0)
        sums = jax.lax.map(lambda group: self.sum(product(self.whole(group))), groups)
        return jnp.moveaxis(sums, 0, 1).reshape(self.length, -1)[:, : matrix.shape[1]]

    def dots(self, *pairs):
        return jax.lax.psum(local_dots(*pairs), self.axis)

    def inner(self, a, b):
        return jax.lax.psum(a.T @ b, self.axis)

    def qr(self, a):
        """As in ``Whole``, from factors R of the parts (TSQR: Demmel et al. 2012, doi 10.1137/080731992, sec. 3).

        The parts are combined in a tree: a few factors R at a time, in groups of devices that grow. All k of them at
        once would be k l^2 numbers on every device, 33 GB with k = 1,024 and l = 2,000.
        """
        q, r = jnp.linalg.qr(a)
        stride = 1
        for count in _prime_factors(self.devices):
            place = jax.lax.axis_index(self.axis) // stride % count
            top, new = jnp.linalg.qr(self._of_group(r, count, stride, place).reshape(-1, a.shape[1]))
            q = q @ jax.lax.dynamic_slice_in_dim(top, place * len(r), len(r))
            r, stride = new, stride * count
        # All devices have the same R now. The sum makes that known to shard_map.
        return q, jax.lax.psum(jnp.where(jax.lax.axis_index(self.axis) == 0, r, 0.0), self.axis)

    def normal(self, key, columns: int):
        """Each row is drawn with a key of its own, so that it does not depend on the number of devices."""
        rows = self._start() + jnp.arange(self.length)
        numbers = jax.vmap(lambda row: jax.random.normal(random_keys.row_key(key, row), (columns,), jnp.float64))(rows)
        return jnp.where(rows[:, None] < self.size, numbers, 0.0)

    def _start(self):
        return jax.lax.axis_index(self.axis) * self.length

    def _padded(self, vector):
        return jnp.pad(vector, [(0, self.devices * self.length - self.size)] + [(0, 0)] * (vector.ndim - 1))

    def _of_group(self, part, count: int, stride: int, place):
        """The parts of the devices of a group, in order: (count, *part.shape).

        Groups are of `count` devices that lie `stride` apart. place: of this device in its group.
        """
        parts = [part]
        for shift in range(1, count):
            source = [d + ((d // stride + shift) % count - d // stride % count) * stride for d in range(self.devices)]
            parts.append(jax.lax.ppermute(part, self.axis, [(source[d], d) for d in range(self.devices)]))
        return jnp.stack(parts)[(jnp.arange(count) - place) % count]


def _prime_factors(number: int) -> list[int]:
    """In ascending order; none for one."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
