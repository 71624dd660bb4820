"""Points at the ends of simulated paths: samples of a density whose equation describes independent particles.

A density with u_t = -div(a u) + tr(B B^T Hess u) / 2 is that of the process dx = a dt + B dW (Risken, The Fokker-Planck
Equation, sec. 4.7); without B the paths are the characteristics. Their ends are samples of u, however far it is from a
Gaussian, and whatever errors the network has made. Every draw begins anew at the start of the run: no paths are kept.

A share of the paths reaches into the tails: they start where ``Sampler.draw`` draws points for u0, in Gaussians whose
covariances are larger by ``sampling.inflation``, and their B B^T is larger by the same factor. Three ways to place
points in the tails were measured for vlasov_6d at t = 3, with width 32, 6,000 points, one seed: relative L2 error,
error of log u (root mean square under u), mass.

    15 % as here, inflation 2                                            7.4e-2   0.20   1.03
    20 % of the points from Gaussians fitted to u at t, inflation 1.5    1.1e-1   0.54   1.3
    10 % of the paths, from one Gaussian of twice the variance           5.3e-2   0.20   130
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from nivp_dist.backend import random_keys
from nivp_dist.backend.fixed_order import map_parts
from nivp_dist.backend.mesh import AXIS, pointwise, program, whole_program
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.points import selection
from nivp_dist.points.mixture import Density
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems.base import Problem
from nivp_dist.settings.automatic import inflation, uniform_fraction


class Ends(NamedTuple):
    """Ends of paths, sharded over the mesh and padded to a multiple of the devices.

    Attributes:
        x: (n, d). is_sample: (n,), whether it is a sample of u, and not one in the tails. is_drawn: (n,), False for
            padding.
    """

    x: jax.Array
    is_sample: jax.Array
    is_drawn: jax.Array


class Paths:
    """Draws ends of paths for one run.

    Args:
        sampler: of the run; its Gaussians, fitted to u0, are the candidates of the starts.
        t_start: the time of u0.

    Attributes, compiled programs:
        starts: (key, candidates, log u0 at them (N,), n) -> n of them, and whether a path from there is a sample (n,).
        walk: (key, t, x (n, d), is_sample) -> the ends (n, d), and how many of them are not finite.

    Raises InputError: the problem does not define what the paths are, or its density is not on the whole space.
    """

    def __init__(self, problem: Problem, sampler: Sampler, t_start: float = 0.0):
        self.problem, self.sampler, self.settings, self.t_start = problem, sampler, sampler.settings, t_start
        if problem.drift is None or not sampler.log_density or sampler.domain.bounded_axes:
            raise InputError(
                "sampling.method = 'paths' needs a density on the WholeSpace whose problem defines drift(x, t): "
                "use 'solution' or 'density'"
            )
        mesh = sampler.mesh
        self._log_initial = pointwise(mesh, lambda _, x: jnp.log(jax.vmap(problem.initial)(x)))
        self.starts = whole_program(mesh, self._choose, P(AXIS), static_argnames="n")
        self.walk = program(mesh, self._along_paths, P(), P(), P(AXIS), P(AXIS), out_specs=(P(AXIS), P()))

    def draw(self, key, initial_density: Density, t: float, n: int) -> Ends:
        """The ends of n paths at time t. Raises RunFailed if they are not finite."""
        candidates = self.sampler.draw(key, initial_density, n * self.settings.oversampling)
        starts, is_sample = self.starts(key, candidates, self._log_initial(None, candidates.x), n=n)
        x, lost = self.walk(key, t, starts.x, is_sample)
        if int(lost):
            raise RunFailed(
                f"{int(lost)} paths of sampling.method = 'paths' are not finite at t = {t:.6g}: raise "
                f"sampling.path_steps (now {self.settings.path_steps}), or use sampling.method = 'solution'"
            )
        return Ends(x, is_sample, starts.measure > 0)

    def _choose(self, key, candidates, log_initial, *, n):
        keys = random_keys.solution_selection_key(key), random_keys.path_part_key(key)
        share, mesh = uniform_fraction(self.settings, field=False), self.sampler.mesh
        return selection.select_from_both(*keys, candidates, log_initial, n, mesh, share=share)

    def _along_paths(self, key, t, x, is_sample):
        """The ends (n, d) of paths from this device's points x (n, d), and how many on all devices are not finite.

        It is called inside of ``shard_map``.
        """
        rows = jax.lax.axis_index(AXIS) * len(x) + jnp.arange(len(x))
        widths = jnp.where(is_sample, 1.0, jnp.sqrt(inflation(self.settings)))[:, None]
        times = self.t_start, t, self.settings.path_steps
        x = map_parts(lambda x, rows, widths: along(self.problem, key, x, rows, *times, widths), x, rows, widths)
        return x, jax.lax.psum(jnp.sum(~jnp.isfinite(x).all(axis=-1)), AXIS)


def along(problem: Problem, key, x, rows, start, end, steps: int, widths: Any = 1.0):
    """The ends (n, d), at the time `end`, of paths from points x (n, d) at the time `start`.

    Strang splitting: noise of half a step before and after a step along the drift, which is taken by the classical
    Runge-Kutta method. The law of the ends is of second order in the step, without noise of fourth.

    Args:
        rows: (n,), the numbers of the paths, which decide their noise. widths: factors (n, 1) of the noise.
    """
    h, drift, noise = (end - start) / steps, jax.vmap(problem.drift, (0, None)), problem.noise

    def diffuse(x, number, time, duration):
        if noise is None:
            return x
        matrix = jnp.asarray(noise(time), x.dtype)
        keys = jax.vmap(lambda row: random_keys.path_noise_key(key, number, row))(rows)
        z = jax.vmap(lambda key: jax.random.normal(key, matrix.shape[1:]))(keys)
        return x + jnp.sqrt(duration) * widths * (z @ matrix.T)

    def step(number, x):
        now = start + number * h
        x = _runge_kutta(drift, x, now, h)
        duration = jnp.where(number == steps - 1, h / 2, h)  # the halves after one step and before the next in one
        return diffuse(x, number + 1, now + h, duration)

    return jax.lax.fori_loop(0, steps, step, diffuse(x, 0, start + 0.0 * h, h / 2))


def _runge_kutta(slope, x, t, h):
    k1 = slope(x, t)
    k2 = slope(x + h / 2 * k1, t + h / 2)
    k3 = slope(x + h / 2 * k2, t + h / 2)
    k4 = slope(x + h * k3, t + h)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
