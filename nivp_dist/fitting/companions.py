"""Fitting u and its time derivative together, for systems on a shared trunk.

An output that starts at zero (u_t of a wave at rest) has a head of zeros, and the trunk below it vanishes from its
tangent space: all that is left to represent its time derivative are the last features, as fitted to something
else. So the fit gets a second head that is asked for f = L[u], and is dropped when the fit is done: the features
then span f, and the residual at t = 0 is that of the fit.
"""

from typing import Callable

import jax
import jax.numpy as jnp

from nivp_dist.networks import Network, build, restrict
from nivp_dist.problems.base import Problem

SHARE = 0.1  # of the norm of u that the companion f is scaled to: enough to be seen, too little to take over


class Companions:
    """The widened network and its target: u beside f, f scaled to SHARE of the norm of u.

    Attributes:
        network: with 2 m outputs.
    """

    def __init__(self, settings, problem: Problem, network: Network):
        self.problem, self.narrow = problem, network
        self.network = build(settings, problem, 2 * network.outputs)
        self._norms = jax.jit(self._measure, static_argnums=0)

    @staticmethod
    def wanted(settings, network: Network) -> bool:
        """Where the trunk is shared by several outputs, and the field is u itself."""
        return network.outputs > 1 and settings.trunk == "shared" and settings.form in ("auto", "direct")

    def scales(self, function: Callable, context, points):
        """SHARE |u| / |f_k| over the points, for every output: (m,). One where f_k vanishes."""
        return self._norms(function, context, points)

    def target(self, function: Callable, context, scales, x):
        """(n, 2 m) at x (n, d). function(context) gives (u as a function of one point, t)."""
        u, f = self._values(function, context, x)
        return jnp.concatenate([u, scales * f], axis=-1)

    def restrict(self, theta):
        """theta of the network proper."""
        return restrict(theta, self.network, self.narrow)

    def _values(self, function, context, x):
        u, t = function(context)
        values, rates = jax.vmap(u)(x), jax.vmap(lambda point: self.problem.rhs(u, point, t))(x)
        return self.narrow.as_field(values), self.narrow.as_field_rate(rates, values)

    def _measure(self, function, context, points):
        u, f = self._values(function, context, points.x)
        norm_u = jnp.sqrt(jnp.sum(points.weights[:, None] * u**2))
        norms_f = jnp.sqrt(jnp.sum(points.weights[:, None] * f**2, axis=0))
        return jnp.where(norms_f > 0, SHARE * norm_u / jnp.where(norms_f > 0, norms_f, 1.0), 1.0)
