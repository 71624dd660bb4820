"""Particles in double wells, seen in rotated coordinates: a Fokker-Planck equation in any dimension."""

from functools import lru_cache
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from pydantic import Field
from scipy.linalg import expm

from nivp_dist.problems import Dimension, Positive, Problem, WholeSpace, derivatives, divergence
from nivp_dist.problems._spectral import evaluate


class DoubleWell(Problem):
    """Fokker-Planck equation of particles in double wells, in rotated coordinates.

    Equation:    u_t = D lap u - div(Q h(Q^T x) u),  h(y)_i = 2 (y_i - y_i^3)
    Domain:      R^d; u is a density
    Initial:     N(Q (m, ..., m), s^2 I)
    Parameters:  d = dimension, D = diffusion, m = start_mean, s = start_spread, Q from rotation_seed
    Reference:   product of d equal solutions in one dimension, to 1e-11 of their peak (``well_density``)

    In y = Q^T x the coordinates are independent, each in a double well with minima at -1 and 1. Q is a fixed random
    rotation, so that the equation does not separate in x. The start leans to one side and splits; mass then crosses
    the barriers at a rate of about 0.11 (D = 1/4), so that all 2^d modes carry mass. For t -> infinity u tends to the
    Gibbs density, proportional to prod_i exp((y_i^2 - y_i^4 / 2) / D).
    """

    summary: ClassVar[str] = "Fokker-Planck equation of d double wells in rotated coordinates, a density on R^d"
    reference_kind: ClassVar[str] = "product of 1-d spectral solutions, to 1e-11; exact moments of it"
    density: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    dimension: Dimension = 5
    diffusion: Positive = 0.25
    start_mean: float = 0.3
    start_spread: Positive = 0.6
    rotation_seed: Annotated[int, Field(ge=0)] = 0

    @property
    def domain(self):
        centre = self.rotation() @ np.full(self.dimension, self.start_mean)
        return WholeSpace(self.dimension, centre, self.start_spread)

    def rotation(self):
        """Q, numpy (d, d): orthogonal, uniformly distributed over the seeds (Mezzadri 2007)."""
        d = self.dimension
        q, r = np.linalg.qr(np.random.default_rng(self.rotation_seed).standard_normal((d, d)))
        return q * np.sign(np.diag(r))

    def initial(self, x):
        y = jnp.asarray(self.rotation().T, x.dtype) @ x - self.start_mean
        constant = (2 * np.pi * self.start_spread**2) ** (-self.dimension / 2)
        return constant * jnp.exp(-(y @ y) / (2 * self.start_spread**2))

    def rhs(self, u, x, t):
        drift = lambda x: self.drift(x, t)  # noqa: E731
        value, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - drift(x) @ slope - divergence(drift, x) * value

    def drift(self, x, t):
        rotation = jnp.asarray(self.rotation(), x.dtype)
        y = rotation.T @ x
        return rotation @ (2 * (y - y**3))

    def noise(self, t):
        return np.sqrt(2 * self.diffusion) * np.eye(self.dimension)

    def reference(self, x, t):
        y = (x @ self.rotation()).ravel()
        return np.prod(self._well(t)(y).reshape(x.shape), axis=1)

    def statistics(self, t):
        rotation, well = self.rotation(), self._well(t)
        mean = rotation @ np.full(self.dimension, well.mean)
        return {"mass": np.array(1.0), "mean": mean, "covariance": well.variance * np.eye(self.dimension)}

    def _well(self, t):
        return well_density(float(t), self.diffusion, self.start_mean, self.start_spread)


TAIL = 8.7  # standard deviations, and the square root of twice the exponent, at which a density is 4e-17 of its peak
FINEST = 0.12  # spacing of the grid, in the smallest standard deviation: the highest mode is then below 1e-30
STEP = 0.02  # of time; the result is exact for any step, and short ones keep the rounding error small


class WellDensity:
    """A density in one dimension as a Fourier series on [-L, L); it is zero outside.

    Args:
        reach: L. values: (n,), the density at the points -L + 2 L i / n.

    Attributes: mean, variance.
    """

    def __init__(self, reach: float, values: np.ndarray):
        self.reach, n = reach, len(values)
        y = reach * (2 * np.arange(n) / n - 1)
        mass = values / values.sum()
        self.mean = float(mass @ y)
        self.variance = float(mass @ (y - self.mean) ** 2)
        self._modes, self._wavenumbers = np.fft.rfft(values) / n, np.pi / reach * np.arange(n // 2 + 1)

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """The density at y (n,): (n,); zero outside [-L, L], and where rounding errors make it negative."""
        density = np.zeros(len(y))
        inside = np.abs(y) < self.reach
        density[inside] = evaluate(y[inside, None] + self.reach, self._modes, [self._wavenumbers])
        return np.maximum(density, 0.0)


@lru_cache(maxsize=32)
def well_density(t: float, diffusion: float, mean: float, spread: float) -> WellDensity:
    """p at time t: p_t = D p'' - (2 (y - y^3) p)' on R, from N(mean, spread^2).

    Fourier collocation in flux form on an interval at whose ends p stays below rounding, and the exponential of its
    matrix: exact in time, spectral in space. Raises RuntimeError if the grid does not carry the density.
    """
    reach = max(abs(mean) + TAIL * spread, np.sqrt(1 + np.sqrt(1 + TAIL**2 * diffusion)))
    y, values, first, second = collocation(reach, min(spread, np.sqrt(diffusion) / 2), mean, spread)
    # Every squaring inside expm doubles its rounding error; several short steps avoid them.
    steps = max(1, int(np.ceil(t / STEP)))
    propagator = expm(t / steps * (diffusion * second - first * (2 * (y - y**3))))
    for _ in range(steps):
        values = propagator @ values
    return normalised(reach, values, t)


def collocation(reach: float, scale: float, mean: float, spread: float):
    """Fourier collocation on [-reach, reach) with n points, fine enough for densities of standard deviation scale.

    Returns: the points (n,), N(mean, spread^2) on them (n,), and the matrices (n, n) of the first and the second
    derivative.
    """
    n = 2 * int(np.ceil(reach / (FINEST * scale)))
    y = reach * (2 * np.arange(n) / n - 1)
    start = np.exp(-((y - mean) ** 2) / (2 * spread**2)) / np.sqrt(2 * np.pi * spread**2)
    k = np.pi / reach * np.fft.fftfreq(n, 1 / n)
    # The first derivative of the highest mode vanishes on the grid; the second does not, and has to damp it.
    factors = np.where(np.arange(n) == n // 2, 0.0, 1j * k), -(k**2)
    transform = np.fft.fft(np.eye(n), axis=0)
    return y, start, *(np.fft.ifft(factor[:, None] * transform, axis=0).real for factor in factors)


def normalised(reach: float, values: np.ndarray, t: float) -> WellDensity:
    """The density of these values on the grid. Raises RuntimeError where its mass is not one."""
    mass = values.sum() * 2 * reach / len(values)
    if not abs(mass - 1) < 1e-8:
        raise RuntimeError(f"the reference of the double well has mass {mass:.9g} at t = {t:g}: its grid is too coarse")
    return WellDensity(reach, values / mass)
