"""The base class of problems: a domain, an initial condition, a right-hand side and, if known, a reference.

A problem is a class of about twenty lines that reads like the mathematics::

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

Annotated class attributes are the parameters of the problem. They are set under ``[problem.parameters]`` of a
configuration, and their types and bounds are validated before anything is compiled.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, dataclass_transform

import numpy as np
from pydantic import Field

from nivp_dist.problems.domains import Domain
from nivp_dist.problems.views import View

Dimension = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
class Problem:
    """An initial-value problem u_t = L[u](x, t), u = u0(x) at the start, with m outputs on a domain in R^d.

    A subclass defines ``domain``, ``initial`` and ``rhs``. Optional are ``reference``, ``reference_until``,
    ``statistics``, ``invariants``, ``wall_data``, ``integrals``, ``quadrature``, ``initial_samples``, ``energy``,
    ``drift``, ``noise`` and the class attributes below. x and t have the units of the equation; nothing is scaled. The
    start is at t = 0 unless integrator.t_start says otherwise.
    A problem of second order in time is written as a first-order system (u, w = u_t), m = 2.

    Subclasses become frozen, keyword-only dataclasses: annotated attributes are parameters.

    Class attributes:
        outputs: m, the number of components of u. Default 1.
        output_names: the names of the m components in tables and pictures. Default ("u",), or u_1, u_2, ... if m > 1.
        density: True if u is a probability density: positive, of mass one. Where an axis is real and u = 0 at no wall
            the network then represents log u, and the mean and covariance of u are reported. Default False.
        linear: True if L[a u + b v] = a L[u] + b L[v], with the values of ``integrals`` held, if there are any; an
            affine L, with a source, is not linear. It is checked before a run. A network that represents log u then
            evaluates L[u] / u, where u itself would overflow or underflow. Default False.
        even: the bounded axes along which u(x, t) is even about their middle for all t. It is checked at the start. The
            network then has even features only, and every point counts for its mirror images. Default ().
        parities: for systems, axis -> a sign for each output: 1 where it is even along that axis, -1 where it is odd.
            {0: (1, -1)} is a density that is even in x[0] beside a velocity that is odd. Default {}.
        data_files: the files that the class reads, relative to the folder of its own file, such as ("table.npy",). The
            run reads copies in its directory, so they are opened as ``Path(__file__).parent / "table.npy"``. Files
            outside of that folder, by absolute paths, are not copied; a resume refuses to go on when one has changed.
            Default ().
        views: what the pictures, `nivp watch` and the movie show, a tuple of ``views.View``, such as
            (View(axes=(0, 1), at={2: 0.5}, output=0), View(axes=(3,), marginal=True)): curves along an axis or images
            over two, of values or of marginals. A property, where it depends on parameters. Default (): all of u in one
            or two dimensions; lines parallel to the first four axes, and marginals along these, in more.

    Mistakes in a subclass raise InputError before anything large is compiled (``problems.checks``).
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]  # every subclass has it

    outputs: ClassVar[int] = 1
    output_names: ClassVar[tuple[str, ...]] = ("u",)
    density: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    even: ClassVar[tuple[int, ...]] = ()
    parities: ClassVar[dict[int, tuple[int, ...]]] = {}
    data_files: ClassVar[tuple[str, ...]] = ()
    views: ClassVar[tuple[View, ...]] = ()

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @property
    def domain(self) -> Domain:
        """A ``Box`` (u = 0 on the walls), ``PeriodicBox``, ``OpenBox`` (no boundary data), ``WholeSpace``, or ``Axes``
        of different kinds."""
        raise TypeError(f"{type(self).__name__} must define the property 'domain'")

    def initial(self, x):
        """u0 at one point x (d,): a scalar if outputs = 1, else (m,). Written with jax.numpy, as it is compiled."""
        raise TypeError(f"{type(self).__name__} must define the method 'initial(self, x)'")

    def rhs(self, u: Callable, x, t):
        """L[u](x, t) at one point x (d,) and time t (), of the shape of u(x). Written with jax.numpy.

        u is a function of one point. ``problems.operators`` has gradient, laplacian, divergence and others.
        """
        raise TypeError(f"{type(self).__name__} must define the method 'rhs(self, u, x, t)'")

    # All that follows is optional.
    initial_samples: ClassVar[Any] = None
    """initial_samples(self, key, n): n independent samples (n, d) of the density that is proportional to |u0|, by
    ``jax.random`` with that key; for initial conditions that are hard to find by values of u0 alone, such as narrow
    parts that lie far from each other in many dimensions. Every process calls it with the same key."""

    # Without a reference the report has the residual, but no error.
    reference: ClassVar[Any] = None
    """reference(self, x, t): the solution at points x (n, d) and time t, numpy float64: (n,), or (n, k) for the first
    k outputs.

    It is exact, or refined until its own error is far below the errors that are measured with it, and it is computed
    without the networks.
    """

    @property
    def reference_until(self) -> float:
        """The time up to which ``reference`` is valid, for example until a wave reaches a wall that the reference
        leaves out. Outputs at later times have no error. Default inf."""
        return np.inf

    statistics: ClassVar[Any] = None
    """statistics(self, t): a dictionary with exact values at time t of any of "mass" (), "mean" (d,), "covariance"
    (d, d)."""

    invariants: ClassVar[Any] = None
    """invariants(self, u, x): the densities at one point x (d,) of conserved integrals, {"energy": scalar, ...};
    written as ``rhs``.

    Their integrals over the domain, and how much these have changed since the start, are reported at the output times:
    a check without a reference. The mass of a probability density is reported in any case.
    """

    wall_data: ClassVar[Any] = None
    """wall_data(self, x, t, axis, end): the data g at one point x (d,) of the wall at an end, "lower" or "upper", of an
    axis, given by its number; a number, of systems (m,); written with jax.numpy in x and t. It is called for all ends
    of ``Wall``, ``Neumann`` and ``Robin`` axes, whose conditions are then u = g, du/dn = g (n the outward normal) and
    du/dn + b u = g. Default: g = 0.

    They hold exactly: u is a function of x and t that has the data, plus a network for the rest (``wall_data``).
    """

    integrals: ClassVar[Any] = None
    """integrals(self, u, x, t): the densities (k,) at one point x (d,) of integrals over the domain on which the
    equation depends; written as ``rhs``, which then takes their values (k,) as a fourth argument: rhs(self, u, x, t,
    integrals).

    They are computed once for a velocity, over the collocation points of all devices, with a statistical error of one
    over the root of their number or less. A ratio of two of them, such as the mean (u x, u), has a smaller error than
    either. Nodes of the problem's own (``quadrature``) have none.
    """

    quadrature: ClassVar[Any] = None
    """quadrature(self): nodes x (q, d) and weights (q,), numpy, by which ``integrals`` are computed in place of the
    collocation points; for one to three dimensions, where a rule of a few thousand nodes is exact."""

    energy: ClassVar[Any] = None
    """energy(self, u, x): components e (k,) at one point x (d,), linear in u, such that the integral of |e|^2 is
    conserved or decays under the linearised equation; written as ``rhs``. For a wave: the slopes of u, and u_t.

    Least squares are then in the norm of e, in which the projected equation is as stable as the equation itself
    (solver.norm).
    """

    drift: ClassVar[Any] = None
    """drift(self, x, t): a (d,) at one point x (d,), where u is the density of particles that move independently of
    each other by dx = a(x, t) dt + B(t) dW, so that rhs is -div(a u) + tr(B B^T Hess u) / 2; written as ``rhs``.

    Points can then lie at the ends of simulated paths (sampling.method = "paths").
    """

    noise: ClassVar[Any] = None
    """noise(self, t): B (d, k) of these particles. Without it they move along the characteristics of a."""


def symmetries(problem: Problem) -> dict[int, tuple[int, ...]]:
    """axis -> the sign (m,) of every output under its reflection, from ``even`` and ``parities``."""
    return dict.fromkeys(problem.even, (1,) * problem.outputs) | problem.parities


def stored_initial(problem: Problem) -> Any:
    """The initial condition if it is the solution of another run (``run.stored_solution``), else None."""
    return problem.initial if hasattr(problem.initial, "record") else None


def output_names(problem: Problem) -> tuple[str, ...]:
    """The names of the m outputs: those that the class declares, else u, or u_1, u_2, ... of several."""
    if problem.outputs > 1 and problem.output_names == Problem.output_names:
        return tuple(f"u_{k + 1}" for k in range(problem.outputs))
    return problem.output_names


def has_reference(problem: Problem, t: float = 0.0) -> bool:
    """Whether the problem's class defines ``reference``, and t is not after ``reference_until``."""
    return callable(getattr(type(problem), "reference", None)) and t <= problem.reference_until


def evaluate_reference(problem: Problem, x: np.ndarray, t: float) -> np.ndarray:
    """The reference at points x (n, d) as (n, k) float64; k is the number of outputs that it covers."""
    values = np.asarray(problem.reference(np.asarray(x, np.float64), float(t)), np.float64)
    return values.reshape(len(x), -1)
