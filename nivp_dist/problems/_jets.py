"""Jets for ``forward_laplacian``: arrays that depend on a point, with their Jacobian and Laplacian.

A Jacobian is stored either as a dense array or, where every entry depends on few coordinates, as a few derivatives for
each entry with an index of their directions. The index is known while a function is traced.
"""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

# Entries with more derivatives than this get a dense Jacobian. A product of two coordinates has two; sums of such
# products soon have many.
MOST_SLOTS = 4


class BaseJacobian:
    """A Jacobian along `count` directions, for arrays of shape S. Several Jets may share it.

    Attributes:
        rows: (count, *S) if dense. Else (r, *S), r <= MOST_SLOTS: the derivatives of entry i along the directions
            index[:, i]; its derivatives along all others are zero.
        index: None if dense, else (r, *S) numpy integers; -1 where a slot is not used.
    """

    def __init__(self, rows, index, count: int):
        self.rows, self.index, self.count = rows, index, count

    @cached_property
    def square(self):
        """|grad a|^2, of shape S."""
        return jnp.sum(self.rows * summed_by_direction(self.rows, self.index), axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Jet:
    """An array of shape S that depends on the point.

    Attributes:
        value: S. slope: S, or None for one. laplacian: S, or None for zero.
        base: its Jacobian is slope * base.
    """

    value: Any
    slope: Any
    base: BaseJacobian
    laplacian: Any

    @property
    def rows(self):
        return self.base.rows if self.slope is None else self.slope * self.base.rows

    @property
    def jacobian(self):
        """(count, *S)."""
        if self.base.index is None:
            return self.rows
        directions = np.arange(self.base.count).reshape(-1, *[1] * self.value.ndim)
        return sum(jnp.where(slot == directions, row, 0) for slot, row in zip(self.base.index, self.rows))

    @property
    def slope_array(self):
        return jnp.ones_like(self.value) if self.slope is None else self.slope

    @property
    def laplacian_array(self):
        return jnp.zeros_like(self.value) if self.laplacian is None else self.laplacian

    def broadcast(self, shape):
        """The same Jet broadcast to a shape, from axes of size one or from a scalar."""
        if self.value.shape == shape:
            return self
        ones = (1,) * (len(shape) - self.value.ndim)

        def spread(rows, xp):
            return xp.broadcast_to(rows.reshape(len(rows), *ones, *self.value.shape), (len(rows), *shape))

        index = None if self.base.index is None else spread(self.base.index, np)
        laplacian = None if self.laplacian is None else jnp.broadcast_to(self.laplacian, shape)
        base = BaseJacobian(spread(self.rows, jnp), index, self.base.count)
        return Jet(jnp.broadcast_to(self.value, shape), None, base, laplacian)


class Static:
    """An array of integers or booleans that is known while tracing, such as the indices of a gather.

    Attributes:
        value: the array as the function sees it, possibly traced. array: its numpy values.
    """

    def __init__(self, value, array):
        self.value, self.array = value, array


def seed(noise):
    """Rows and index of B (d, k); sparse if it is a numpy array with at most MOST_SLOTS entries for each coordinate."""
    if not isinstance(noise, np.ndarray):
        return noise.T, None
    used = np.count_nonzero(noise, axis=1).max()
    if not 0 < used <= min(MOST_SLOTS, noise.shape[1]):
        return noise.T, None
    index = np.argsort(noise == 0, axis=1, kind="stable")[:, :used]
    entries = np.take_along_axis(noise, index, axis=1)
    return entries.T, np.where(entries != 0, index, -1).T


def value_of(entry):
    """The array itself, of a Jet, a Static or an array."""
    return entry.value if isinstance(entry, (Jet, Static)) else entry


def bind(eqn, values):
    """The outputs of an equation of a jaxpr at other inputs, as a list."""
    outputs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def summed_by_direction(rows, index):
    """For each row of rows (r, *S), the sum of the rows that belong to the same direction: (r, *S).

    sum(rows * result) is then |grad a|^2, although two slots of an entry may hold the same direction.
    """
    if index is None or len(index) == 1:
        return rows
    return jnp.stack([sum(jnp.where(slot == other, row, 0) for other, row in zip(index, rows)) for slot in index])


def shared_slots(jets):
    """A common index (r, *S) of several Jets and the rows of each in it, or None if r would exceed MOST_SLOTS."""
    first = jets[0].base.index
    if any(jet.base.index is None for jet in jets):
        return None
    if all(np.array_equal(jet.base.index, first) for jet in jets):
        return first, [jet.rows for jet in jets]
    counts = [len(jet.base.index) for jet in jets]
    if sum(counts) > min(MOST_SLOTS, jets[0].base.count):
        return None
    rows = []
    for position, jet in enumerate(jets):
        padding = [(sum(counts[:position]), sum(counts[position + 1 :]))] + [(0, 0)] * jet.value.ndim
        rows.append(jnp.pad(jet.rows, padding))
    return np.concatenate([jet.base.index for jet in jets]), rows


def with_static_values(eqn, inputs, outputs):
    """Integer outputs as Static, if all inputs have known values; else unchanged."""
    arrays = [static_array(entry) for entry in inputs]
    if any(array is None for array in arrays):
        return outputs
    if eqn.primitive.name == "pvary":
        return [Static(output, array) for output, array in zip(outputs, arrays)]
    with jax.ensure_compile_time_eval():
        return [Static(output, np.asarray(array)) for output, array in zip(outputs, bind(eqn, arrays))]


def static_array(entry):
    """The numpy values of an input, or None for a Jet or a traced array."""
    if isinstance(entry, Static):
        return entry.array
    return None if isinstance(entry, (Jet, jax.core.Tracer)) else np.asarray(entry)


def move_entries(eqn, inputs):
    """Rows and index after an operation that only moves entries, or None if its integer inputs are not known."""
    slots = max(len(entry.base.index) for entry in inputs if isinstance(entry, Jet))
    rows, indices, axes = [], [], []
    for entry in inputs:
        jet = isinstance(entry, Jet)
        if jet:
            padding = [(0, slots - len(entry.base.index))] + [(0, 0)] * entry.value.ndim
            rows.append(jnp.pad(entry.rows, padding))
            indices.append(np.pad(entry.base.index, padding, constant_values=-1))
        elif jnp.issubdtype(value_of(entry).dtype, jnp.inexact):
            jet = True
            rows.append(jnp.zeros_like(entry, shape=(slots, *entry.shape)))
            indices.append(np.full((slots, *entry.shape), -1))
        elif (array := static_array(entry)) is not None:
            rows.append(entry.value if isinstance(entry, Static) else entry)
            indices.append(array)
        else:
            return None
        axes.append(0 if jet else None)
    move = jax.vmap(lambda *operands: bind(eqn, operands)[0], axes)
    if eqn.primitive.name == "convert_element_type":  # of the values, not of the index
        return move(*rows), indices[0]
    if eqn.primitive.name in MOVES:
        apart = [[array[slot] if axis == 0 else array for array, axis in zip(indices, axes)] for slot in range(slots)]
        index = np.stack([MOVES[eqn.primitive.name](eqn.params, *arrays) for arrays in apart])
    else:
        with jax.ensure_compile_time_eval():
            index = np.asarray(move(*indices))
    return move(*rows), np.where(index < 0, -1, index)


def _broadcast(params, a):
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], a.shape):
        shape[axis] = size
    return np.broadcast_to(a.reshape(shape), params["shape"])


def _reshape(params, a):
    order = params["dimensions"]
    return (a if order is None else a.transpose(order)).reshape(params["new_sizes"])


def _slice(params, a):
    parts = zip(params["start_indices"], params["limit_indices"], params["strides"] or [1] * a.ndim)
    return a[tuple(slice(*part) for part in parts)]


def _dynamic_slice(params, a, *starts):
    sizes = params["slice_sizes"]
    first = [int(np.clip(start, 0, whole - size)) for start, whole, size in zip(starts, a.shape, sizes)]
    return a[tuple(slice(start, start + size) for start, size in zip(first, sizes))]


# The most common operations on an index, by numpy: with JAX each of them would be a compiled program.
MOVES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda params, *arrays: np.concatenate(arrays, params["dimension"]),
    "dynamic_slice": _dynamic_slice,
    "reshape": _reshape,
    "rev": lambda params, a: np.flip(a, params["dimensions"]),
    "slice": _slice,
    "squeeze": lambda params, a: np.squeeze(a, params["dimensions"]),
    "stack": lambda params, *arrays: np.stack(arrays, params["axis"]),
    "transpose": lambda params, a: np.transpose(a, params["permutation"]),
}


def contract_jacobian(jet, axes, matrix):
    """The sparse Jacobian of a Jet times a matrix over some axes of the Jet: (count, *rest, *F), or None.

    Args:
        axes: the axes of the Jet that are summed over; rest are its others.
        matrix: (*sizes of these axes, *F).

    With its entries sorted by direction this is `count` small products instead of one with `count` times as many rows.
    The result is None where this does not save work: where one direction has most entries, or where the index differs
    along the other axes.
    """
    shape, count, slots = jet.value.shape, jet.base.count, len(jet.base.index)
    rest, free = [size for axis, size in enumerate(shape) if axis not in axes], matrix.shape[len(axes) :]
    terms = int(np.prod(matrix.shape[: len(axes)]))

    def flat(a, xp):
        a = xp.moveaxis(a, [axis + 1 for axis in axes], range(-len(axes), 0))
        return a.reshape(slots, int(np.prod(rest)), terms)

    index = flat(jet.base.index, np)
    if (index != index[:, :1]).any():
        return None
    index = index[:, 0].reshape(-1)
    sizes = np.bincount(index[index >= 0], minlength=count)
    if not 0 < sizes.max() < terms:
        return None
    # The entries of every direction, padded with zeros to the same number.
    order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    entry, used = np.zeros((count, sizes.max()), int), np.zeros((count, sizes.max(), 1), bool)
    entry[index[order], place], used[index[order], place] = order, True
    rows = jnp.moveaxis(flat(jet.rows, jnp), 0, 1).reshape(-1, len(index))[:, entry]
    blocks = jnp.where(used, matrix.reshape(terms, -1)[entry % terms], 0)
    return jnp.einsum("rkg,kgf->krf", rows, blocks).reshape(count, *rest, *free)


def multiply_jacobian(eqn, jet, position, other):
    """The Jacobian of a dot_general whose operand in that position is a Jet; None as in ``contract_jacobian``."""
    contracting, batch = eqn.params["dimension_numbers"]
    if batch != ((), ()):
        return None
    axes, other_axes = contracting[position], contracting[1 - position]
    other = jnp.moveaxis(other, other_axes, range(len(other_axes)))
    product = contract_jacobian(jet, axes, other)
    if product is None or position == 0:
        return product
    rest = jet.value.ndim - len(axes)
    return jnp.moveaxis(product, range(1, 1 + rest), range(-rest, 0))
