"""Whether stability limits the step size: the dominant eigenvalue of d velocity / d theta, estimated from the stages of
a step, and the region in which a pair is stable."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nivp_dist.integration.tableaus import Tableau

# The growth of a mode in a step from which on it counts as unstable. On the imaginary axis the pairs "heun" and
# "cash_karp" have |R| > 1 from zero on, but "cash_karp" by less than 1.05 as far as 2.3, and runs of a dispersive
# equation (KdV) come to 2.5.
UNSTABLE_GROWTH = 1.05
# Part of the largest difference of stages below which other directions are the curvature of theta(t), and no mode of
# its linearised equation. Measured: 1e-2 gives the dominant eigenvalue of stiff diffusion to 5 %, 1e-3 spurious ones.
LEAST_DIFFERENCE = 1e-2
RESOLUTION = 1e-3  # of a stability limit
ITERATIONS = 4  # of the power method
DIFFERENCE = 1e-4  # of theta in them, over its norm


class Stiffness(NamedTuple):
    """The dominant eigenvalue lambda of d velocity / d theta, as the stages of a step of length h have it.

    Attributes:
        h_rho: h |lambda|; 0 where theta rests, or nothing is known.
        angle: of lambda in degrees, 180 on the negative real axis, 90 on the imaginary one, less than 90 where the mode
            grows; NaN where h_rho is 0.
        limit: the largest h |lambda| at which the pair is stable at that angle (``stability_limit``).
    """

    h_rho: float
    angle: float
    limit: float


UNKNOWN = Stiffness(0.0, np.nan, np.inf)


def stiffness(tableau: Tableau, products) -> Stiffness:
    """The stiffness that a step has met.

    The equation theta' = v(theta) linearised at the start of the step has the stages k_i = v(g_i) with
    k_i - k_1 = A (g_i - g_1), and each g_i - g_1 is a combination of velocities. They span the Krylov space of A and
    k_1, so that the largest eigenvalue of A projected onto them is that of as many iterations of Arnoldi's method. It
    generalises the estimate |k_i - k_j| / |g_i - g_j| of Hairer and Wanner II, IV.2, to pairs without two stages at
    the same time, and costs scalar products only.

    It is accurate where stability limits the step size, because the differences then lie along the stiff modes. In
    shorter steps it is an order of magnitude, and the angle is not to be relied on (measured: guide, chapter method).

    Args:
        products: (s, s), the scalar products of the velocities at the s stages.
    """
    products, a = np.asarray(products), _square(tableau)
    if not np.isfinite(products).all():  # the velocities of a solution that has grown beyond measure
        return UNKNOWN
    eigenvalues, vectors = np.linalg.eigh(products)
    velocities = np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * vectors.T  # columns with the same scalar products
    positions, differences = velocities @ a[1:].T, velocities[:, 1:] - velocities[:, :1]
    basis, sizes, turned = np.linalg.svd(positions, full_matrices=False)
    kept = sizes > LEAST_DIFFERENCE * sizes[0]
    if not kept.any():  # no stage has moved
        return UNKNOWN
    projected = basis[:, kept].T @ differences @ turned[kept].T / sizes[kept]
    dominant = max(np.linalg.eigvals(projected), key=abs)
    angle = float(np.degrees(np.arctan2(abs(dominant.imag), dominant.real)))
    return Stiffness(float(abs(dominant)), angle, stability_limit(tableau, angle, UNSTABLE_GROWTH))


def spectral_radius(velocity: Callable, theta, direction) -> float:
    """|lambda| of the dominant eigenvalue of d velocity / d theta, by the power method on differences of velocities.

    ITERATIONS of them from a random direction come to 0.87 of it in a spectrum k^2, k = 1, 2, ..., that of diffusion.

    Args:
        velocity: theta (p,) -> theta'; it is called ITERATIONS + 1 times. direction: (p,), to begin with.
    """
    length, start = DIFFERENCE * jnp.linalg.norm(theta), velocity(theta)
    for _ in range(ITERATIONS):
        change = velocity(theta + direction * (length / jnp.linalg.norm(direction))) - start
        direction = change
    return float(jnp.linalg.norm(change) / length)


def stability_limit(tableau: Tableau, angle: float, growth: float = 1.0) -> float:
    """The largest r such that |R(z)| <= growth max(1, |exp(z)|) between 0 and z = r exp(i angle), to RESOLUTION.

    R is the pair's stability function: a step multiplies the solution of y' = lambda y by R(h lambda), where exp(h
    lambda) is exact. A mode that grows is therefore stable as long as it grows no faster than it should; for real
    lambda > 0 there is no limit, and infinity is returned.

    angle: in degrees; 180 is the negative real axis, 90 the imaginary one.
    """
    z = np.arange(1, int(2 * len(tableau.b) / RESOLUTION)) * RESOLUTION * np.exp(1j * np.radians(angle))
    bound = growth * np.maximum(1.0, np.exp(z.real)) * (1 + 1e-12)  # R(z) is exp(z) near zero, up to rounding
    beyond = np.abs(stability_function(tableau)(z)) > bound
    return float(RESOLUTION * beyond.argmax()) if beyond.any() else np.inf


@lru_cache
def stability_function(tableau: Tableau) -> np.polynomial.Polynomial:
    """R(z) of the solution that the pair propagates: the coefficient of z^k is b^T A^(k-1) 1 (Hairer and Wanner II,
    IV.2)."""
    a, powers = _square(tableau), np.ones(len(tableau.b))
    coefficients = [1.0]
    for _ in tableau.b:
        coefficients.append(float(np.dot(tableau.b, powers)))
        powers = a @ powers
    return np.polynomial.Polynomial(coefficients)


def _square(tableau: Tableau) -> np.ndarray:
    """The coefficients a as a matrix (s, s)."""
    s = len(tableau.b)
    return np.array([[*row, *[0.0] * (s - len(row))] for row in tableau.a])
