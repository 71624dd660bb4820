"""Head tuning: with the features frozen, the last layer is a linear least-squares problem.

The ridge penalty is on the change of the head, not on the head itself. With a penalty on the head (arXiv 2304.14994,
sec. 5.1) a target that vanishes, or that the bias alone can meet, drives the weights of the head to zero, and with them
the derivatives by all layers below it: the tangent space is lost, and the residual of the velocity rises.
"""

import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import sum_over_devices
from nivp_dist.backend.mesh import platform_of
from nivp_dist.backend.point_blocks import sum_in_blocks
from nivp_dist.galerkin.direct import solve_positive
from nivp_dist.galerkin.jacobian import Operator


class HeadTuning:
    """(theta (p,), points, misfit (n, m)) -> correction delta (p,), zero outside the heads.

    delta minimises sum_i w_i |J_head delta - misfit|^2 + ridge tr(M_head) |delta|^2.
    """

    def __init__(self, galerkin, ridge: float):
        self.galerkin, self.ridge = galerkin, ridge
        self.heads = galerkin.network.heads
        split = galerkin.points_spec
        self._program = galerkin.program(self._tune, P(), split, P(galerkin.axis))

    def __call__(self, theta, points, misfit):
        return self._program(theta, points, misfit)

    def _tune(self, theta, points, misfit):
        network = self.galerkin.network
        layers, start = [], 0
        for i in self.heads:
            layer = network.layers[i]
            layers.append(layer._replace(start=start))
            start += layer.rows * layer.columns
        part = _HeadNetwork(tuple(layers), network.outputs, start)

        def normal_equations(weights, x, misfit):
            factors = tuple(network.factors(theta, x)[1][i] for i in self.heads)
            operator = Operator.from_factors(part, weights, factors, platform=platform_of(self.galerkin.mesh))
            return operator.matrix(), operator.transpose(misfit)

        chunk = self.galerkin.discretisation.chunk
        sums = sum_in_blocks(normal_equations, points.weights, points.x, misfit, at_most=chunk)
        matrix, b = sum_over_devices(sums)
        solution = solve_positive(matrix, self.ridge * jnp.trace(matrix), b)
        correction = jnp.zeros(network.size)
        for head, i in zip(layers, self.heads):
            layer = network.layers[i]
            correction = correction.at[layer.start : layer.stop].set(solution[head.start : head.stop])
        return correction


class _HeadNetwork:
    """The heads as a network of their own: the attributes that ``jacobian.Operator`` reads."""

    def __init__(self, layers, outputs, size):
        self.layers, self.outputs, self.size = layers, outputs, size
