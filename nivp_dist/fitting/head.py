"""Head tuning: with the features frozen, the last layer is a linear least-squares problem.

The ridge pulls towards the *present* head, not towards zero: a head tuned to a target that vanishes, or
that the bias alone can meet, would otherwise lose its features, and with them the tangent space of every
layer below (arXiv 2304.14994, sec. 5.1, tunes towards zero; measured there to raise the residual).
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.galerkin.direct import solve_positive
from nivp_dist.galerkin.jacobian import Operator


class HeadTuning:
    """(theta, points, misfit (n, m)) -> correction (p,), zero outside the heads.

    Minimises sum_i w_i |J_head delta - misfit|^2 + ridge tr(M_head) |delta|^2.
    """

    def __init__(self, galerkin, ridge: float):
        self.galerkin, self.ridge = galerkin, ridge
        self.heads = [i for i, layer in enumerate(galerkin.network.layers) if layer.path[-1] == "head"]
        split = galerkin.points_spec
        self._program = galerkin.program(self._tune, P(), split, P(galerkin.axis))

    def __call__(self, theta, points, misfit):
        return self._program(theta, points, misfit)

    def _tune(self, theta, points, misfit):
        network, axis = self.galerkin.network, self.galerkin.axis
        layers, start = [], 0
        for i in self.heads:
            layer = network.layers[i]
            layers.append(layer._replace(start=start))
            start += layer.rows * layer.columns
        factors = tuple(network.factors(theta, points.x)[1][i] for i in self.heads)
        part = _HeadNetwork(tuple(layers), network.outputs, start)
        operator = Operator.of_factors(part, points.weights, factors)
        matrix, b = jax.lax.psum((operator.matrix(), operator.transpose(misfit)), axis)
        solution = solve_positive(matrix, self.ridge * jnp.trace(matrix), b)
        correction = jnp.zeros(network.size)
        for head, i in zip(layers, self.heads):
            layer = network.layers[i]
            correction = correction.at[layer.start : layer.stop].set(solution[head.start : head.stop])
        return correction


class _HeadNetwork:
    """The part of a network's description that an Operator with cached factors reads."""

    def __init__(self, layers, outputs, size):
        self.layers, self.outputs, self.size = layers, outputs, size
