"""The misfit and the error of a fit on points."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import sum_over_devices
from nivp_dist.galerkin.norms import square
from nivp_dist.galerkin.velocity import Galerkin


def misfit_of(galerkin: Galerkin) -> Callable:
    """The compiled program (theta (p,), x (n, d), target (n, m)) -> target minus field (n, m)."""
    field, split = galerkin.discretisation.field, P(galerkin.axis)
    return galerkin.program(lambda theta, x, target: target - field(theta, x), P(), split, split, out_specs=split)


def relative_errors(galerkin: Galerkin, scored: int | None = None) -> Callable:
    """The compiled program (thetas (c, p), points, target (n, m), size) -> the error of every theta (c,).

    It is the relative L2 error, for a field log u the RMS error of log u.

    Args:
        scored: outputs that count, the first ones; None: all.

    The errors are relative to `size`, a norm, or where it is zero to the norm of the target.
    """
    network = galerkin.network

    def errors(thetas, points, target, size):
        target = target[:, :scored]
        scale = 1.0 if network.log_density else sum_over_devices(square(points, target))
        scale = jnp.where(size > 0, size**2, scale)

        def one(theta):
            misfit = galerkin.discretisation.field(theta, points.x)[:, :scored] - target
            return sum_over_devices(square(points, misfit))

        return jnp.sqrt(jax.lax.map(one, thetas) / scale)

    return galerkin.program(errors, P(), galerkin.points_spec, P(galerkin.axis), P())
