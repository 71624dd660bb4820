"""The heat equation with a narrow pulse in a box."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import Box, Dimension, Positive, Problem, laplacian
from nivp_dist.problems._gaussians import PULSE_WIDTH, pulse
from nivp_dist.problems._series import frequencies, modes, pulse_coefficients, pulse_mode_count


class Heat(Problem):
    """Heat equation with a narrow pulse in a box.

    Equation:    u_t = k lap u
    Domain:      [-1, 1]^d, u = 0 on the walls
    Initial:     u0 = exp(-|x|^2 / (2 s^2)) / (60 pi s^2)
    Parameters:  d = dimension, k = conductivity, s = width
    Source:      Neural IVP (Finzi et al. 2023, arXiv 2304.14994): d = 2, k = 0.05, s = 0.05
    Reference:   the product over the coordinates of one sine series, as the pulse factorises. The series ends where its
                 coefficients fall below 1e-16 of the peak; the product is exact to about 1e-14 of the peak.
    """

    summary: ClassVar[str] = "heat equation with a narrow pulse, box [-1, 1]^d"
    reference_kind: ClassVar[str] = "sine series, a product of 1-d ones, to rounding"
    linear: ClassVar[bool] = True

    dimension: Dimension = 2
    conductivity: Positive = 0.05
    width: Positive = PULSE_WIDTH

    @property
    def domain(self):
        return Box(self.dimension)

    @property
    def even(self):
        return tuple(range(self.dimension))

    def initial(self, x):
        return pulse(x, self.width, jnp)

    def rhs(self, u, x, t):
        return self.conductivity * laplacian(u, x)

    def reference(self, x, t):
        count = pulse_mode_count(self.width)
        decay = np.exp(-self.conductivity * frequencies(count) ** 2 * t)
        factors = modes(x.ravel(), count) @ (decay * pulse_coefficients(self.width, count))
        return np.prod(factors.reshape(x.shape), axis=1) / (60 * np.pi * self.width**2)
