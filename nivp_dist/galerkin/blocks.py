"""The algebra of one block of B Jacobian rows, from the factors of the layers (see ``Network.factors``).

Points lie along the last axis: A_l (rows, B), D_l (k, columns, B) for a layer that feeds k outputs. For layers of
the usual widths that axis is the long one, so sums over columns and products with weights run along it at full
vector length, and both matrix products of a layer read it contiguously. With the slice of v that belongs to layer l
as a matrix V_l (rows, columns),

    (J v)_k = sum_l sum_columns (V_l^T A_l) * D_lk,         (J^T r)_l^T = (sum_k r_k D_lk) A_l^T,

two matrix products a layer, 4 B p operations for both J v and J^T r. Chunks and devices are the callers' concern.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np


def lay_out(factors):
    """A block from factors as the network returns them, A (B, rows) and D (B, k, columns)."""
    return tuple((a.T, jnp.moveaxis(d, 0, -1)) for a, d in factors)


def split(layers, v):
    """v (p,) as a list of matrices V_l^T (columns, rows)."""
    return [v[layer.start : layer.stop].reshape(layer.rows, layer.columns).T for layer in layers]


def join(matrices):
    """The inverse of ``split``."""
    return jnp.concatenate([matrix.T.reshape(-1) for matrix in matrices])


def apply(layers, block, matrices, multiply=jnp.matmul):
    """J v: (m, B), for v as the matrices of ``split``. multiply: (a, b) -> a @ b, perhaps coarsely."""
    rows = [0.0] * max(layer.outputs[1] for layer in layers)
    for layer, (a, d), matrix in zip(layers, block, matrices):
        forward = multiply(matrix, a)
        for position, k in enumerate(range(*layer.outputs)):
            rows[k] = rows[k] + jnp.sum(forward * d[position], axis=0)
    return jnp.stack(rows)


def transpose(layers, block, r, multiply=jnp.matmul):
    """J^T r as the matrices of ``split``, for r (m, B). multiply: as in ``apply``."""
    matrices = []
    for layer, (a, d) in zip(layers, block):
        weighted = sum(r[k] * d[position] for position, k in enumerate(range(*layer.outputs)))
        matrices.append(multiply(weighted, a.T))
    return matrices


def explicit(layers, block):
    """J^T as a matrix: (p, m B), points fastest."""
    outputs = max(layer.outputs[1] for layer in layers)
    parts = []
    for layer, (a, d) in zip(layers, block):
        part = _rows(a, d)
        padding = (layer.outputs[0], outputs - layer.outputs[1])
        part = jnp.pad(part, ((0, 0), (0, 0), padding, (0, 0))) if any(padding) else part
        parts.append(part.reshape(layer.rows * layer.columns, -1))
    return jnp.concatenate(parts)


def explicit_normal(layers, block, weights, columns):
    """J^T W J V for V (p, l), by explicit rows of J: (p, l)."""
    transposed = explicit(layers, block)
    weights = jnp.tile(weights, len(transposed.T) // len(weights))
    return transposed @ (weights[:, None] * (transposed.T @ columns))


def normal(layers, block, weights, columns):
    """The same as l products with one vector, two matrix products a layer for all of them."""
    rows = [0.0] * max(layer.outputs[1] for layer in layers)
    for layer, (a, d) in zip(layers, block):
        matrices = columns[layer.start : layer.stop].reshape(layer.rows, layer.columns, -1)
        forward = jnp.einsum("rcl,rb->clb", matrices, a)
        for position, k in enumerate(range(*layer.outputs)):
            rows[k] = rows[k] + jnp.sum(forward * d[position][:, None], axis=0)
    parts = []
    for layer, (a, d) in zip(layers, block):
        fed = enumerate(range(*layer.outputs))
        weighted = sum((weights * rows[k]) * d[position][:, None] for position, k in fed)
        parts.append(jnp.einsum("rb,clb->rcl", a, weighted).reshape(layer.rows * layer.columns, -1))
    return jnp.concatenate(parts)


def normal_entries(layers, count: int) -> int:
    """The numbers that ``normal`` forms for each point, for so many columns."""
    return 2 * count * max(layer.columns for layer in layers)


def kernel(layers, block, pivots):
    """J J^T between b other points, called pivots, and those of this block.

    K_(ik)(jl) = sum over layers of (A_i . A_j) (D_ik . D_jl): 2 b B sum(rows + outputs^2 columns) operations, instead
    of 2 b B m^2 p with explicit rows of J.

    Args:
        pivots: factors as the network returns them, A (b, rows) and D (b, k, columns) for each layer.
    Returns: (b, m, m, B), by pivot, output of the pivot, output of this block's point, and point.
    """
    outputs = max(layer.outputs[1] for layer in layers)
    entries = [[0.0] * outputs for _ in range(outputs)]
    for layer, (a, d), (a_pivots, d_pivots) in zip(layers, block, pivots):
        inputs = a_pivots @ a
        for i, k in enumerate(range(*layer.outputs)):
            for j, other in enumerate(range(*layer.outputs)):
                entries[k][other] = entries[k][other] + inputs * (d_pivots[:, i] @ d[j])
    zero = jnp.zeros_like(entries[0][0])  # for pairs of outputs that no layer feeds both of
    return jnp.stack([jnp.stack([zero + entry for entry in row], axis=1) for row in entries], axis=1)


def squared_row_norms(layers, block):
    """|row of J|^2: (m, B), the diagonal of J J^T."""
    rows = [0.0] * max(layer.outputs[1] for layer in layers)
    for layer, (a, d) in zip(layers, block):
        inputs = jnp.sum(a**2, axis=0)
        for i, k in enumerate(range(*layer.outputs)):
            rows[k] = rows[k] + inputs * jnp.sum(d[i] ** 2, axis=0)
    return jnp.stack(rows)


def traces(block, weights):
    """Each layer's part of tr(J^T W J), sum_i w_i |A_i|^2 |D_i|^2, in float64: (L,)."""
    squares = [jnp.sum(a.astype(jnp.float64) ** 2, 0) * jnp.sum(d.astype(jnp.float64) ** 2, (0, 1)) for a, d in block]
    return jnp.stack(squares) @ weights


def _rows(a, d):
    """A (rows, B) and D (k, columns, B) as rows of J: (rows, columns, k, B)."""
    return a[:, None, None, :] * jnp.moveaxis(d, 0, 1)


# The matrix J^T W J, layer by layer ------------------------------------------------------------------------------
#
# The block of layers l and l' is sum_i (A_i A'_i) (x) (sum_k D_ik D'_ik), (x) the Kronecker product. With the brackets
# formed first for every point it is one matrix product over the points, whatever the number of outputs. On the diagonal
# both brackets are symmetric, so that a quarter of the work is left; blocks below the diagonal are transposes of those
# above. Measured on one core in float64, against an explicit J: 0.4 to 0.46 of the time with one output (p = 2,900),
# 0.28 with two on a shared trunk.
#
# A layer of many rows and few columns (a quadratic form of 50 coordinates has 1,326 and one) has more numbers in its
# brackets than in its rows of J. There the block is the product of the explicit rows of both layers.

# Operations of a matrix product in the time of forming and writing one number of its factors: an estimate, on which
# only the choice of the cheaper form depends, and that is clear for the layers in use.
FORMED = 8


def pairs(layers):
    """The pairs (l, l') of layers, l <= l', that feed a common output: the blocks of all others are zero."""
    indices = range(len(layers))
    return [(i, j) for i in indices for j in indices[i:] if _common(layers[i], layers[j])]


def _common(one, other):
    return range(max(one.outputs[0], other.outputs[0]), min(one.outputs[1], other.outputs[1]))


def gram(layers, block, weights):
    """The parts of J^T W J that ``assemble`` takes: for each of ``pairs`` the matrix product over the points."""
    parts = []
    right: Any  # a type checker takes the start of sum(), 0, for a possible result
    for i, j in pairs(layers):
        (a, d), (b, e) = block[i], block[j]
        a = a * weights
        common = _common(layers[i], layers[j])
        d = d[common.start - layers[i].outputs[0] :][: len(common)]
        e = e[common.start - layers[j].outputs[0] :][: len(common)]
        if not _by_products(layers[i], layers[j]):
            left, right = (_rows(x, y).reshape(x.shape[0] * y.shape[1], -1) for x, y in ((a, d), (b, e)))
        elif i == j:
            (r, s), (c, f) = np.triu_indices(layers[i].rows), np.triu_indices(layers[i].columns)
            left, right = a[r] * b[s], sum(one[c] * one[f] for one in d)
        else:
            left, right = _products(a, b), sum(_products(one, other) for one, other in zip(d, e))
        parts.append(left @ right.T)
    return parts


def gram_entries(layers) -> int:
    """The numbers that ``gram`` forms for each point before its largest matrix product."""
    return max(_formed(layers[i], layers[j], _by_products(layers[i], layers[j])) for i, j in pairs(layers))


def _formed(one, other, by_products) -> int:
    if by_products:
        both = one.rows * other.rows + one.columns * other.columns
        return (both + one.rows + one.columns) // 2 if one == other else both
    return len(_common(one, other)) * (one.rows * one.columns + other.rows * other.columns)


def _by_products(one, other) -> bool:
    """Whether products of factors (the brackets) make the block of both layers in less time than explicit rows."""
    entries = one.rows * one.columns * other.rows * other.columns
    products = entries * (0.25 if one == other else 1.0) + FORMED * _formed(one, other, True)
    return products <= len(_common(one, other)) * entries + FORMED * _formed(one, other, False)


def assemble(layers, parts):
    """The matrix (p, p) from the parts of ``gram``."""
    by_pair = dict(zip(pairs(layers), parts))
    rows = []
    for i, one in enumerate(layers):
        row = []
        for j, other in enumerate(layers):
            shape = (one.rows * one.columns, other.rows * other.columns)
            if (i, j) in by_pair or (j, i) in by_pair:
                row.append(_block(one, other, by_pair[i, j], i == j) if i <= j else rows[j][i].T)
            else:
                row.append(jnp.zeros(shape, parts[0].dtype))
        rows.append(row)
    return jnp.concatenate([jnp.concatenate(row, axis=1) for row in rows])


def _block(one, other, part, diagonal):
    if not _by_products(one, other):
        return part
    if diagonal:
        part = part[_position(one.rows)[:, None, :, None], _position(one.columns)[None, :, None, :]]
    else:
        part = part.reshape(one.rows, other.rows, one.columns, other.columns).transpose(0, 2, 1, 3)
    return part.reshape(one.rows * one.columns, other.rows * other.columns)


def _products(a, b):
    return (a[:, None] * b[None]).reshape(-1, a.shape[-1])


def _position(n):
    """The position of the pair (i, j) in the list of pairs of the upper triangle: (n, n)."""
    position = np.zeros((n, n), np.int32)
    i, j = np.triu_indices(n)
    position[i, j] = position[j, i] = np.arange(len(i))
    return position
