"""A physics-informed neural network (PINN) for the same problems, with which ours is compared.

One network of space and time, trained until the equation holds in the whole of space-time. It is written for this
comparison with the practices that are known to matter:

- Features of space with the period, the reflections and the walls of the problem, as our networks have them: boundary
  conditions hold exactly, and no term of the loss is spent on them (Lu et al. 2021, arXiv 2102.04626; Wang, Sankaran,
  Wang, Perdikaris 2023, arXiv 2308.08468; Fourier features: Tancik et al. 2020, arXiv 2006.10739).
- The initial condition holds by construction, u = u0 + (t / T) N or log u = log u0 + (t / T) N (Lagaris, Likas,
  Fotiadis 1998, arXiv physics/9705023): the loss has one term, and no weights between terms are to be found.
- Densities on the whole space as log u, with the residual in log u, as ours.
- New points for every step, stratified in time, so that no point set is overfitted.
- Adam with a learning rate that decays, and with causal weights of the residual in windows of time (Wang, Sankaran,
  Perdikaris 2022, arXiv 2203.07404), which tend to one as the residual vanishes.
- Then a finish with equal weights (``pinn_training``): Gauss-Newton on the residuals in space-time, which is the energy
  natural gradient for least squares (Mueller, Zeinhofer 2023, arXiv 2302.13163), damped, with a line search on a grid;
  or L-BFGS.
- float64 in all stages, which both finishes need.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nivp_dist.network.embedding import frequencies_of
from nivp_dist.network.field import number_of_gaussians
from nivp_dist.network.network import Network, build_network
from nivp_dist.problems.axes import Open
from nivp_dist.problems.base import Problem
from nivp_dist.problems.domains import Axes
from nivp_dist.settings.model import NetworkSettings


class Settings(NamedTuple):
    """Of the training.

    Attributes:
        finish: what follows Adam.
        frequencies: of the embedding of time, see ``network.embedding``.
        adam_steps, batch, learning_rate: Adam; the rate falls to a hundredth by a cosine.
        windows, causality: of Adam, the number of windows in time, of which batch is a multiple, and epsilon of their
            weights (``causal``).
        steps, points: of the finish.
    """

    finish: Literal["gauss_newton", "lbfgs"] = "gauss_newton"
    frequencies: int = 0
    adam_steps: int = 1000
    batch: int = 512
    learning_rate: float = 5e-3
    windows: int = 16
    causality: float = 1.0
    steps: int = 100
    points: int = 2560


class SpaceTime:
    """What a network asks of a problem, for functions of (x, t) in d + 1 dimensions; t is the last axis."""

    wall_data = None

    def __init__(self, problem: Problem, t_end: float):
        self.domain = Axes(*problem.domain.axes, Open(0.0, t_end))
        self.outputs, self.density = problem.outputs, problem.density
        self.even, self.parities = problem.even, problem.parities


class Pinn:
    """The network of a problem with one output, and its residuals, as functions of theta (p,) float64.

    Args:
        network: the settings of our network for the problem; that of the PINN has the same, and time as an input.
        t_end: T; the start is at t = 0.

    Attributes:
        dtype, log_density, field and solution_values: what ``monitoring.evaluation.Scorer`` asks of a network; field is
            that at T.
    """

    def __init__(self, problem: Problem, network: NetworkSettings, t_end: float, settings: Settings):
        self.problem, self.t_end, self.settings = problem, t_end, settings
        counts = [*frequencies_of(network, problem.domain), settings.frequencies]
        # One quadratic form is enough beside log u0.
        changes = {"frequencies": counts, "gaussians": min(number_of_gaussians(network), 1)}
        self.network: Network = build_network(network.model_copy(update=changes), SpaceTime(problem, t_end), outputs=1)
        self.log_density, self.dtype = self.network.log_density, self.network.dtype
        self.size = self.network.size
        self._unit = self._root_mean_square()

    def initialise(self, key):
        """A random theta (p,)."""
        return self.network.initialise(key)

    # The solution ---------------------------------------------------------------------------------

    def value(self, theta, x, t):
        """u, or log u for a density, at one point x (d,) and time t (): ()."""
        z = jnp.concatenate([x, jnp.reshape(t, (1,))])
        free = self.network.field(theta, z[None])[0, 0]
        start = jnp.reshape(self.problem.initial(x), ())
        return (jnp.log(start) if self.log_density else start) + t / self.t_end * free

    def field(self, theta, x):
        """u or log u at T and points x (n, d): (n, 1)."""
        return jax.vmap(lambda x: self.value(theta, x, self.t_end))(x)[:, None]

    def solution_values(self, theta, t, x):
        """u at points x (n, d) and time t: (n, 1)."""
        values = jax.vmap(lambda x: self.value(theta, x, t))(x)[:, None]
        return jnp.exp(values) if self.log_density else values

    # What is to vanish ----------------------------------------------------------------------------

    def residual(self, theta, x, t):
        """T (u_t - L[u]) in units of u0 at one point x (d,) and time t (), of log u where that is the field: ()."""
        value = lambda x, t: self.value(theta, x, t)  # noqa: E731
        return self.t_end / self._unit * residual_of(self.problem, value, x, t, self.log_density)

    def points(self, key, n: int):
        """Points in space-time: x (n, d), and t (n,) in increasing order, one in each of n equal intervals."""
        for_places, for_times = jax.random.split(key)
        t = self.t_end * (jnp.arange(n) + jax.random.uniform(for_times, (n,))) / n
        return self._places(for_places, n), t

    def _places(self, key, n: int):
        """n points (n, d): uniform in a bounded domain, otherwise normal about its centre, as wide in all directions
        as the start is in its widest, so that a solution may turn."""
        domain = self.problem.domain
        shape = (n, domain.dimension)
        if domain.bounded:
            return jax.random.uniform(key, shape, minval=jnp.asarray(domain.lower), maxval=jnp.asarray(domain.upper))
        return jnp.asarray(domain.centre) + float(np.max(domain.scale)) * jax.random.normal(key, shape)

    def _root_mean_square(self) -> float:
        """Of u0 over a bounded domain; of a field log u, one, since residuals are relative there."""
        if self.log_density:
            return 1.0
        places = self._places(jax.random.key(0), 20_000)
        return float(jnp.sqrt(jnp.mean(jax.jit(jax.vmap(self.problem.initial))(places) ** 2)))

    # Loss -----------------------------------------------------------------------------------------

    def residuals(self, theta, points):
        """The residuals (n,) over the root of n."""
        return jax.vmap(self.residual, (None, 0, 0))(theta, *points) / np.sqrt(len(points[1]))

    def jacobian(self, theta, points):
        """(residuals (n,), their derivatives (n, p)), both over the root of n."""
        residuals, rows = jax.vmap(jax.value_and_grad(self.residual), (None, 0, 0))(theta, *points)
        root = np.sqrt(len(points[1]))
        return residuals / root, rows / root

    def loss(self, theta, points):
        """The mean of the squares of the residual: ()."""
        return jnp.sum(self.residuals(theta, points) ** 2)

    def causal_loss(self, theta, points):
        """The same with causal weights, which derivatives do not see: ()."""
        squares = self.residuals(theta, points) ** 2
        weights = causal(squares, self.settings.windows, self.settings.causality)
        return jnp.sum(jax.lax.stop_gradient(weights) * squares)


def residual_of(problem: Problem, value: Callable, x, t, log_density: bool = False):
    """u_t - L[u] of a function value(x, t) at one point x (d,) and time t (): (); of a field log u, (u_t - L[u]) / u,
    for a linear L."""
    rate = jax.jvp(lambda t: value(x, t), (t,), (jnp.ones_like(t),))[1]
    here = value(x, t) if log_density else 0.0
    u = (lambda y: jnp.exp(value(y, t) - here)) if log_density else (lambda y: value(y, t))
    return rate - jnp.reshape(problem.rhs(u, x, t), ())


def causal(terms, windows: int, epsilon: float):
    """The causal weights (n,) of the terms (n,) of a loss in the order of time: exp(-epsilon times the sum of the terms
    of all earlier windows)."""
    losses = jnp.sum(terms.reshape(windows, -1), axis=1)
    return jnp.repeat(jnp.exp(-epsilon * (jnp.cumsum(losses) - losses)), len(terms) // windows)
