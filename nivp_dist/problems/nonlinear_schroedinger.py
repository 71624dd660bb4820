"""The nonlinear Schroedinger equation: a complex unknown as a pair of real ones."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import PeriodicBox, Positive, Problem, derivatives, to_complex, to_pair

HALF_WIDTH = 5 * np.pi


class NonlinearSchroedinger(Problem):
    """A soliton of the focusing nonlinear Schroedinger equation.

    Equation:    i psi_t = -psi_xx / 2 - |psi|^2 psi, for psi = u + i v
    Domain:      [-5 pi, 5 pi), periodic
    Solution:    psi = a exp(i (c x + (a^2 - c^2) t / 2)) / cosh(a (x - c t)), which is 3e-7 a at the ends of the period
    Parameters:  a = amplitude; c = speed, of which the phase is periodic at multiples of 1/5
    Reference:   exact
    """

    summary: ClassVar[str] = "nonlinear Schroedinger equation (focusing), a soliton; a complex unknown as a pair"
    reference_kind: ClassVar[str] = "exact (soliton)"
    outputs: ClassVar[int] = 2
    output_names: ClassVar[tuple[str, ...]] = ("re", "im")

    amplitude: Positive = 1.0
    speed: float = 1.0

    @property
    def domain(self):
        return PeriodicBox(1, -HALF_WIDTH, HALF_WIDTH)

    def initial(self, x):
        return to_pair(self.soliton(x[0], 0.0, jnp))

    def rhs(self, u, x, t):
        value, _, curvature = derivatives(u, x)
        psi, psi_xx = to_complex(value), to_complex(curvature)
        return to_pair(1j * (psi_xx / 2 + jnp.abs(psi) ** 2 * psi))

    def invariants(self, u, x):
        return {"mass": jnp.sum(u(x) ** 2)}

    def reference(self, x, t):
        y = x[:, 0] - self.speed * t
        nearest = self.speed * t + (y + HALF_WIDTH) % (2 * HALF_WIDTH) - HALF_WIDTH
        psi = self.soliton(nearest, t, np)
        return np.stack([psi.real, psi.imag], axis=1)

    def soliton(self, x, t, xp):
        """psi at x of any shape, on the real line."""
        phase = self.speed * x + (self.amplitude**2 - self.speed**2) * t / 2
        return self.amplitude * xp.exp(1j * phase) / xp.cosh(self.amplitude * (x - self.speed * t))
