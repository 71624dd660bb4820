"""Advection of two Gaussian packets with a velocity that varies in time, on the whole space."""

from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from pydantic import Field

from nivp_dist.problems import Problem, WholeSpace, gradient
from nivp_dist.problems._gaussians import mixture_density, mixture_moments, move_mixture


class TimeVaryingAdvection(Problem):
    """Advection of two Gaussian packets with a velocity that varies in time.

    Equation:    u_t + a(t) . grad u = 0,  a_i(t) = i (sin(w_i t) + 5/4),  w_i equally spaced from 2 pi to 4 pi
    Domain:      R^d; u is a density
    Initial:     1/2 N((1.1, ..., 1.1), diag(0.01 i)) + 1/2 N(m, diag(0.005 (d + 1 - i))),
                 m_i = 0.75 (1.5 - (-1)^i i / (d + 1)), i = 1, ..., d
    Parameters:  d = dimension
    Source:      Neural Galerkin schemes (Bruna, Peherstorfer, Vanden-Eijnden 2024, arXiv 2203.01360) with the constants
                 of the code that they published: d = 5, to T = 1.8. Their packets have mass one each, two together.
    Reference:   u0(x - int_0^t a), exact
    """

    summary: ClassVar[str] = "advection of two Gaussian packets, velocity varying in time, a density on R^d"
    reference_kind: ClassVar[str] = "exact (translation)"
    density: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    dimension: Annotated[int, Field(ge=2)] = 5

    @property
    def domain(self):
        _, mean, covariance = mixture_moments(*self._start())
        return WholeSpace(self.dimension, mean, np.sqrt(np.diag(covariance)))

    def _start(self):
        d = self.dimension
        i = np.arange(1, d + 1)
        means = np.stack([np.full(d, 1.1), 0.75 * (1.5 - (-1.0) ** i * i / (d + 1))])
        return np.full(2, 0.5), means, np.stack([np.diag(0.01 * i), np.diag(0.005 * (d + 1 - i))])

    def _frequencies(self):
        return 2 * np.pi * np.linspace(1, 2, self.dimension)

    def velocity(self, t):
        """a(t), (d,)."""
        return np.arange(1, self.dimension + 1) * (jnp.sin(self._frequencies() * t) + 1.25)

    def displacement(self, t):
        """int_0^t a, (d,)."""
        w = self._frequencies()
        return np.arange(1, self.dimension + 1) * ((1 - np.cos(w * t)) / w + 1.25 * t)

    def initial(self, x):
        return mixture_density(x, *self._start(), jnp)

    def drift(self, x, t):
        """a(t), (d,), everywhere."""
        return self.velocity(t)

    def rhs(self, u, x, t):
        return -jnp.asarray(self.velocity(t), x.dtype) @ gradient(u, x)

    def _mixture(self, t):
        still = np.eye(self.dimension), self.displacement(t), np.zeros((self.dimension, self.dimension))
        return move_mixture(self._start(), still)

    def reference(self, x, t):
        return mixture_density(x, *self._mixture(t), np)

    def statistics(self, t):
        mass, mean, covariance = mixture_moments(*self._mixture(t))
        return {"mass": mass, "mean": mean, "covariance": covariance}
