"""The size of u below which errors are absolute.

A relative error has no meaning where u is zero: at the start of a run from rest, or after a decay by many orders of
magnitude. So the norm |u| to which errors of steps, fits and the estimate are relative is taken as max(|u|, floor).
The floor is found once, at the start. It is far below |u0| where u0 is not zero, so that it acts on fields alone that
have decayed to nearly nothing. Where u0 is zero it is the size that u may have after one step of initial_step.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nivp_dist.backend.mesh import pointwise, whole_program
from nivp_dist.errors import InputError
from nivp_dist.problems.nonlocal_terms import further_arguments
from nivp_dist.settings.automatic import first_step
from nivp_dist.settings.model import IntegratorSettings

# Of |u0|. A fit leaves an error of 1e-5 of it or more; relative accuracy of what is far below that is not to be had.
SHARE = 1e-6
TIMES = 33  # from t_start to t_end, at which the rate of a u0 = 0 is looked for: a source may set in late


def rms(field, points):
    """|field|, the root of the weighted mean square of field (n, m) on points, in float64: a scalar."""
    return jnp.sqrt(jnp.sum(points.weights[:, None] * field.astype(jnp.float64) ** 2))


def size_floor(settings: IntegratorSettings, network, problem, points, mesh: Mesh) -> float:
    """The floor of |u| in the units of the field; zero for a field log u, whose errors are relative to u as they are.

    Raises InputError where u0 is zero, L[u0] at none of TIMES is a number above zero, and integrator.atol is not set.
    """
    if network.log_density:
        return 0.0
    if settings.atol is not None:
        return settings.atol / settings.rtol

    def initial(_, point):
        return network.as_field(problem.initial(point))

    def rate(t, point):
        f = problem.rhs(problem.initial, point, t, *further_arguments(problem, problem.initial, t))
        if network.lifting is not None:  # a u0 = 0 may be driven by its walls alone
            f = f + network.lifting.rate(point, t)
        return network.as_field_rate(f, problem.initial(point))

    size = whole_program(mesh, rms)
    at_start, rates_at = (_at_points(function, network, mesh) for function in (initial, rate))
    if (initial_size := float(size(at_start(None, points.x), points))) > 0:
        return SHARE * initial_size
    rates = [float(size(rates_at(t, points.x), points)) for t in np.linspace(settings.t_start, settings.t_end, TIMES)]
    if (fastest := max(filter(np.isfinite, rates), default=0.0)) > 0:
        return first_step(settings) * fastest
    raise InputError(
        "u0 and its time derivative are zero, so that errors have no scale: set integrator.atol, the error of a step "
        "that is tolerated in u"
    )


def _at_points(function, network, mesh: Mesh):
    """The compiled program of function(t, point (d,)) -> m numbers at points x (n, d): (t, x) -> (n, m)."""

    def at_points(t, x):
        at = lambda point: jnp.reshape(function(t, point), (network.outputs,))  # noqa: E731
        return jax.vmap(at)(x.astype(network.dtype))

    return pointwise(mesh, at_points)
