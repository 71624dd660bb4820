"""Problems. This module has all that a problem file imports: base class, domains, operators, types of parameters."""

from nivp_dist import backend  # noqa: F401  float64 before any array is made
from nivp_dist.problems.axes import Neumann, Open, Periodic, Real, Robin, Wall
from nivp_dist.problems.base import Dimension, NonNegative, Positive, Problem
from nivp_dist.problems.domains import Axes, Box, OpenBox, PeriodicBox, WholeSpace
from nivp_dist.problems.operators import derivatives, divergence, generator, gradient, laplacian, to_complex, to_pair
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
    "Robin",
    "View",
    "Wall",
    "WholeSpace",
    "derivatives",
    "divergence",
    "generator",
    "gradient",
    "laplacian",
    "to_complex",
    "to_pair",
]
