"""The initial fit of the published procedure: Adam on uniform points, then ridge regression of the last layer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from nivp_dist.bench.published import Settings, uniform_points
from nivp_dist.network.network import Network
from nivp_dist.problems.base import Problem

Target = Callable[[jax.Array], jax.Array]  # points (n, d) -> the values (n, m) to be fitted


class PublishedFit:
    """The fit for one network and problem. The network's dtype is that of all but the regression's equations."""

    def __init__(self, network: Network, problem: Problem, settings: Settings, target: Target):
        self.network, self.problem, self.settings, self.target = network, problem, settings, target
        self.dtype = network.dtype
        self._update = jax.jit(self._adam_update)
        self._equations = jax.jit(self._head_equations)
        self._optimiser = optax.adam(settings.learning_rate)

    def begin(self, theta: jax.Array) -> tuple[jax.Array, optax.OptState]:
        """The state of Adam: parameters theta (p,) and moments."""
        return theta.astype(self.dtype), self._optimiser.init(theta.astype(self.dtype))

    def step(self, state: tuple[jax.Array, optax.OptState], key: jax.Array) -> tuple[jax.Array, optax.OptState]:
        """One update of Adam on a new batch."""
        return self._update(*state, key)

    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """Uniform points in the box: (n, d)."""
        return uniform_points(self.problem, self.dtype, key, n)

    def tune_head(self, theta: jax.Array, key: jax.Array) -> jax.Array:
        """theta (p,) with the last layer replaced by the result of a ridge regression, with penalty towards zero."""
        heads = [layer for layer in self.network.layers if layer.path[-1] == "head"]
        entries = jnp.concatenate([jnp.arange(layer.start, layer.stop) for layer in heads])
        theta, size = theta.astype(self.dtype), len(entries)
        matrix, b = jnp.zeros((size, size)), jnp.zeros(size)
        rows = min(self.settings.batch, self.settings.head_points)
        for part in range(self.settings.head_points // rows):
            x = self.sample(jax.random.fold_in(key, part), rows)
            more = self._equations(theta, entries, x)
            matrix, b = matrix + more[0], b + more[1]
        penalty = self.settings.head_ridge * self.settings.head_points / (size // len(heads))
        return theta.at[entries].set(jnp.linalg.solve(matrix + penalty * jnp.eye(size), b).astype(self.dtype))

    def _adam_update(self, theta, moments, key):
        x = self.sample(key, self.settings.batch)
        wanted = self.target(x)
        gradient = jax.grad(lambda theta: jnp.mean((self.network.field(theta, x) - wanted) ** 2))(theta)
        change, moments = self._optimiser.update(gradient, moments, theta)
        return optax.apply_updates(theta, change), moments

    def _head_equations(self, theta, entries, x):
        """Phi^T Phi and Phi^T y. Phi are the columns of J for the last layer, in which the field is linear."""

        def row(x):
            field = lambda head: self.network.field(theta.at[entries].set(head), x[None])[0]  # noqa: E731
            return jax.jacrev(field)(theta[entries])

        phi = jax.vmap(row)(x).reshape(-1, len(entries)).astype(jnp.float64)
        return phi.T @ phi, phi.T @ self.target(x).reshape(-1).astype(jnp.float64)
