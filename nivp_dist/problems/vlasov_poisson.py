"""Electrons in one dimension with the electric field that they make: Landau damping and the two-stream instability."""

from functools import lru_cache
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from numpy import fft

from nivp_dist.problems import Axes, Periodic, Positive, Problem, Wall, gradient
from nivp_dist.problems._spectral import evaluate

SPEED = 7.0  # the velocities are cut off at +-SPEED, where the Maxwellian is 2e-11 of its peak
HARMONICS = (
    8  # of the electric field, that are kept. The reference keeps all, so that reported errors include the others
)
NODES = 32, 64  # in x and v, of the quadrature for the field: the trapezoidal rule is exact to rounding for both


class VlasovPoisson(Problem):
    """Vlasov-Poisson system of electrons before a uniform background of ions, one dimension of space and velocity.

    Equation:    u_t = -v u_x + E u_v,  E_x = 1 - int u dv
    Domain:      (0, 2 pi / k) x (-7, 7), periodic in x, u = 0 at the largest velocities
    Initial:     (1 + alpha cos(k x)) f(v);  f = exp(-v^2 / 2) / sqrt(2 pi) for start = "landau", v^2 times that for
                 start = "two_stream"
    Parameters:  k = wavenumber, alpha = amplitude, start
    Reference:   Fourier series in x and v, splitting of fourth order in time, to 1e-8 (``Splitting``)

    For small alpha the field of "landau" decays as exp(-gamma t), gamma = 0.1533 for k = 1/2, and that of "two_stream"
    grows (roots of the dispersion relation: ``tests/problems/test_vlasov_poisson.py``). The field is a sum over nodes
    that do not depend on the network, ``quadrature``.
    """

    summary: ClassVar[str] = "Vlasov-Poisson system of electrons in one dimension of space and velocity"
    reference_kind: ClassVar[str] = "Fourier series, splitting of fourth order, to 1e-8"

    wavenumber: Positive = 0.5
    amplitude: float = 0.05
    start: Literal["landau", "two_stream"] = "landau"

    @property
    def domain(self):
        return Axes(Periodic(0.0, 2 * np.pi / self.wavenumber), Wall(-SPEED, SPEED))

    def initial(self, x):
        return self._start(x[0], x[1], jnp)

    def integrals(self, u, x, t):
        """The Fourier coefficients of the charge: of cos(j k x) and sin(j k x), j = 1, ..., HARMONICS."""
        phases = self._harmonics() * x[0]
        return u(x) * jnp.append(jnp.cos(phases), jnp.sin(phases))

    def quadrature(self):
        n, m = NODES
        x, v = 2 * np.pi / self.wavenumber * np.arange(n) / n, SPEED * (2 * np.arange(m) / m - 1)
        nodes = np.stack(np.meshgrid(x, v, indexing="ij"), axis=-1).reshape(-1, 2)
        return nodes, np.full(n * m, (2 * np.pi / self.wavenumber / n) * (2 * SPEED / m))

    def rhs(self, u, x, t, integrals):
        slope = gradient(u, x)
        return -x[1] * slope[0] + self.field(x[0], integrals) * slope[1]

    def field(self, x, integrals):
        """E at x from the integrals (2 HARMONICS,): of E_x = 1 - int u dv, each harmonic by itself."""
        k = self._harmonics()
        cosines, sines = self.wavenumber / np.pi * integrals.reshape(2, -1)
        return jnp.sum((sines * jnp.cos(k * x) - cosines * jnp.sin(k * x)) / k)

    def invariants(self, u, x):
        return {"mass": u(x)}

    def reference(self, x, t):
        return splitting(self.wavenumber, self.amplitude, self.start)(x, t)

    def _harmonics(self):
        return self.wavenumber * np.arange(1, HARMONICS + 1)

    def _start(self, x, v, xp):
        maxwellian = xp.exp(-(v**2) / 2) / np.sqrt(2 * np.pi)
        velocities = v**2 * maxwellian if self.start == "two_stream" else maxwellian
        return (1 + self.amplitude * xp.cos(self.wavenumber * x)) * velocities


GRID = 64, 512  # of the reference, in x and v
STEP = 0.02  # of time; with half of it the solution differs by 1e-9 of its peak


class Splitting:
    """The solution by Fourier series on GRID, periodic in x and v.

    The two parts of the equation, transport in x and acceleration by a field that it does not change, are solved
    exactly (Cheng and Knorr 1976). Strang's steps of h and h / 2 are extrapolated to fourth order at the end.
    """

    def __init__(self, problem: VlasovPoisson):
        n, m = GRID
        self.length = 2 * np.pi / problem.wavenumber
        x, self.v = self.length * np.arange(n) / n, SPEED * (2 * np.arange(m) / m - 1)
        self.k, self.q = problem.wavenumber * fft.rfftfreq(n, 1 / n), np.pi / SPEED * fft.rfftfreq(m, 1 / m)
        self._reached = {0: (problem._start(x[:, None], self.v, np),) * 2}  # number of whole steps -> solutions

    def at(self, t: float) -> np.ndarray:
        """u on the grid (n, m) at t."""
        coarse, fine = self._both(t)
        return (4 * fine - coarse) / 3

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        """u at points x (n, 2)."""
        n = GRID[0]
        wavenumbers = [2 * np.pi / self.length * fft.fftfreq(n, 1 / n), self.q]
        modes = fft.rfft2(self.at(t), norm="forward")
        return evaluate(np.asarray(x) + np.array([0.0, SPEED]), modes, wavenumbers)

    def field(self, u: np.ndarray) -> np.ndarray:
        """E (n,) on the grid."""
        charge = fft.rfft(u.sum(axis=1) * (self.v[1] - self.v[0]))
        return fft.irfft(np.append(0.0, -charge[1:] / (1j * self.k[1:])), GRID[0])

    def _both(self, t: float):
        """The solutions by whole steps from 0 and a shorter one, and by two halves of each. They do not depend on
        earlier calls."""
        whole = int(t / STEP)
        done = max(number for number in self._reached if number <= whole)
        if whole > done:
            coarse, fine = self._reached[done]
            steps = whole - done
            self._reached[whole] = self._advanced(coarse, STEP, steps), self._advanced(fine, STEP / 2, 2 * steps)
        coarse, fine = self._reached[whole]
        rest = t - whole * STEP
        return (self._advanced(coarse, rest, 1), self._advanced(fine, rest / 2, 2)) if rest > 0 else (coarse, fine)

    def _advanced(self, u, h: float, steps: int):
        def moved(u, h):
            return fft.irfft(np.exp(-1j * self.k[:, None] * self.v * h) * fft.rfft(u, axis=0), GRID[0], axis=0)

        u = moved(u, h / 2)
        for step in range(steps):
            shift = np.exp(1j * h * self.field(u)[:, None] * self.q)
            u = fft.irfft(shift * fft.rfft(u, axis=1), GRID[1], axis=1)
            u = moved(u, h if step < steps - 1 else h / 2)
        return u


@lru_cache(maxsize=4)
def splitting(wavenumber: float, amplitude: float, start: Literal["landau", "two_stream"]) -> Splitting:
    return Splitting(VlasovPoisson(wavenumber=wavenumber, amplitude=amplitude, start=start))
