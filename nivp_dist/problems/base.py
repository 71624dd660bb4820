"""What a user writes: a domain, an initial condition, a right-hand side, and (if known) a reference.

A problem is a class of about twenty lines that looks like the mathematics::

    class Heat(Problem):
        dimension: int = 2
        conductivity: float = 0.05

        @property
        def domain(self):
            return Box(self.dimension)

        def initial(self, x):
            return jnp.prod(1 - x**2)

        def rhs(self, u, x, t):
            return self.conductivity * laplacian(u, x)

Annotated class attributes are the problem's typed parameters: they can be set under
``[problem.parameters]`` of a configuration and are validated before anything is compiled.
"""

import dataclasses
from typing import Annotated, Callable, ClassVar

import numpy as np
from pydantic import Field

from nivp_dist.problems.domains import Domain

Dimension = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Problem:
    """An initial-value problem u_t = L[u](x, t), u(x, 0) = u0(x), with m outputs on a domain in R^d.

    A problem of second order in time is written as a first-order system (u, w = u_t), m = 2.
    Subclasses are made frozen keyword-only dataclasses: annotated attributes are parameters.

    Class attributes that a subclass may set:
        outputs: m, the number of components of u.
        output_names: their names in tables and pictures.
        density: True if u is a probability density (positive, of mass one); the network then
            represents log u on the whole space, and moments are reported.
        linear: True if L is linear in u, without a source: L[a u + b v] = a L[u] + b L[v], which is checked. The
            network that represents log u then evaluates L[u] / u where u itself would over- or underflow.
        even: axes along which u(x, t) is even about the centre of a box, for all t, which is checked at t = 0. A
            network of even features then has a part of the box to represent, and each point counts for its images.
    """

    outputs: ClassVar[int] = 1
    output_names: ClassVar[tuple[str, ...]] = ("u",)
    density: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    even: ClassVar[tuple[int, ...]] = ()

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @property
    def domain(self) -> Domain:
        """Where x lives: ``Box`` (zero Dirichlet walls), ``PeriodicBox``, ``OpenBox`` or ``WholeSpace``."""
        raise TypeError(f"{type(self).__name__} must define the property 'domain'")

    def initial(self, x):
        """u0 at one point x of shape (d,): a scalar if outputs = 1, else shape (m,). jax.numpy only."""
        raise TypeError(f"{type(self).__name__} must define the method 'initial(self, x)'")

    def rhs(self, u: Callable, x, t):
        """L[u](x, t) at one point x (d,) and time t, of the shape of u(x).

        u is a function of one point that can be differentiated: see ``problems.operators``.
        """
        raise TypeError(f"{type(self).__name__} must define the method 'rhs(self, u, x, t)'")

    # Optional. A problem without a reference is judged by its residual alone.
    reference: ClassVar[Callable | None] = None
    """reference(self, x, t): x (n, d) float64 numpy, t float -> (n,) or (n, k), the first k outputs.

    Exact, or refined until its own error is far below any error it will judge; never made with the
    networks that it judges.
    """

    @property
    def reference_until(self) -> float:
        """The time up to which ``reference`` holds (a wall that it ignores, say); later outputs have no error."""
        return np.inf

    statistics: ClassVar[Callable | None] = None
    """statistics(self, t): exact statistics at t, any of mass (), mean (d,), covariance (d, d)."""

    invariants: ClassVar[Callable | None] = None
    """invariants(self, u, x): what is conserved, as densities at one point, {"energy": scalar, ...}; written as
    ``rhs``.

    Their integrals over the domain, and how far they have drifted, are reported at outputs: a check that needs no
    reference. The mass of a probability density always is.
    """


def has_reference(problem: Problem, t: float = 0.0) -> bool:
    """Whether the problem's class defines ``reference``, and it holds at time t."""
    return callable(getattr(type(problem), "reference", None)) and t <= problem.reference_until


def evaluate_reference(problem: Problem, x: np.ndarray, t: float) -> np.ndarray:
    """The reference at points x (n, d) as (n, k) float64, k = number of outputs that it covers."""
    values = np.asarray(problem.reference(np.asarray(x, np.float64), float(t)), np.float64)
    return values.reshape(len(x), -1)
