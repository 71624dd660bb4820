"""The size of u below which errors are absolute.

A relative error has no meaning where u is zero: at the start of a run from rest, or after a decay by many orders of
magnitude. So the norm |u| to which errors of steps, fits and the estimate are relative is taken as max(|u|, floor).
The floor is found once, at the start. It is far below |u0| where u0 is not zero, so that it acts on fields alone that
have decayed to nearly nothing. Where u0 is zero it is the size that u may have after one step of initial_step.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.errors import InputError
from nivp_dist.settings.model import IntegratorSettings

# Of |u0|. A fit leaves an error of 1e-5 of it or more; relative accuracy of what is far below that is not to be had.
SHARE = 1e-6
TIMES = 33  # from 0 to t_end, at which the rate of a u0 = 0 is looked for: a source may set in late


def rms(field, points):
    """|field|, the root of the weighted mean square of field (n, m) on points, in float64: a scalar."""
    return jnp.sqrt(jnp.sum(points.weights[:, None] * field.astype(jnp.float64) ** 2))


def size_floor(settings: IntegratorSettings, network, problem, points) -> float:
    """The floor of |u| in the units of the field; zero for a field log u, whose errors are relative to u as they are.

    Raises InputError where u0 is zero, L[u0] at none of TIMES is a number above zero, and integrator.atol is not set.
    """
    if network.log_density:
        return 0.0
    if settings.atol is not None:
        return settings.atol / settings.rtol

    @jax.jit  # points are arguments: a program must not close over arrays of several processes
    def initial_size(points):
        return rms(_at_points(lambda point: network.as_field(problem.initial(point)), network, points.x), points)

    @jax.jit
    def rate(t, points):
        def at(point):
            return network.as_field_rate(problem.rhs(problem.initial, point, t), problem.initial(point))

        return rms(_at_points(at, network, points.x), points)

    if (initial := float(initial_size(points))) > 0:
        return SHARE * initial
    rates = [float(rate(t, points)) for t in np.linspace(0.0, settings.t_end, TIMES)]
    if (fastest := max(filter(np.isfinite, rates), default=0.0)) > 0:
        return settings.initial_step * fastest
    raise InputError(
        "u0 and its time derivative are zero, so that errors have no scale: set integrator.atol, the error of a step "
        "that is tolerated in u"
    )


def _at_points(function, network, x):
    values = jax.vmap(lambda point: jnp.reshape(function(point), (network.outputs,)))
    return values(x.astype(network.dtype))
