"""A network that does not change when particles are exchanged."""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from pydantic import Field

Count = Annotated[int, Field(ge=1)]


class Particles(nn.Module):
    """A function of P particles with k coordinates each, d = P k, that does not change when they are exchanged.

    Every layer gives every particle a function of its own features and of the mean of those of all, the same function
    for each (Zaheer et al. 2017, arXiv 1703.06114); the outputs are those of a perceptron of the mean at the end.
    Added is the quadratic form of that symmetry: of a log density, with network.gaussians = 0, it is what falls far
    out.

    The layers that particles share have stored linearisations, the others are affine layers.

    Parameters:
        coordinates: k; x has those of the first particle first. width: of the shared layers, and of the perceptron.
        layers: the number of shared layers.
    """

    outputs: int
    coordinates: Count = 1
    width: Count = 12
    layers: Count = 1

    @nn.compact
    def __call__(self, x):
        particles = x.reshape(len(x), -1, self.coordinates)
        a = particles
        for _ in range(self.layers):
            mean = jnp.mean(a, axis=1, keepdims=True)
            a = nn.swish(nn.Dense(self.width)(a) + nn.Dense(self.width, use_bias=False)(mean))
        hidden = nn.swish(nn.Dense(self.width)(jnp.mean(a, axis=1)))
        return nn.Dense(self.outputs)(hidden) + nn.Dense(self.outputs, use_bias=False)(self.moments(particles))

    def moments(self, particles):
        """The monomials of degree one and two that are symmetric, of particles (n, P, k): (n, k + k (k + 1)).

        They are the sums over the particles of every coordinate, and of products of two coordinates, and the products
        of two of the former sums, over P.
        """
        first, second = jnp.triu_indices(self.coordinates)
        total = jnp.sum(particles, axis=1)
        own = jnp.sum(particles[..., first] * particles[..., second], axis=1)
        return jnp.concatenate([total, own, total[:, first] * total[:, second] / particles.shape[1]], axis=-1)
