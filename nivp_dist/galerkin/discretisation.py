"""The equation on collocation points: the operator J of the tangent space, the right-hand side f and the field.

All functions act on one device's points and are called inside of `shard_map`. Only the integrals of a nonlocal equation
communicate: one sum over the devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nivp_dist.backend.fixed_order import parts_here, sum_over_devices, sum_over_parts
from nivp_dist.backend.mesh import AXIS, memory_of, multiple_of_points, platform_of
from nivp_dist.backend.point_blocks import in_blocks
from nivp_dist.galerkin.jacobian import Operator, largest_chunk
from nivp_dist.network.network import Network
from nivp_dist.points.points import Points, pad
from nivp_dist.problems.base import Problem
from nivp_dist.problems.nonlocal_terms import nodes
from nivp_dist.problems.wall_data import rate_without_lifting
from nivp_dist.settings.model import SamplingSettings


class Discretisation(NamedTuple):
    """A problem, the network that represents its field, how many points there are, and the mesh that they lie on.

    Attributes:
        sampling: ``points`` (over all devices) and ``chunk`` (points of a device held at once) are used here.
        norm: "field", that of the network's field, or "energy", that of the problem's energy (``galerkin.energy``).
    """

    network: Network
    problem: Problem
    sampling: SamplingSettings
    mesh: Mesh
    norm: Literal["field", "energy"] = "field"

    @property
    def chunk(self) -> int:
        """The points of a device that are held at once, from sampling.chunk; 0: all of them."""
        chunk = self.sampling.chunk
        return largest_chunk(self.network, memory_of(self.mesh)) if chunk == "auto" else chunk

    def operator(self, theta, points, basis=None, precision=jnp.float64) -> Operator:
        """J at theta (p,) on points, with respect to parameters in a basis (None: those of the network)."""
        weights, chunk = points.weights, self.chunk
        platform, parts = platform_of(self.mesh), parts_here()
        return Operator.build(self.network, theta, points.x, weights, chunk, precision, basis, platform, parts)

    def rhs(self, theta, t, points):
        """The field's time derivative f at points and time t: (n, m) float64."""
        integrals = self.integrals(theta, t, points)
        rate = lambda x: self.field_rate_at(theta, t, x.astype(self.network.dtype), integrals)  # noqa: E731
        return self._at_points(rate, points.x)

    def integrals(self, theta, t, points) -> tuple:
        """What the problem's rhs takes beside u, x and t: () or (values (k,),), the integrals that it depends on.

        Every device sums over its share of the points, or of the problem's own nodes, and all get the sum.
        """
        problem, network = self.problem, self.network
        if not callable(problem.integrals):
            return ()
        x, weights = self._nodes() or (points.x, points.measure)
        u = self.network.solution(theta, t)
        densities = self._at_points(lambda point: problem.integrals(u, point.astype(network.dtype), t), x)
        sums = sum_over_parts(jnp.matmul, weights, densities)
        return (sum_over_devices(sums).astype(network.dtype),)

    def _nodes(self):
        """This device's share of the nodes of the problem's quadrature and their weights, or None."""
        if (rule := nodes(self.problem)) is None:
            return None
        x, weights = rule
        padded = pad(Points(jnp.asarray(x), jnp.asarray(weights), jnp.asarray(weights)), multiple_of_points(self.mesh))
        device = jax.lax.axis_index(AXIS)
        share = lambda array: array.reshape(self.mesh.size, -1, *array.shape[1:])[device]  # noqa: E731
        return share(padded.x), share(padded.measure)

    def field_rate_at(self, theta, t, point, integrals: tuple = ()):
        """f at one point (d,) of the network's dtype: (m,)."""
        f, u = self._rhs_and_u(theta, t, point, integrals)
        return self.network.as_field_rate(rate_without_lifting(self.problem, f, point, t), u(point))

    def problem_rhs(self, theta, t, x, integrals: tuple):
        """The problem's rhs, which is L[u], or L[u] / u for a linear L and a field log u: (n, m) float64."""
        return self._at_points(lambda point: self.problem_rhs_at(theta, t, point, integrals), x)

    def problem_rhs_at(self, theta, t, point, integrals: tuple):
        """The same at one point (d,): (m,)."""
        return self._rhs_and_u(theta, t, point.astype(self.network.dtype), integrals)[0]

    def _rhs_and_u(self, theta, t, point, integrals: tuple) -> tuple[jax.Array, Callable]:
        u = self.network.solution(theta, t, unit=point if self.problem.linear else None)
        return jnp.reshape(self.problem.rhs(u, point, t, *integrals), (self.network.outputs,)), u

    def _at_points(self, function, x):
        return self.in_blocks(jax.vmap(function), x).astype(jnp.float64)

    def residual(self, theta, t, v, points):
        """What the velocity v (p,) leaves of the equation at every point, in the components of the norm.

        Returns: the misfit of the rate, the rate f by the equation, and the solution itself, (n, k) each.
        """
        if self.norm == "field":
            f = self.rhs(theta, t, points)
            return self.rate(theta, v, points) - f, f, self.solution_field(theta, t, points.x)
        f = self.energy_rate(theta, t, points)
        energy = lambda theta: self._at_points(partial(self.energy_at, theta), points.x)  # noqa: E731
        solution, rate = jax.jvp(energy, (theta,), (v,))
        if self.network.lifting is not None:  # the lifting has a part in the energy that errors are relative to
            whole = self.network.solution(theta, t)
            solution = self._at_points(lambda x: self.problem.energy(whole, x.astype(self.network.dtype)), points.x)
        return rate - f, f, solution

    def energy_at(self, theta, point):
        """The components of the problem's energy at one point (d,): (k,) float64."""
        network = self.network
        components = self.problem.energy(network.function(theta), point.astype(network.dtype))
        return components.astype(jnp.float64)

    def energy_rate(self, theta, t, points):
        """Their time derivatives by the equation at points: (n, k) float64. They are linear in the solution."""
        u, integrals = self.network.solution(theta, t), self.integrals(theta, t, points)
        rhs = lambda y: rate_without_lifting(self.problem, self.problem.rhs(u, y, t, *integrals), y, t)  # noqa: E731
        return self._at_points(lambda point: self.problem.energy(rhs, point.astype(self.network.dtype)), points.x)

    def field(self, theta, x):
        """The network's field at x (n, d): (n, m)."""
        return self.in_blocks(partial(self.network.field, theta), x)

    def solution_field(self, theta, t, x):
        """What errors are relative to: the field of the solution at x (n, d) and time t, (n, m).

        It is the network's field, which is what the parameters change, and the lifting of wall data."""
        field, lifting = self.field(theta, x), self.network.lifting
        if lifting is None:
            return field
        return field + self.network.as_field(self.in_blocks(partial(lifting.at_points, t=t), x))

    def values(self, theta, t, x):
        """u at x (n, d) and time t: (n, m)."""
        return self.in_blocks(partial(self.network.solution_values, theta, t), x)

    def in_blocks(self, function, x):
        """function(x) for a function that acts on every point by itself, in blocks that fit into memory."""
        return in_blocks(function, x, at_most=self.chunk)

    def rate(self, theta, v, points):
        """The field's rate of change J v at every point, for a velocity v (p,): (n, m)."""
        return self.operator(theta, points).apply(v)
