"""Collocation points with their quadrature weights, and the weights of the error norm on them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Points(NamedTuple):
    """Collocation points, sharded over the mesh.

    Attributes:
        x: (n, d), n a multiple of the number of devices; padding repeats a point with weight zero.
        weights: (n,), sum one: quadrature weights of the norm in which the residual is minimised.
        measure: (n,): sum(measure * g(x)) estimates the integral of g over the domain. `weights` is
            proportional to it unless the field is log u.
    """

    x: jax.Array
    weights: jax.Array
    measure: jax.Array


def error_weights(points, field, log_density: bool):
    """Weights (n,) of the error norm at points with their field (n, m), up to a common factor."""
    if not log_density:
        return points.weights
    return jnp.exp(field[:, 0].astype(jnp.float64) + jnp.log(points.measure))  # padding: exp(-inf)
