"""Fokker-Planck equation of a linear stochastic differential equation, started from a Gaussian mixture."""

from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from nivp_dist.backend import random_keys
from nivp_dist.problems import Dimension, NonNegative, Positive, Problem, WholeSpace, generator
from nivp_dist.problems._gaussians import linear_transition, mixture_density, mixture_moments, move_mixture


class LinearFokkerPlanck(Problem):
    """Fokker-Planck equation of a linear stochastic differential equation, dx = (A x + b(t)) dt + B dW.

    Equation:    u_t = 1/2 sum_ij (B B^T)_ij u_{x_i x_j} - div((A x + b(t)) u)
    Domain:      R^d; u is a density
    Initial:     w N(-(l/2) e_1, s^2 I) + (1 - w) N((l/2) e_1, s^2 I)
    Parameters:  d = dimension; w = weight, l = separation, s = spread;
                 A = -contraction I + rotation in the planes (x1, x2), (x3, x4), ...;
                 b(t) = forcing_amplitude sin(2 pi forcing_frequency t) (1, ..., 1);
                 B = diag(sqrt(2 D_i)), D_i equally spaced from diffusion to diffusion (1 + anisotropy)
    Reference:   every Gaussian stays Gaussian and keeps its weight; the transition of the linear SDE gives its moments
                 to a relative 1e-12 (Risken, The Fokker-Planck Equation, sec. 6.5)

    Override drift_matrix, forcing, diffusion_matrix or mixture for another A, b, B or initial mixture.
    """

    summary: ClassVar[str] = "linear drift and diffusion with a two-Gaussian start, a density on R^d"
    reference_kind: ClassVar[str] = "exact Gaussian mixture (moment equations to 1e-12)"
    linear: ClassVar[bool] = True
    density: ClassVar[bool] = True

    dimension: Dimension = 3
    rotation: float = 1.0
    contraction: float = 0.5
    diffusion: Positive = 0.1
    anisotropy: NonNegative = 1.0
    forcing_amplitude: float = 0.5
    forcing_frequency: float = 0.5
    separation: NonNegative = 2.0
    spread: Positive = 0.5
    weight: Annotated[float, Field(gt=0, lt=1)] = 0.6

    def drift_matrix(self):
        """A, numpy (d, d)."""
        matrix = -self.contraction * np.eye(self.dimension)
        for first in range(0, self.dimension - 1, 2):
            matrix[first, first + 1] = -self.rotation
            matrix[first + 1, first] = self.rotation
        return matrix

    def forcing(self, t):
        """b(t), (d,), written with jax.numpy: t may be traced."""
        return self.forcing_amplitude * jnp.sin(2 * np.pi * self.forcing_frequency * t) * jnp.ones(self.dimension)

    def diffusion_matrix(self):
        """B, numpy (d, k): the equation has B B^T / 2 before the second derivatives."""
        return np.diag(np.sqrt(2 * self.diffusion * (1 + self.anisotropy * np.linspace(0, 1, self.dimension))))

    def mixture(self):
        """The start: weights (K,) of sum one, means (K, d), covariances (K, d, d), numpy."""
        axis = np.eye(self.dimension)[0]
        means = self.separation / 2 * np.stack([-axis, axis])
        covariance = self.spread**2 * np.eye(self.dimension)
        return np.array([self.weight, 1 - self.weight]), means, np.stack([covariance, covariance])

    @property
    def domain(self):
        _, mean, covariance = mixture_moments(*self.mixture())
        return WholeSpace(self.dimension, mean, np.sqrt(np.diag(covariance)))

    def initial(self, x):
        return mixture_density(x, *self.mixture(), jnp)

    def initial_samples(self, key, n):
        which, normal = random_keys.several(key, 2)
        weights, means, covariances = self.mixture()
        part = jax.random.choice(which, len(weights), (n,), p=jnp.asarray(weights))
        white = jax.random.normal(normal, (n, self.dimension))
        return jnp.asarray(means)[part] + jnp.einsum("nij,nj->ni", jnp.linalg.cholesky(covariances)[part], white)

    def rhs(self, u, x, t):
        transport = generator(u, x, -self.drift(x, t), self.diffusion_matrix())
        return transport - float(np.trace(self.drift_matrix())) * u(x)

    def drift(self, x, t):
        return jnp.asarray(self.drift_matrix(), x.dtype) @ x + jnp.asarray(self.forcing(t), x.dtype)

    def noise(self, t):
        return self.diffusion_matrix()

    def _mixture(self, t):
        noise = self.diffusion_matrix()
        return move_mixture(self.mixture(), linear_transition(self.drift_matrix(), self.forcing, noise @ noise.T, t))

    def reference(self, x, t):
        return mixture_density(x, *self._mixture(t), np)

    def statistics(self, t):
        mass, mean, covariance = mixture_moments(*self._mixture(t))
        return {"mass": mass, "mean": mean, "covariance": covariance}
