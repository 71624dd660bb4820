"""Particles in double wells that are drawn to their common mean: a McKean-Vlasov equation in any dimension."""

from functools import lru_cache
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm

from nivp_dist.problems import NonNegative, derivatives, divergence
from nivp_dist.problems.double_well import TAIL, DoubleWell, WellDensity, collocation, normalised


class MeanFieldWells(DoubleWell):
    """McKean-Vlasov equation of particles in double wells that attract each other, in rotated coordinates.

    Equation:    u_t = D lap u - div(b u),  b = Q h(Q^T x) + kappa (E x - x),  h(y)_i = 2 (y_i - y_i^3),
                 E x = int x u dx / int u dx
    Domain:      R^d; u is a density
    Initial:     N(Q (m, ..., m), s^2 I)
    Parameters:  those of ``double_well``; kappa = coupling
    Source:      Desai and Zwanzig, J. Stat. Phys. 19 (1978), the limit of infinitely many particles
    Reference:   product of d equal solutions in one dimension, to 1e-8 of their peak (``mean_field_density``)

    Each coordinate of y = Q^T x is coupled to its own mean. For t -> infinity u tends to a Gibbs density whose mean is
    that of its own potential; below a critical diffusion there are three of them.
    """

    summary: ClassVar[str] = "McKean-Vlasov equation of d double wells drawn to their mean, a density on R^d"
    reference_kind: ClassVar[str] = "product of 1-d spectral solutions, to 1e-8; exact moments of it"
    drift: ClassVar[Any] = None  # it depends on u, so that particles cannot be moved without it
    noise: ClassVar[Any] = None

    coupling: NonNegative = 0.5

    def integrals(self, u, x, t):
        return u(x) * jnp.append(x, 1.0)

    def rhs(self, u, x, t, integrals):
        mean = integrals[:-1] / integrals[-1]
        force = lambda x: DoubleWell.drift(self, x, t) + self.coupling * (mean - x)  # noqa: E731
        value, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - force(x) @ slope - divergence(force, x) * value

    def _well(self, t):
        return mean_field_density(float(t), self.diffusion, self.start_mean, self.start_spread, self.coupling)


STEP = 0.01  # of time; with a quarter of it the density differs by 6e-9 of its peak at most


@lru_cache(maxsize=32)
def mean_field_density(t: float, diffusion: float, mean: float, spread: float, coupling: float) -> WellDensity:
    """p at time t: p_t = D p'' - ((2 (y - y^3) + kappa (int z p dz - y)) p)' on R, from N(mean, spread^2).

    Strang splitting on the Fourier grid of ``double_well.well_density``. The linear part, with the force -kappa y, has
    a matrix exponential. The rest, p_t = -kappa E y p', moves p as a whole, by E y (exp(kappa t) - 1). Steps of h and
    of h / 2 are extrapolated to fourth order.
    """
    scale = min(spread, np.sqrt(diffusion / (4 + coupling)))  # the curvature of the potential at y = 1 is 4 + kappa
    reach = max(abs(mean) + TAIL * spread, np.sqrt(1 + np.sqrt(1 + TAIL**2 * diffusion)))
    y, start, first, second = collocation(reach, scale, mean, spread)
    linear = diffusion * second - first * (2 * (y - y**3) - coupling * y)
    steps = max(1, int(np.ceil(t / STEP)))
    coarse, fine = (_split(y, start, linear, coupling, t, n) for n in (steps, 2 * steps))
    return normalised(reach, (4 * fine - coarse) / 3, t)


def _split(y, values, linear, coupling: float, t: float, steps: int) -> np.ndarray:
    """The density (n,) at t, by so many steps of Strang's splitting from values (n,) on the grid y (n,)."""
    h, spacing = t / steps, y[1] - y[0]
    propagator, growth = expm(h * linear), np.expm1(coupling * h / 2)
    wavenumbers = 2 * np.pi * np.fft.rfftfreq(len(y), spacing)

    def moved(p):
        shift = growth * spacing * (y @ p)
        return np.fft.irfft(np.exp(-1j * wavenumbers * shift) * np.fft.rfft(p), len(y))

    for _ in range(steps):
        values = moved(propagator @ moved(values))
    return values
