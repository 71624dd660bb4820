"""Fitting the field and its time derivative together.

An output that starts at zero (u_t of a wave at rest) has a head of zeros, and the trunk below it vanishes from its
tangent space: all that is left to represent its time derivative are the last features, as fitted to something else.
The same holds for a trunk beside a quadratic form that nearly does without it. So the fit gets a second head that is
asked for f = L[u], and is dropped when the fit is done: the features then span f.

Measured: the residual at t = 0 of a wave 42 % without and 2.5 % with; the error of fokker_planck_trap_5d at t = 0.75
7.3e-3 and 3.1e-3. Of fields log u little is gained: vlasov_6d and double_well_5d have the residuals that they have
without, a hundredth of a time unit later, and their fits take several times as long. In ten dimensions it is another
matter: the first residual of double_well_10d is 93 % without, 8 % with.
"""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp

from nivp_dist.network.network import Network, build_network, restrict
from nivp_dist.problems.base import Problem
from nivp_dist.settings.model import Config

SHARE = 0.1  # of the field's norm that the companion is scaled to: enough to be seen, too little to take over


class Source(NamedTuple):
    """What is fitted: field(context, x (n, d)) -> (n, m); function(context) -> (u as a function of one point, t)."""

    field: Callable
    function: Callable


class TimeDerivativeTargets:
    """The widened network and its target: the field beside its time derivative, in units of its norm.

    Attributes:
        network: with 2 m outputs.
    """

    def __init__(self, settings, problem: Problem, network: Network):
        self.problem, self.narrow = problem, network
        self.network = build_network(settings, problem, 2 * network.outputs)
        self._norms = jax.jit(self._measure, static_argnums=0)

    @staticmethod
    def wanted(config: Config, network: Network) -> bool:
        """As fit.time_derivative_targets says. auto: where a head may be left at zero, one of several outputs, or one beside a
        quadratic form of u on a box.

        On the whole space the signed factor is free where u vanishes: of four such fits two diverged."""
        if config.fit.time_derivative_targets != "auto":
            return config.fit.time_derivative_targets
        if network.outputs > 1:
            return config.network.trunk == "shared"
        return network.form == "exponential" and network.domain.bounded

    def scales(self, source: Source, context, points):
        """SHARE of the field's norm over that of its time derivative: (m,). One where that vanishes."""
        return self._norms(source, context, points)

    def target(self, source: Source, context, scales, x):
        """(n, 2 m) at x (n, d)."""
        return jnp.concatenate([source.field(context, x), scales * self._rates(source, context, x)], axis=-1)

    def restrict(self, theta):
        """theta of the network proper."""
        return restrict(theta, self.network, self.narrow)

    def _rates(self, source, context, x):
        u, t = source.function(context)

        def at(point):
            f = jnp.reshape(self.problem.rhs(u, point, t), (self.narrow.outputs,))
            return self.narrow.as_field_rate(f, u(point))

        return jax.vmap(at)(x)

    def _measure(self, source, context, points):
        weights = points.weights[:, None]
        whole = jnp.sqrt(jnp.sum(weights * source.field(context, points.x) ** 2))
        norms = jnp.sqrt(jnp.sum(weights * self._rates(source, context, points.x) ** 2, axis=0))
        return jnp.where(norms > 0, SHARE * whole / jnp.where(norms > 0, norms, 1.0), 1.0)
