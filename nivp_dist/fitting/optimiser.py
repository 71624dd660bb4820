"""Minibatch steps of an optimiser of optax, in rounds between two of which a run can be stopped and resumed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from nivp_dist.backend.mesh import whole_program
from nivp_dist.settings.fits import FitSettings

ROUND = 100  # steps in a round
FINAL_RATE = 1e-3  # of the cosine schedule, relative to fit.learning_rate


class OptimiserSteps:
    """fit.steps steps of fit.optimiser under a cosine schedule, for the squared error of a field.

    Args:
        target: (context, x (n, d)) -> (n, m).

    Attributes:
        first: (q,) float64, the state of the optimiser before its first step. It is the same for all parameters, and
            holds the numbers of all leaves of optax's tree: float64 represents its counters exactly.
    """

    def __init__(self, network, sampler, settings: FitSettings, target):
        self.network, self.sampler, self.settings, self.target = network, sampler, settings, target
        schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps, alpha=FINAL_RATE)
        self._rule = getattr(optax, settings.optimiser)(schedule)
        flat, self._tree = ravel_pytree(self._rule.init(jnp.zeros(network.size)))
        self._dtype, self.first = flat.dtype, np.asarray(flat, np.float64)
        self._program = whole_program(sampler.mesh, self._steps)

    def round(self, theta, optimiser, key, density, context):
        """theta (p,) and the state (q,) of the optimiser after one more round.

        Args:
            key: of the round. density: of the points. context: of the target.
        """
        points = self.sampler.draw(key, density, self.settings.batch * ROUND)
        return self._program(theta, optimiser, points, context)

    def _steps(self, theta, optimiser, points, context):
        """ROUND steps, for which the draw of the round is cut into batches."""
        batch = len(points.x) // ROUND
        # Batches take every ROUND-th point: a draw is stratified in order, so each batch has points of all parts.
        batches = jax.tree.map(
            lambda leaf: leaf[: batch * ROUND].reshape(batch, ROUND, *leaf.shape[1:]).swapaxes(0, 1), points
        )

        def step(carry, batch):
            theta, state = carry
            goal = self.target(context, batch.x)
            weights = batch.weights / jnp.sum(batch.weights)

            def loss(theta):
                misfit = self.network.field(theta, batch.x) - goal
                return jnp.sum(weights[:, None] * misfit**2)

            update: Any  # an array like theta; optax declares any tree of arrays
            update, state = self._rule.update(jax.grad(loss)(theta), state, theta)
            return (theta + update, state), None

        state = self._tree(optimiser.astype(self._dtype))
        theta, state = jax.lax.scan(step, (theta, state), batches)[0]
        return theta, ravel_pytree(state)[0].astype(jnp.float64)
