"""The broad part of a draw where some axes are bounded and others real: uniform times Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.points.mixture import Density, cholesky_factors, component_log_densities, transformed_normals
from nivp_dist.problems.domains import Domain


def with_product_part(domain: Domain, gaussian, random, is_broad, component, wide: Density):
    """Points x (n, d), and the intensity at x of those from the broad part, (n,).

    The broad part is uniform along the bounded axes, and along the real ones it has the marginal of broad Gaussians. A
    Gaussian draw that lies outside along a bounded axis is replaced by one of the broad part, and counted as such.

    Args:
        gaussian: (n, d), draws of the narrow Gaussians. random: (n, d), uniform on (0, 1) and independent of them.
        is_broad: (n,), whether a point is of the broad part from the first. component: (n,), the Gaussian of `wide`
            that a point of the broad part belongs to; of a replaced draw its own.
        wide: the broad Gaussians.
    """
    bounded, real = np.array(domain.bounded_axes), np.array(domain.real_axes)
    lower, upper = jnp.asarray(domain.lower[bounded]), jnp.asarray(domain.upper[bounded])
    along = Density(wide.weights, wide.means[:, real], wide.covariances[:, real][:, :, real])
    z = np.sqrt(2) * jax.lax.erf_inv(2 * random[:, real] - 1)
    normal = transformed_normals(along.means, cholesky_factors(along.covariances), component, z)
    uniform = lower + (upper - lower) * random[:, bounded]
    order = np.argsort(np.concatenate([bounded, real]))
    broad = jnp.concatenate([uniform, normal], axis=1)[:, order]
    outside = jnp.any((gaussian[:, bounded] <= lower) | (gaussian[:, bounded] >= upper), axis=-1)
    is_broad = is_broad | outside
    x = jnp.where(is_broad[:, None], broad, gaussian)
    counts = jnp.sum(is_broad[:, None] & (component[:, None] == jnp.arange(len(along.weights))), axis=0)
    kernels = jnp.exp(component_log_densities(along, x[:, real]))
    return x, jnp.sum(counts * kernels, axis=-1) / domain.bounded_volume
