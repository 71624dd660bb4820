"""Sine series on [-1, 1] with zero Dirichlet data, for even functions that are products over the coordinates.

An even function is a sum of the modes sin(pi k (x + 1) / 2) with odd k. Up to their sign these are cos(w x) with
w = pi k / 2 = (j + 1/2) pi, j = 0, 1, ...
"""

import numpy as np


def frequencies(count):
    """(count,): the numbers w = (j + 1/2) pi, j = 0..count-1."""
    return np.pi * (np.arange(count) + 0.5)


def modes(x, count):
    """cos(w x) at x (n,), orthonormal in L2(-1, 1): (n, count)."""
    return np.cos(np.asarray(x)[:, None] * frequencies(count))


def pulse_mode_count(width, wavenumber=0.0):
    """The number of modes that represent exp(-x^2 / (2 s^2)) cos(2 pi kappa x) to 1e-16 of its peak (s well below 1).

    Its coefficients decay as exp(-s^2 (w - 2 pi kappa)^2 / 2) in the frequency w.
    """
    return int(np.ceil((8.6 / width + 2 * np.pi * abs(wavenumber)) / np.pi)) + 2


def pulse_coefficients(width, count, wavenumber=0.0):
    """(count,) coefficients of exp(-x^2 / (2 s^2)) cos(2 pi kappa x), by Gauss-Legendre quadrature.

    The nodes cover the part of [-1, 1] where the Gaussian exceeds 1e-18, with far more than two nodes for every
    wave of the highest product of mode and modulation.
    """
    reach = min(1.0, 9.1 * width)
    fastest = np.pi * count + 2 * np.pi * abs(wavenumber)
    nodes, weights = np.polynomial.legendre.leggauss(int(40 + reach * fastest + 4 * reach / width))
    y = reach * nodes
    data = np.exp(-(y**2) / (2 * width**2)) * np.cos(2 * np.pi * wavenumber * y)
    return (reach * weights * data) @ modes(y, count)


def evaluate(x, coefficients, chunk=20_000_000):
    """sum_j c_j prod_i cos(w_ji x_i) at x (n, d), for coefficients (K_1, ..., K_d): (n,).

    One matrix product removes the last axis, then sums over the others; at most ``chunk`` numbers are held.
    """
    n, d = x.shape
    if coefficients.ndim != d:
        raise ValueError(f"{coefficients.ndim} axes of coefficients for points of dimension {d}")
    counts = coefficients.shape
    matrix = coefficients.reshape(-1, counts[-1]).T
    rows = max(1, chunk // max(matrix.shape))
    values = np.empty(n)
    for begin in range(0, n, rows):
        part = x[begin : begin + rows]
        partial = modes(part[:, -1], counts[-1]) @ matrix
        for axis in reversed(range(d - 1)):
            partial = partial.reshape(len(part), -1, counts[axis])
            partial = np.einsum("nak,nk->na", partial, modes(part[:, axis], counts[axis]))
        values[begin : begin + rows] = partial[:, 0]
    return values
