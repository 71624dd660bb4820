"""The algebra of one block of Jacobian rows, from the factors of the layers (see ``Network.factors``).

Points lie along the last axis: A_l (rows, B), D_l (k, columns, B) for a layer that feeds k outputs. For layers of
the usual widths that axis is the long one, so sums over columns and products with weights run along it at full
vector length, and both matrix products of a layer read it contiguously. With W_l^T in place of the slice of v,

    J v   = sum_l  sum_c (V_l^T A_l) * D_lk,         (J^T r)_l^T = (sum_k r_k D_lk) A_l^T,

two matrix products a layer, 4 B p flops for a pair. Nothing here knows of chunks or devices.
"""

import jax
import jax.numpy as jnp
import numpy as np


def lay_out(factors):
    """Factors as the network gives them, A (B, rows) and D (B, k, columns), as a block."""
    return tuple((a.T, jnp.moveaxis(d, 0, -1)) for a, d in factors)


def split(layers, v):
    """v (p,) as matrices V_l^T (columns, rows)."""
    return [v[layer.start : layer.stop].reshape(layer.rows, layer.columns).T for layer in layers]


def join(matrices):
    """The inverse of ``split``."""
    return jnp.concatenate([matrix.T.reshape(-1) for matrix in matrices])


def apply(layers, block, matrices, multiply=jnp.matmul):
    """J v: (m, B), v as its matrices. multiply: of two matrices."""
    rows = [0.0] * max(layer.outputs[1] for layer in layers)
    for layer, (a, d), matrix in zip(layers, block, matrices):
        forward = multiply(matrix, a)
        for position, k in enumerate(range(*layer.outputs)):
            rows[k] = rows[k] + jnp.sum(forward * d[position], axis=0)
    return jnp.stack(rows)


def transpose(layers, block, r, multiply=jnp.matmul):
    """J^T r as matrices, for r (m, B). multiply: of two matrices."""
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


def kernel(layers, block, pivots):
    """J J^T between other points and this block's: (b, m, m, B), pivot, its output, this block's output, point.

    K_(ik)(jl) = sum over layers of (A_i . A_j) (D_ik . D_jl): 2 b B sum(rows + outputs^2 columns) operations, not
    2 b B m^2 p. pivots: factors as the network gives them, A (b, rows) and D (b, k, columns) a layer.
    """
    outputs = max(layer.outputs[1] for layer in layers)
    entries = [[0.0] * outputs for _ in range(outputs)]
    for layer, (a, d), (a_pivots, d_pivots) in zip(layers, block, pivots):
        inputs = a_pivots @ a
        for i, k in enumerate(range(*layer.outputs)):
            for j, other in enumerate(range(*layer.outputs)):
                entries[k][other] = entries[k][other] + inputs * (d_pivots[:, i] @ d[j])
    nothing = jnp.zeros_like(entries[0][0])
    return jnp.stack([jnp.stack([nothing + entry for entry in row], axis=1) for row in entries], axis=1)


def squares(layers, block):
    """|row of J|^2: (m, B), the diagonal of J J^T."""
    rows = [0.0] * max(layer.outputs[1] for layer in layers)
    for layer, (a, d) in zip(layers, block):
        inputs = jnp.sum(a**2, axis=0)
        for i, k in enumerate(range(*layer.outputs)):
            rows[k] = rows[k] + inputs * jnp.sum(d[i] ** 2, axis=0)
    return jnp.stack(rows)


def traces(block, weights):
    """tr(J^T W J) by layers, in float64: sum_i w_i |A_i|^2 |D_i|^2 each, (L,)."""
    squares = [jnp.sum(a.astype(jnp.float64) ** 2, 0) * jnp.sum(d.astype(jnp.float64) ** 2, (0, 1)) for a, d in block]
    return jnp.stack(squares) @ weights


def _rows(a, d):
    """A (rows, B) and D (k, columns, B) as rows of J: (rows, columns, k, B)."""
    return a[:, None, None, :] * jnp.moveaxis(d, 0, 1)


# The matrix J^T W J, layer by layer ------------------------------------------------------------------------------
#
# Its block of layers l, l' is sum_i (A_i A'_i) (x) (sum_k D_ik D'_ik): with the products in brackets formed first, one
# matrix product over the points, whatever the number of outputs. On the diagonal both brackets are symmetric, and a
# quarter of the work is left; blocks below the diagonal mirror those above. Measured on one core in float64,
# against an explicit J: 0.4 to 0.46 of the time with one output (p = 2,900), 0.28 with two on a shared trunk.
#
# For a layer of many rows and few columns (a quadratic form of 50 coordinates has 1,326 and one) those products are
# more than the entries of the block, a point: there the block is the product of the explicit rows of both.

FORMED = 8  # operations of a matrix product in the time of an entry that is formed and written for it


def pairs(layers):
    """The pairs (l, l') of layers, l <= l', whose block is not zero: they feed a common output."""
    indices = range(len(layers))
    return [(i, j) for i in indices for j in indices[i:] if _common(layers[i], layers[j])]


def _common(one, other):
    return range(max(one.outputs[0], other.outputs[0]), min(one.outputs[1], other.outputs[1]))


def gram(layers, block, weights):
    """J^T W J by pairs of layers: for each the product over points of both brackets, to be given to ``assemble``."""
    parts = []
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
    """Numbers a point that ``gram`` forms before its largest matrix product."""
    return max(_formed(layers[i], layers[j], _by_products(layers[i], layers[j])) for i, j in pairs(layers))


def _formed(one, other, by_products) -> int:
    if by_products:
        both = one.rows * other.rows + one.columns * other.columns
        return (both + one.rows + one.columns) // 2 if one == other else both
    return len(_common(one, other)) * (one.rows * one.columns + other.rows * other.columns)


def _by_products(one, other) -> bool:
    """Whether their block is cheaper by products of factors than by explicit rows."""
    entries = one.rows * one.columns * other.rows * other.columns
    products = entries * (0.25 if one == other else 1.0) + FORMED * _formed(one, other, True)
    return products <= len(_common(one, other)) * entries + FORMED * _formed(one, other, False)


def assemble(layers, parts):
    """The matrix (p, p) from the parts of ``gram``."""
    found = dict(zip(pairs(layers), parts))
    rows = []
    for i, one in enumerate(layers):
        row = []
        for j, other in enumerate(layers):
            shape = (one.rows * one.columns, other.rows * other.columns)
            if (i, j) in found or (j, i) in found:
                row.append(_block(one, other, found[i, j], i == j) if i <= j else rows[j][i].T)
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
    """Where the pair (i, j) stands among those of the upper triangle: (n, n)."""
    position = np.zeros((n, n), np.int32)
    i, j = np.triu_indices(n)
    position[i, j] = position[j, i] = np.arange(len(i))
    return position


# Sums over blocks ------------------------------------------------------------------------------------------------


def stack(leaf, size: int, mode: str = "constant"):
    """(n, ...) as blocks (count, size, ...), the last one filled up with zeros, or with mode "edge" by repetition."""
    count = -(-len(leaf) // size)
    padded = jnp.pad(leaf, [(0, count * size - len(leaf))] + [(0, 0)] * (leaf.ndim - 1), mode=mode)
    return padded.reshape(count, size, *leaf.shape[1:])


def refine(tree, size: int):
    """Stacked blocks (count, ..., B) as more of at most `size` points, filled up with zeros."""

    def one(leaf):
        parts = -(-leaf.shape[-1] // size)
        padded = jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, -leaf.shape[-1] % parts)])
        smaller = padded.reshape(*leaf.shape[:-1], parts, -1)
        return jnp.moveaxis(smaller, -2, 1).reshape(-1, *leaf.shape[1:-1], smaller.shape[-1])

    return tree if jax.tree.leaves(tree)[0].shape[-1] <= size else jax.tree.map(one, tree)


def each(function, stacked):
    """function(block) for every entry of the leading axis of stacked arrays, stacked."""
    if len(jax.tree.leaves(stacked)[0]) > 1:
        return jax.lax.map(function, stacked)
    return jax.tree.map(lambda leaf: leaf[None], function(jax.tree.map(lambda leaf: leaf[0], stacked)))


def total(function, stacked):
    """The sum of function(block) over the leading axis of stacked arrays (a pytree)."""
    first = jax.tree.map(lambda leaf: leaf[0], stacked)
    leaf = jax.tree.leaves(stacked)[0]
    if len(leaf) == 1:
        return function(first)
    # Zeros made from the arrays, not from a shape: under shard_map they vary over the mesh as the terms do.
    nothing = 0 * leaf.reshape(-1)[0]
    zero = jax.tree.map(
        lambda term: jnp.zeros(term.shape, term.dtype) + nothing.astype(term.dtype), jax.eval_shape(function, first)
    )

    def add(sums, block):
        return jax.tree.map(jnp.add, sums, function(block)), None

    return jax.lax.scan(add, zero, stacked)[0]
