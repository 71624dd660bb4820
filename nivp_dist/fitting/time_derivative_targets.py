"""Fitting the field and its time derivative together.

An output that starts at zero (u_t of a wave at rest) has a head of zeros. The derivatives by the trunk below it then
vanish, and its time derivative can be represented by the last features alone, which were fitted to something else. The
same holds for a trunk beside a quadratic form that represents nearly all of the solution. So the network that is fitted
has a second head for f = L[u], which is dropped when the fit is done: the features then span f.

Measured without and with it: the residual at t = 0 of a wave 42 % and 2.5 %; the error of fokker_planck_trap_5d at
t = 0.75 7.3e-3 and 3.1e-3; the first residual of double_well_10d 93 % and 8 %. For other fields log u it gains little:
vlasov_6d and double_well_5d have the same residuals after a hundredth of a time unit, and their fits take several times
as long.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.fixed_order import sum_over_devices, sum_over_parts
from nivp_dist.backend.mesh import AXIS, program
from nivp_dist.backend.point_blocks import in_blocks
from nivp_dist.network.network import Network, build_network, restrict
from nivp_dist.network.own_checks import require_first_outputs
from nivp_dist.points.points import Points
from nivp_dist.problems.base import Problem
from nivp_dist.problems.nonlocal_terms import further_arguments
from nivp_dist.problems.wall_data import rate_without_lifting
from nivp_dist.settings.model import Config

# The norm that the time derivative is scaled to, relative to that of the field: large enough for the fit to see it, and
# too small to be fitted at the expense of the field.
SHARE = 0.1


class Source(NamedTuple):
    """The function that a fit approximates.

    Attributes:
        field: (context, x (n, d)) -> (n, m). function: context -> (u as a function of one point, t).
    """

    field: Callable
    function: Callable


class TimeDerivativeTargets:
    """The network with a second head, and its target: the field, and beside it the scaled time derivative.

    Attributes:
        network: with 2 m outputs. narrow: the network of the run, with m.

    Raises InputError if the latter is no part of the former, as may be with a network of the user's own.
    """

    def __init__(self, settings, problem: Problem, network: Network, mesh: Mesh):
        self.problem, self.narrow, self.mesh = problem, network, mesh
        self.network = build_network(settings, problem, 2 * network.outputs)
        require_first_outputs(self.network, network)
        self._programs: dict[Source, Callable] = {}

    @staticmethod
    def wanted(config: Config, network: Network) -> bool:
        """Whether fit.time_derivative_targets asks for it. "auto" does where a head may be zero at the start: with
        several outputs of one trunk, and beside the quadratic form of an exponential on a box.

        Not on the whole space, where the factor of the time derivative is undetermined where u vanishes: two of four
        such fits diverged."""
        if config.fit.time_derivative_targets != "auto":
            return config.fit.time_derivative_targets
        if network.outputs > 1:
            return config.network.trunk == "shared"
        return network.form == "exponential" and network.domain.bounded

    def scales(self, source: Source, context, points, size: float = 0.0):
        """Factors (m,) of the time derivatives that give them SHARE of the norm of the field; one where they vanish.

        size: a norm that is counted with where that of the field is smaller."""
        if source not in self._programs:
            split = Points._make(P(AXIS) for _ in Points._fields)
            self._programs[source] = program(self.mesh, partial(self._scales, source), P(), split, P())
        return self._programs[source](context, points, size)

    def target(self, source: Source, context, scales, x):
        """The target (n, 2 m) at x (n, d)."""
        return jnp.concatenate([source.field(context, x), scales * self._rates(source, context, x)], axis=-1)

    def restrict(self, theta):
        """The parameters (p,) of the network of the run, from those of the widened one."""
        return restrict(theta, self.network, self.narrow)

    def _rates(self, source, context, x):
        u, t = source.function(context)
        integrals = further_arguments(self.problem, u, t)

        def at(point):
            f = jnp.reshape(self.problem.rhs(u, point, t, *integrals), (self.narrow.outputs,))
            return self.narrow.as_field_rate(rate_without_lifting(self.problem, f, point, t), u(point))

        return jax.vmap(at)(x)

    def _scales(self, source, context, points, size):
        """As ``scales``, inside of `shard_map`, by all devices on their own points."""
        field = in_blocks(partial(source.field, context), points.x)
        rates = in_blocks(partial(self._rates, source, context), points.x)

        def squares(weights, field, rates):
            return jnp.sum(weights[:, None] * field**2), jnp.sum(weights[:, None] * rates**2, axis=0)

        of_field, of_rates = sum_over_devices(sum_over_parts(squares, points.weights, field, rates))
        whole, norms = jnp.maximum(jnp.sqrt(of_field), size), jnp.sqrt(of_rates)
        return jnp.where(norms > 0, SHARE * whole / jnp.where(norms > 0, norms, 1.0), 1.0)
