"""The logarithm of a density as the unknown: a nonlinear equation for a network without any Gaussian in it."""

import math
from typing import ClassVar

import numpy as np

from nivp_dist.problems import Dimension, OpenBox, Positive, Problem, derivatives


class LogFokkerPlanck(Problem):
    """The logarithm of a density as the unknown, q = log u.

    Equation:    q_t = lap q + |grad q|^2 + x . grad q / 2 + d / 2, that is u_t = lap u + div(x u) / 2 for u = e^q
    Domain:      [-a, a]^d, a window without boundary data. Perturbations of q are carried outwards, by the velocity
                 (2 / v - 1/2) x with v = 2 - e^-t the variance.
    Initial:     q0 = log N(0, I)
    Parameters:  d = dimension, a = half_width
    Source:      Dangel, Mueller, Zeinhofer 2024 (arXiv 2405.15603) and, with SPRING, Guzman-Cordero et al. 2025
                 (arXiv 2505.12149): d = 9, a = 5, to t = 1. As there, the network is an MLP alone; a quadratic form
                 would represent q exactly.
    Reference:   q = log N(0, v I), exact. The relative L2 error of a run is over the box, most of which is corners;
                 ``samples`` gives points to measure it under the density.
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
