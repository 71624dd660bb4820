"""Norms that judge a step: its error, and the residual of a velocity on points that it was not fitted to.

All functions are called inside of `shard_map` by all devices, on their own points, and return sums over all devices.
Single numbers are arrays there, and floats once the host has read them (``backend.host_numbers``).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend.fixed_order import sum_over_devices, sum_over_parts
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.points.points import error_weights

GAUSS_NODES, GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(4)  # of eighth order, above that of any integrator


class StepNorms(NamedTuple):
    """The error of a step, in the norm of the error.

    Attributes:
        error: of the step. scale: |u|, which it is relative to; one for a log density.
        embedded: the part |J e| of the error that the pair sees in theta alone. The rest is the change of J along the
            step.
    """

    error: Any
    scale: Any
    embedded: Any


class ResidualCheck(NamedTuple):
    """A velocity on points that it was not fitted to.

    Attributes:
        residual: |J v - f| / |f|.
        residual_rate: |J v - f| / |q|, q the field, in the norm of ``monitoring.estimate``.
        coverage: the effective share of the points in integrals of |u|, (sum m)^2 / (n sum m^2) with the masses
            m = |u| x measure (Kish 1965).
    """

    residual: Any
    residual_rate: Any
    coverage: Any


def square(points, values):
    """This device's part of |values|^2 = sum_i w_i |values_i|^2, for values (n, m)."""
    return sum_over_parts(_square, points.weights, values)


def _square(weights, values):
    return jnp.sum(weights[:, None] * values.astype(jnp.float64) ** 2)


def masses(points, mass):
    """This device's part of the sums that give the coverage of ``ResidualCheck``, for m = mass (n,): (3,)."""
    return sum_over_parts(_masses, mass, points.measure)


def _masses(mass, measure):
    return jnp.stack([jnp.sum(mass), jnp.sum(mass**2), jnp.sum(measure > 0)])


def step_norms(discretisation: Discretisation, theta, t, new, e, increment, increment_error, points) -> StepNorms:
    """The error of a step from theta at time t to new, and |u|, over the points.

    The embedded pair of the integrator advances two quantities: the parameters theta, and the field itself, by
    increment = h sum_i b_i J_i v_i. The defect |q(new) - q(theta) - increment| is the difference of the two results,
    so that it bounds the error of neither, but is the error of the less accurate one. The embedded errors of both say
    which one that is: |J e| for theta, and |increment_error| for the field. The error returned is |J e|, or the share
    |J e| / max(|J e|, |increment_error|) of the defect where that is larger. |J e| alone does not see that J changes
    along the step, and the defect alone would attribute to theta the errors of a stiff field.

    For a field q = log u the norm is weighted by u, and the scale is one: an error of q is a relative error of u.

    Args:
        theta, new: (p,). e: (p,), the difference of the pair's two solutions for theta.
        increment, increment_error: (n, m), that of the field and the difference of the pair's two solutions for it.
    """
    network = discretisation.network
    before, after = (discretisation.field(at, points.x).astype(jnp.float64) for at in (theta, new))
    weighted, size = _error_norm(network, points, discretisation.solution_field(theta, t, points.x))
    values = (discretisation.rate(theta, e, points), increment_error, after - before - increment, size)
    squares = jnp.stack([square(weighted, each) for each in values])
    embedded, of_field, defect, scale = jnp.sqrt(sum_over_devices(squares))
    larger = jnp.maximum(embedded, of_field)
    share = embedded / jnp.where(larger > 0, larger, 1.0)
    error = jnp.maximum(embedded, share * defect)  # NaN if one of them is NaN
    if network.log_density:
        return StepNorms(error / scale, jnp.ones_like(scale), embedded / scale)
    return StepNorms(error, scale, embedded)


def unresolved_data(discretisation: Discretisation, t, h, points):
    """|l(t + h) - l(t) - integral of l_t|, l the lifting of wall data, over a step from t of length h, by Gauss's rule.

    It is nearly zero where the data are smooth within the step. If they jump, or rise and stay within a part of it, the
    rates at the stages of a step need not show it: the solution would have the new data at its walls, and the network,
    whose rate has not seen the change, would keep it from the inside.
    """
    network = discretisation.network
    lifting: Any = network.lifting

    def values(function, at):
        at_point = jax.vmap(lambda point: jnp.reshape(function(point, at), (network.outputs,)))
        return discretisation.in_blocks(at_point, points.x)

    nodes = zip((t + h * (1 + GAUSS_NODES) / 2).astype(jnp.float64), h * GAUSS_WEIGHTS / 2)
    change = values(lifting, t + h) - values(lifting, t)
    explained = sum(weight * values(lifting.rate, at) for at, weight in nodes)
    return jnp.sqrt(sum_over_devices(square(points, network.as_field(change - explained))))


def check_residual(discretisation: Discretisation, theta, t, v, points) -> ResidualCheck:
    """The residual of the velocity v (p,) at (theta, t)."""
    misfit, f, solution = discretisation.residual(theta, t, v, points)
    weighted, size = _error_norm(discretisation.network, points, solution)
    mass = points.measure * jnp.linalg.norm(discretisation.values(theta, t, points.x).astype(jnp.float64), axis=-1)
    squares = [square(points, misfit), square(points, f)]
    squares += [square(weighted, values) for values in (misfit, size)]
    squares, sums = sum_over_devices((jnp.stack(squares), masses(points, mass)))
    ratio = lambda a, b: a / jnp.where(b > 0, b, 1.0)  # noqa: E731
    residual, rate = (jnp.sqrt(ratio(squares[i], squares[j])) for i, j in ((0, 1), (2, 3)))
    return ResidualCheck(residual, rate, ratio(sums[0] ** 2, sums[1] * sums[2]))


def residual_squares(discretisation: Discretisation, theta, t, v, points):
    """|J v - f|^2 at every point of this device: (n,)."""
    misfit = discretisation.residual(theta, t, v, points)[0]
    return jnp.sum(misfit**2, axis=-1)


def _error_norm(network, points, field):
    """The points with the weights of the error norm, and the field (n, m) whose norm errors are relative to."""
    weighted = points._replace(weights=error_weights(points, field, network.log_density))
    return weighted, jnp.ones_like(field) if network.log_density else field
