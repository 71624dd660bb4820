"""A travelling front of the Fisher-KPP equation in many dimensions."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from scipy.special import expit

from nivp_dist.problems import Dimension, OpenBox, Positive, Problem, derivatives


class FisherKPP(Problem):
    """Fisher-KPP equation on R^d: a front that travels along the diagonal, seen in a box.

    Equation:    u_t = lap u + u (1 - u)
    Domain:      [-a, a]^d, a window without boundary data. Bounded solutions on R^d are unique; in the box alone they
                 are not, see ``OpenBox``. Errors are measured in the whole box.
    Solution:    u = (1 + exp((z - z0 - c t) / sqrt(6)))^-2, z = (x_1 + ... + x_d) / sqrt(d), c = 5 / sqrt(6)
                 (Ablowitz and Zeppetella 1979). The front invades u = 0, where perturbations grow like e^t until it
                 arrives.
    Parameters:  d = dimension, a = half_width, z0 = start
    Reference:   exact
    """

    summary: ClassVar[str] = "Fisher-KPP equation with a front along the diagonal, in a window [-a, a]^d of R^d"
    reference_kind: ClassVar[str] = "exact (travelling front)"

    dimension: Dimension = 5
    half_width: Positive = 10.0
    start: float = -3.0

    @property
    def domain(self):
        return OpenBox(self.dimension, -self.half_width, self.half_width)

    def initial(self, x):
        return jax.nn.sigmoid(-self._phase(jnp.sum(x), 0.0)) ** 2

    def rhs(self, u, x, t):
        value, _, curvature = derivatives(u, x)
        return curvature + value * (1 - value)

    def reference(self, x, t):
        return expit(-self._phase(x.sum(axis=1), t)) ** 2

    def _phase(self, total, t):
        """(z - z0 - c t) / sqrt(6) where the coordinates sum to ``total``."""
        return (total / math.sqrt(self.dimension) - self.start) / math.sqrt(6) - 5 / 6 * t
