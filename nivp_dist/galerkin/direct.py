"""Direct solves of (M + mu I) v = J^T W f: the primal p x p system, and the dual n m x n m system.

Both are exact up to rounding and agree with each other. With S = W^(1/2) J:
primal (S^T S + mu I) v = S^T s, dual v = S^T (S S^T + mu I)^-1 s, s = W^(1/2) f.
"""

import jax
import jax.numpy as jnp


def solve_positive(matrix, mu, b):
    """(matrix + mu I)^-1 b by Cholesky, after scaling to a unit diagonal (Jacobi), which tames the
    spread of scales between layers and delays the loss of positive definiteness to smaller mu."""
    shifted = matrix + mu * jnp.eye(len(matrix), dtype=matrix.dtype)
    scale = 1.0 / jnp.sqrt(jnp.diagonal(shifted))
    factor = jnp.linalg.cholesky(scale[:, None] * shifted * scale[None, :])
    y = jax.scipy.linalg.solve_triangular(factor, scale * b, lower=True)
    return scale * jax.scipy.linalg.solve_triangular(factor.T, y, lower=False)


def dual_rows(layers, outputs, local, everywhere):
    """Rows of K = J J^T: (n_local m, n m), output index fastest, from the structure of the layers:
    K_(ik)(jl) = sum over layers of (A_i . A_j) (D_ik . D_jl). n^2 (sum of widths) flops, not n^2 p.

    Args:
        local, everywhere: factors of this device's points and of all points.
    """
    n, total = len(local[0][0]), len(everywhere[0][0])
    rows = jnp.zeros((n, outputs, total, outputs), local[0][0].dtype) + 0 * local[0][0][0, 0]
    for layer, (a, d), (a_all, d_all) in zip(layers, local, everywhere):
        block = (a @ a_all.T)[:, None, :, None] * jnp.einsum("ikb,jlb->ikjl", d, d_all)
        low, high = layer.outputs
        rows = rows.at[:, low:high, :, low:high].add(block)
    return rows.reshape(n * outputs, total * outputs)
