"""The logarithm of a density as the unknown: a nonlinear equation for a network without any Gaussian in it."""

import math
from typing import ClassVar

import numpy as np

from nivp_dist.problems import Dimension, OpenBox, Positive, Problem, derivatives


class LogFokkerPlanck(Problem):
    """q_t = lap q + |grad q|^2 + x.grad q / 2 + d / 2 on [-5, 5]^d, q0 = log N(0, I).

    e^q satisfies the Fokker-Planck equation u_t = lap u + div(x u) / 2. The unknown is q itself and the network an MLP
    alone, as published: a quadratic form would be exact. Nothing is asked at the walls, see ``OpenBox``; perturbations
    of q are carried outwards there, by the velocity (2 / v - 1/2) x, v = 2 - e^-t the variance.

    Source: Dangel, Mueller, Zeinhofer 2024 (arXiv 2405.15603), and SPRING for the same problem (Guzman-Cordero et al.
    2025, arXiv 2505.12149): d = 9, to t = 1.
    Reference: q = log N(0, v I), exact. The relative L2 error of a run is RMS over RMS of q in the box, most of which
    is corners; ``samples`` gives points to measure it under the density.
    """

    summary: ClassVar[str] = "log-density of a Fokker-Planck equation as the unknown, box [-5, 5]^d"
    reference_kind: ClassVar[str] = "exact (Gaussian)"
    output_names: ClassVar[tuple[str, ...]] = ("q",)

    dimension: Dimension = 9
    half_width: Positive = 5.0

    @property
    def domain(self):
        return OpenBox(self.dimension, -self.half_width, self.half_width)

    def initial(self, x):
        return -(x @ x) / 2 - self.dimension / 2 * math.log(2 * math.pi)

    def rhs(self, u, x, t):
        _, slope, curvature = derivatives(u, x)
        return curvature + slope @ slope + x @ slope / 2 + self.dimension / 2

    def reference(self, x, t):
        v = variance(t)
        return -np.sum(x**2, axis=1) / (2 * v) - self.dimension / 2 * np.log(2 * np.pi * v)

    def samples(self, n, t, seed=0):
        """n points of the density at time t: (n, d). A few in a million fall outside of the box."""
        return np.sqrt(variance(t)) * np.random.default_rng(seed).standard_normal((n, self.dimension))


def variance(t):
    """Of every coordinate: v' = 2 - v, v(0) = 1."""
    return 2 - np.exp(-t)
