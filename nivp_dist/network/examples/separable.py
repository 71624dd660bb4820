"""Sums of products of functions of one coordinate."""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from pydantic import Field

from nivp_dist.network.features import boundary_features
from nivp_dist.problems.domains import Axes, Domain

Count = Annotated[int, Field(ge=1)]


class Separable(nn.Module):
    """u_k(x) = sum_r W_kr prod_i g_ir(x_i), with a perceptron of one hidden layer for the functions g_i1 .. g_iR.

    All parameters are in affine layers, d of them for the functions of each layer.

    Parameters:
        rank: R. width: of the hidden layers. frequencies: of the features of every coordinate.
    """

    outputs: int
    domain: Domain
    even: tuple[int, ...] = ()
    rank: Count = 8
    width: Count = 8
    frequencies: Annotated[int, Field(ge=0)] = 2

    @nn.compact
    def __call__(self, x):
        product = jnp.ones((len(x), self.rank), x.dtype)
        for i, axis in enumerate(self.domain.axes):
            features = boundary_features(x[:, i : i + 1], Axes(axis), self.frequencies, (0,) if i in self.even else ())
            hidden = nn.Dense(self.width, name=f"hidden_{i:02d}")(features)
            # Factors near one at first: the product of d others would be far too small, or too large.
            product = product * (1 + nn.Dense(self.rank, name=f"factor_{i:02d}")(jnp.tanh(hidden)))
        return nn.Dense(self.outputs)(product)
