"""The equation on collocation points: the operator J of the tangent space, the right-hand side f and the field.

All functions act on one device's points. They are called inside of `shard_map` and do not communicate.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nivp_dist.galerkin.jacobian import Operator
from nivp_dist.network.network import Network
from nivp_dist.problems.base import Problem
from nivp_dist.settings.model import SamplingSettings


class Discretisation(NamedTuple):
    """A problem, the network that represents its field, how many points there are, and the mesh that they lie on.

    Attributes:
        sampling: ``points`` (over all devices) and ``chunk`` (points of a device held at once) are used here.
    """

    network: Network
    problem: Problem
    sampling: SamplingSettings
    mesh: Mesh

    def operator(self, theta, points, basis=None, precision=jnp.float64) -> Operator:
        """J at theta (p,) on points, with respect to parameters in a basis (None: those of the network)."""
        weights, chunk = points.weights, self.sampling.chunk
        return Operator.build(self.network, theta, points.x, weights, chunk, precision, basis)

    def rhs(self, theta, t, x):
        """The field's time derivative f at x (n, d) and time t: (n, m) float64."""
        network = self.network

        def at(point):
            point = point.astype(network.dtype)
            u = network.function(theta, unit=point if self.problem.linear else None)
            f = jnp.reshape(self.problem.rhs(u, point, t), (network.outputs,))
            return network.as_field_rate(f, u(point))

        if self._in_chunks(x):
            return jax.lax.map(at, x, batch_size=self.sampling.chunk).astype(jnp.float64)
        return jax.vmap(at)(x).astype(jnp.float64)

    def field(self, theta, x):
        """The network's field at x (n, d): (n, m)."""
        if self._in_chunks(x):
            at = lambda point: self.network.field(theta, point[None])[0]  # noqa: E731
            return jax.lax.map(at, x, batch_size=self.sampling.chunk)
        return self.network.field(theta, x)

    def rate(self, theta, v, points):
        """The field's rate of change J v at every point, for a velocity v (p,): (n, m)."""
        return self.operator(theta, points).apply(v)

    def _in_chunks(self, x) -> bool:
        return 0 < self.sampling.chunk < len(x)
