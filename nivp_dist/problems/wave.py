"""The wave equation with a pulse, at rest or modulated, in a box."""

from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from pydantic import Field

from nivp_dist.problems import Box, NonNegative, Positive, Problem, gradient, laplacian
from nivp_dist.problems._gaussians import PULSE_WIDTH, pulse
from nivp_dist.problems._series import evaluate, frequencies, pulse_coefficients, pulse_mode_count


class Wave(Problem):
    """Wave equation with a pulse in a box, as a first-order system for (u, w = u_t).

    Equation:    u_t = w,  w_t = c lap u
    Domain:      [-1, 1]^d, u = w = 0 on the walls
    Initial:     u0 = exp(-|x|^2 / (2 s^2)) cos(2 pi kappa x_1) / (60 pi s^2),  w0 = 0
    Parameters:  d = dimension, c = speed_squared, s = width, kappa = wavenumber
    Source:      Neural IVP (Finzi et al. 2023, arXiv 2304.14994): d = 2, c = 0.1, s = 0.05, kappa = 0
    Reference:   sine series with modes cos(sqrt(c) |k| t), k in ((j + 1/2) pi)^d, for u and u_t and all t, reflections
                 included. It ends where its coefficients fall below 1e-16 of the peak. Wide pulses (s > 0.11) do not
                 vanish on the walls to rounding, and the series is as exact as the data are: 4e-6 of the peak at
                 s = 0.2.
    """

    summary: ClassVar[str] = "wave equation with a pulse, first-order system (u, u_t), box [-1, 1]^d"
    reference_kind: ClassVar[str] = "sine series for u and u_t, reflections included, to rounding"
    linear: ClassVar[bool] = True
    outputs: ClassVar[int] = 2
    output_names: ClassVar[tuple[str, ...]] = ("u", "u_t")

    # The series has some 57^d modes at s = 0.05: three dimensions are the most it serves.
    dimension: Annotated[int, Field(ge=1, le=3)] = 2
    speed_squared: Positive = 0.1
    width: Positive = PULSE_WIDTH
    wavenumber: NonNegative = 0.0

    @property
    def domain(self):
        return Box(self.dimension)

    @property
    def even(self):
        return tuple(range(self.dimension))

    def initial(self, x):
        displacement = pulse(x, self.width, jnp) * jnp.cos(2 * np.pi * self.wavenumber * x[0])
        return jnp.stack([displacement, jnp.zeros_like(displacement)])

    def rhs(self, u, x, t):
        return jnp.stack([u(x)[1], self.speed_squared * laplacian(lambda y: u(y)[0], x)])

    def energy(self, u, x):
        slope = gradient(lambda y: u(y)[0], x)
        return jnp.append(np.sqrt(self.speed_squared) * slope, u(x)[1])

    def invariants(self, u, x):
        slope, (_, velocity) = gradient(lambda y: u(y)[0], x), u(x)
        return {"energy": (velocity**2 + self.speed_squared * slope @ slope) / 2}

    def reference(self, x, t):
        wavenumbers = [self.wavenumber] + [0.0] * (self.dimension - 1)
        counts = [pulse_mode_count(self.width, kappa) for kappa in wavenumbers]
        start = np.array(1 / (60 * np.pi * self.width**2))
        squares = np.array(0.0)
        for count, kappa in zip(counts, wavenumbers):
            start = start[..., None] * pulse_coefficients(self.width, count, kappa)
            squares = squares[..., None] + frequencies(count) ** 2
        omega = np.sqrt(self.speed_squared * squares)
        displacement, velocity = start * np.cos(omega * t), -start * omega * np.sin(omega * t)
        return np.stack([evaluate(x, displacement), evaluate(x, velocity)], axis=1)
