"""A residual network on Fourier features."""

from typing import Annotated

import flax.linen as nn
from pydantic import Field

from nivp_dist.network.features import boundary_features
from nivp_dist.problems.domains import Domain


class FourierResNet(nn.Module):
    """Features a, then blocks a + V swish(W swish(a) + b) + c, then a linear layer.

    Every `nn.Dense` is called once with inputs (n, k), so that all parameters are in affine layers.

    Parameters:
        width: of a. blocks: their number. frequencies: of the features, along every axis.
    """

    outputs: int
    domain: Domain
    even: tuple[int, ...] = ()
    width: Annotated[int, Field(ge=1)] = 20
    blocks: Annotated[int, Field(ge=0)] = 2
    frequencies: Annotated[int, Field(ge=0)] = 2

    @nn.compact
    def __call__(self, x):
        a = nn.Dense(self.width)(boundary_features(x, self.domain, self.frequencies, self.even))
        for _ in range(self.blocks):
            hidden = nn.Dense(self.width)(nn.swish(a))
            a = a + nn.Dense(self.width)(nn.swish(hidden))
        return nn.Dense(self.outputs)(nn.swish(a))
