"""Problems. This module has all that a problem file imports: base class, domains, operators, types of parameters."""

from nivp_dist import backend  # noqa: F401  float64 before any array is made
from nivp_dist.problems.base import Dimension, NonNegative, Positive, Problem
from nivp_dist.problems.domains import Axes, Box, Neumann, Open, OpenBox, Periodic, PeriodicBox, Real, Wall, WholeSpace
from nivp_dist.problems.operators import derivatives, divergence, generator, gradient, laplacian
from nivp_dist.problems.views import View

__all__ = [
    "Axes",
    "Box",
    "Dimension",
    "Neumann",
    "NonNegative",
    "Open",
    "OpenBox",
    "Periodic",
    "PeriodicBox",
    "Positive",
    "Problem",
    "Real",
    "View",
    "Wall",
    "WholeSpace",
    "derivatives",
    "divergence",
    "generator",
    "gradient",
    "laplacian",
]
