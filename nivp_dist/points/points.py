"""Collocation points with their quadrature weights, and the weights of the error norm on them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Points(NamedTuple):
    """Collocation points, sharded over the mesh.

    Attributes:
        x: (n, d), n a multiple of ``mesh.multiple_of_points``; padding repeats a point with weight zero.
        weights: (n,), sum one: quadrature weights of the norm in which the residual is minimised.
        measure: (n,): sum(measure * g(x)) estimates the integral of g over the domain. `weights` is
            proportional to it unless the field is log u.
    """

    x: jax.Array
    weights: jax.Array
    measure: jax.Array


def error_weights(points: Points, field, log_density: bool):
    """Weights (n,) of the error norm, up to a common factor.

    Args:
        field: (n, m), the field at the points.
        log_density: True if the field is log u. The weights are then the measure times u; else they are those of
            the points.
    """
    if not log_density:
        return points.weights
    return jnp.exp(field[:, 0].astype(jnp.float64) + jnp.log(points.measure))  # padding: exp(-inf)


def effective_sample_size(weights):
    """(sum w)^2 / sum w^2 for weights (n,): a scalar (Kish 1965)."""
    return jnp.sum(weights) ** 2 / jnp.sum(weights**2)


def pad(points: Points, multiple: int) -> Points:
    """The points with copies of the first one, of weight and measure zero, up to a multiple."""
    extra = -len(points.x) % multiple
    if extra == 0:
        return points
    x = jnp.concatenate([points.x, jnp.tile(points.x[:1], (extra, 1))])
    return Points(x, *(jnp.pad(w, (0, extra)) for w in points[1:]))
