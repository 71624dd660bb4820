"""The density of particles in a harmonic trap that moves, on the whole space."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from nivp_dist.problems import Dimension, Positive, Problem, WholeSpace, derivatives
from nivp_dist.problems._gaussians import linear_transition, mixture_density, mixture_moments, move_mixture


class MovingTrap(Problem):
    """Fokker-Planck equation of interacting particles in a harmonic trap that moves.

    Equation:    u_t = D lap u - div(h u),  h = (a(t) - x) + (alpha / d) (sum(x) - d x),  a(t) = c (sin(pi t) + b)
    Domain:      R^d; u is a density
    Initial:     N(m, s I), m equally spaced from 0.9 to 3
    Parameters:  d = dimension, c = trap_amplitude, b = trap_offset, alpha, D = diffusion, s = start_variance
    Source:      Neural Galerkin schemes (Bruna, Peherstorfer, Vanden-Eijnden 2024, arXiv 2203.01360): d = 8, c = 1.25,
                 b = 1.5, alpha = 1/4, D = 0.01, s = 0.1, to T = 8
    Reference:   N(m(t), S(t)), m' = A m + a(t) (1, ..., 1), S' = A S + S A^T + 2 D I,
                 A = -(1 + alpha) I + (alpha / d) 1 1^T, integrated to a relative 1e-12
    """

    summary: ClassVar[str] = "Fokker-Planck equation of a moving harmonic trap, a density on R^d"
    reference_kind: ClassVar[str] = "exact Gaussian (moment equations to 1e-12)"
    linear: ClassVar[bool] = True
    density: ClassVar[bool] = True

    dimension: Dimension = 8
    trap_amplitude: float = 1.25
    trap_offset: float = 1.5
    alpha: float = 0.25
    diffusion: Positive = 0.01
    start_variance: Positive = 0.1

    @property
    def domain(self):
        return WholeSpace(self.dimension, np.linspace(0.9, 3.0, self.dimension), self.start_variance**0.5)

    def trap(self, t):
        """a(t): the place to which every particle is drawn."""
        return self.trap_amplitude * (jnp.sin(np.pi * t) + self.trap_offset)

    def initial(self, x):
        return mixture_density(x, *self._start(), jnp)

    def rhs(self, u, x, t):
        drift = self.drift(x, t)
        drift_divergence = -self.dimension - self.alpha * (self.dimension - 1)
        value, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - drift @ slope - drift_divergence * value

    def drift(self, x, t):
        return jnp.asarray(self.trap(t), x.dtype) - x + self.alpha * (jnp.mean(x) - x)

    def noise(self, t):
        return np.sqrt(2 * self.diffusion) * np.eye(self.dimension)

    def _start(self):
        d = self.dimension
        return np.ones(1), np.linspace(0.9, 3.0, d)[None], self.start_variance * np.eye(d)[None]

    def _mixture(self, t):
        d = self.dimension
        drift = -(1 + self.alpha) * np.eye(d) + self.alpha / d * np.ones((d, d))
        forcing = lambda s: np.full(d, float(self.trap(s)))  # noqa: E731
        return move_mixture(self._start(), linear_transition(drift, forcing, 2 * self.diffusion * np.eye(d), t))

    def reference(self, x, t):
        return mixture_density(x, *self._mixture(t), np)

    def statistics(self, t):
        mass, mean, covariance = mixture_moments(*self._mixture(t))
        return {"mass": mass, "mean": mean, "covariance": covariance}
