"""Arrays that depend on the point: value, Jacobian and Laplacian, and Jacobians of which few entries are not zero.

What ``forward_laplacian`` carries through a function; see there.
"""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Entries that depend on more coordinates than this get dense Jacobians. Pairs are those of a quadratic form.
SLOTS = 4


class Base:
    """The Jacobian of an array of shape S along `count` directions, which several arrays may share.

    Attributes:
        rows: (count, *S) if dense. Else (r, *S), r <= SLOTS: the derivatives of entry i along the directions
            index[:, i]; along all others it has none.
        index: None if dense, else (r, *S) numpy integers; -1 where a slot is not used.
    """

    def __init__(self, rows, index, count: int):
        self.rows, self.index, self.count = rows, index, count

    @cached_property
    def square(self):
        """|grad a|^2: of shape S."""
        return jnp.sum(self.rows * partners(self.rows, self.index), axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Jet:
    """An array that depends on the point: its value, Jacobian slope * base and Laplacian. Slope None: one.
    Laplacian None: zero."""

    value: Any
    slope: Any
    base: Base
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
    def first(self):
        return jnp.ones_like(self.value) if self.slope is None else self.slope

    @property
    def second(self):
        return jnp.zeros_like(self.value) if self.laplacian is None else self.laplacian

    def broadcast(self, shape):
        """To that shape, by size-one axes, or from a scalar."""
        if self.value.shape == shape:
            return self
        ones = (1,) * (len(shape) - self.value.ndim)

        def spread(rows, xp):
            return xp.broadcast_to(rows.reshape(len(rows), *ones, *self.value.shape), (len(rows), *shape))

        index = None if self.base.index is None else spread(self.base.index, np)
        laplacian = None if self.laplacian is None else jnp.broadcast_to(self.laplacian, shape)
        base = Base(spread(self.rows, jnp), index, self.base.count)
        return Jet(jnp.broadcast_to(self.value, shape), None, base, laplacian)


class Static:
    """Integers or booleans known while tracing: they say which entries an operation moves where."""

    def __init__(self, value, array):
        self.value, self.array = value, array  # the value may be traced, the array is numpy


def seed(noise):
    """Rows and index of B (d, k), dense unless it is a numpy array with few entries a coordinate."""
    used = np.count_nonzero(noise, axis=1).max() if isinstance(noise, np.ndarray) else noise.shape[1]
    if not 0 < used <= min(SLOTS, noise.shape[1]):
        return noise.T, None
    index = np.argsort(noise == 0, axis=1, kind="stable")[:, :used]
    entries = np.take_along_axis(noise, index, axis=1)
    return entries.T, np.where(entries != 0, index, -1).T


def value_of(entry):
    return entry.value if isinstance(entry, (Jet, Static)) else entry


def bind(eqn, values):
    outputs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def partners(rows, index):
    """What each row (r, *S) meets in the square of the gradient: the sum of the rows along the same direction."""
    if index is None or len(index) == 1:
        return rows
    return jnp.stack([sum(jnp.where(slot == other, row, 0) for other, row in zip(index, rows)) for slot in index])


def shared_slots(jets):
    """An index (r, *S) for all the Jets and the rows of each in it, or None where it would be too long."""
    first = jets[0].base.index
    if any(jet.base.index is None for jet in jets):
        return None
    if all(np.array_equal(jet.base.index, first) for jet in jets):
        return first, [jet.rows for jet in jets]
    counts = [len(jet.base.index) for jet in jets]
    if sum(counts) > min(SLOTS, jets[0].base.count):
        return None
    rows = []
    for position, jet in enumerate(jets):
        padding = [(sum(counts[:position]), sum(counts[position + 1 :]))] + [(0, 0)] * jet.value.ndim
        rows.append(jnp.pad(jet.rows, padding))
    return np.concatenate([jet.base.index for jet in jets]), rows


def with_static(eqn, inputs, outputs):
    """Integer outputs with their numpy values, where these follow from what is known."""
    arrays = [array_of(entry) for entry in inputs]
    if any(array is None for array in arrays):
        return outputs
    if eqn.primitive.name == "pvary":
        return [Static(output, array) for output, array in zip(outputs, arrays)]
    with jax.ensure_compile_time_eval():
        return [Static(output, np.asarray(array)) for output, array in zip(outputs, bind(eqn, arrays))]


def array_of(entry):
    """The numpy value of an input that is no Jet, or None."""
    if isinstance(entry, Static):
        return entry.array
    return None if isinstance(entry, (Jet, jax.core.Tracer)) else np.asarray(entry)


def moved(eqn, inputs):
    """Rows and index after an operation that only moves entries, or None if it cannot be told which."""
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
        elif (array := array_of(entry)) is not None:
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


# What the commonest operations do to an index, by numpy: JAX would compile a program for each of them.
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


def contracted(jet, axes, matrix):
    """The Jacobian contracted over some axes with the leading ones of matrix (*contracted, *F): (count, *rest, *F).

    With its entries sorted by direction this is `count` small products instead of one of `count` times as many rows.
    None where that would not pay: where one direction has most entries, or the index differs along the rest.
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
    # The entries of every direction side by side, filled up with zeros to the same number.
    order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    entry, used = np.zeros((count, sizes.max()), int), np.zeros((count, sizes.max(), 1), bool)
    entry[index[order], place], used[index[order], place] = order, True
    rows = jnp.moveaxis(flat(jet.rows, jnp), 0, 1).reshape(-1, len(index))[:, entry]
    blocks = jnp.where(used, matrix.reshape(terms, -1)[entry % terms], 0)
    return jnp.einsum("rkg,kgf->krf", rows, blocks).reshape(count, *rest, *free)


def multiplied(eqn, jet, position, other):
    """The Jacobian of a product of matrices one of which, in that position, is a Jet; or None, as above."""
    contracting, batch = eqn.params["dimension_numbers"]
    if batch != ((), ()):
        return None
    axes, other_axes = contracting[position], contracting[1 - position]
    other = jnp.moveaxis(other, other_axes, range(len(other_axes)))
    product = contracted(jet, axes, other)
    if product is None or position == 0:
        return product
    rest = jet.value.ndim - len(axes)
    return jnp.moveaxis(product, range(1, 1 + rest), range(-rest, 0))
