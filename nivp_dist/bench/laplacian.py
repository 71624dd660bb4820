"""The time of a right-hand side with a Laplacian for one point, against the dimension.

Ours is compared with the published way, the trace of a Hessian by forward over reverse differentiation, and with one
value of the network.
"""

from functools import partial

import jax
import jax.numpy as jnp

from nivp_dist.bench.timing import interleaved
from nivp_dist.network.network import build_network
from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap
from nivp_dist.settings.model import NetworkSettings

DIMENSIONS, QUICK = (2, 5, 10, 20, 50, 100), (2, 5)
WIDTH, DEPTH, FREQUENCIES = 100, 3, 2
MAX_POINTS, MAX_PASSES = 2000, 40_000  # points; points times dimensions, which bounds the time of a call


def measure(d: int, rounds: int, width: int = WIDTH) -> dict:
    """A line of the table: seconds for a point of a value, of the trap's right-hand side, and of that by a Hessian."""
    problem, n = FokkerPlanckTrap(dimension=d), min(MAX_POINTS, MAX_PASSES // d)
    settings = NetworkSettings(form="direct", width=width, depth=DEPTH, frequencies=FREQUENCIES)
    network = build_network(settings, problem)
    theta = network.initialise(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (n, d), jnp.float64, -1.0, 1.0)
    programs = {
        "value": network.values,
        "rhs": lambda theta, x: jax.vmap(lambda point: problem.rhs(network.function(theta), point, 0.0))(x),
        "hessian": lambda theta, x: jax.vmap(lambda point: _by_hessian(problem, network.function(theta), point))(x),
    }
    calls = {name: partial(jax.jit(program), theta, x) for name, program in programs.items()}
    difference = jnp.max(jnp.abs(calls["rhs"]() - calls["hessian"]())) / jnp.max(jnp.abs(calls["rhs"]()))
    samples = interleaved(calls, rounds)
    return {
        "d": d,
        "n": n,
        "p": network.size,
        "seconds_a_point": {name: samples.median(name) / n for name in calls},
        "in_values": samples.ratio("rhs", "value"),
        "ratio": samples.ratio("hessian", "rhs"),
        "difference": float(difference),
        "spread": samples.spread("rhs"),
    }


def _by_hessian(problem, u, x):
    """The right-hand side of the trap, its Laplacian as the trace of a Hessian."""

    def flux(x):
        return u(x) * (problem.drift_target - x + problem.alpha * (jnp.mean(x) - x))

    return problem.diffusion * jnp.trace(jax.jacfwd(jax.grad(u))(x)) - jnp.trace(jax.jacfwd(flux)(x))
