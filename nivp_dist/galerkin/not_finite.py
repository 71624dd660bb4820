"""Where the right-hand side of a problem is not finite, in words: velocities made from it are of no use."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.backend.mesh import AXIS, to_host
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.problems.loading import place_of


def find(discretisation: Discretisation, theta, t, points):
    """Whether the problem's rhs is not finite at a point where the network is, the first such point x (d,), and what
    rhs takes beside u, x and t (``Discretisation.integrals``).

    It is called inside of `shard_map` by all devices, on their own points, and the result is the same on all.
    """
    finite = lambda values: jnp.all(jnp.isfinite(values.reshape(len(points.x), -1)), axis=1)  # noqa: E731
    integrals = discretisation.integrals(theta, t, points)
    bad = ~finite(discretisation.problem_rhs(theta, t, points.x, integrals)) & finite(
        discretisation.field(theta, points.x)
    )
    here, devices = jax.lax.axis_index(AXIS), jax.lax.axis_size(AXIS)
    first = jax.lax.pmin(jnp.where(jnp.any(bad), here, devices), AXIS)
    x = jax.lax.psum(jnp.where(here == first, points.x[jnp.argmax(bad)], 0.0), AXIS)
    return first < devices, x, integrals


def describe(discretisation: Discretisation, theta, t: float, x, integrals: tuple) -> str:
    """ "FILE:LINE: CLASS.rhs(u, x, t) is not finite at t = ..., x = ..., where u = ...", for a point x (d,).

    The line is that of the first operation whose result is not finite; it is left out where that is not known.
    """
    network, problem = discretisation.network, discretisation.problem
    theta, x = (jnp.asarray(to_host(array)) for array in (theta, x))
    integrals = tuple(jnp.asarray(to_host(array)) for array in integrals)
    u = np.asarray(jax.jit(network.solution_values)(theta, t, x[None]), np.float64)[0]
    place = _place(discretisation, theta, t, x, integrals)
    values = f"{u[0]:.3g}" if len(u) == 1 else _text(u)
    where = f"at t = {t:.6g}, x = {_text(np.asarray(x))}, where u = {values}"
    return f"{place + ': ' if place else ''}{type(problem).__name__}.rhs(u, x, t) is not finite {where}"


def _place(discretisation: Discretisation, theta, t: float, x, integrals: tuple) -> str | None:
    """The line of the user's file, found by evaluating the rhs operation by operation, each result checked."""
    try:
        file = inspect.getsourcefile(type(discretisation.problem))
    except TypeError:  # a class typed into a prompt has no file
        return None
    try:
        with jax.debug_nans(True), jax.debug_infs(True):
            discretisation.problem_rhs_at(theta, jnp.asarray(t), x, integrals)
    except Exception as error:  # noqa: BLE001  the message is as useful without the line
        return place_of(error, file)
    return None


def _text(values: np.ndarray) -> str:
    return np.array2string(values, precision=3, separator=", ", threshold=6)
