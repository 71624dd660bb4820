"""The problems that both procedures are set to, and the network that they share."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.config import Config, ProblemSettings
from nivp_dist.galerkin.velocity import AXIS, Points
from nivp_dist.problems import registry
from nivp_dist.problems.domains import Box
from nivp_dist.simulation import Simulation

# The published architecture: 3 layers of 100, L = 5; one trunk, without which the wave does not evolve at all.
NETWORK = {"form": "direct", "width": 100, "depth": 3, "frequencies": 5, "alpha": 1.0, "trunk": "shared"}
SMALL = NETWORK | {"width": 8, "depth": 1, "frequencies": 2}
RIGHT_HAND_SIDES = ("advection", "wave", "fokker_planck_trap", "vlasov")


def available(names) -> list[str]:
    """Those of the problems that are shipped, on a box (uniform points are all that the published procedure knows)."""
    known = [name for name in names if name in registry.SHIPPED]
    return [name for name in known if isinstance(registry.load(ProblemSettings(name=name)).domain, Box)]


def simulation(name: str, network: dict, **sections) -> Simulation:
    """Our procedure for a shipped problem. sections: of the configuration, as dictionaries."""
    config = Config(problem={"name": name}, network=network, devices=1, **sections)
    return Simulation(config, registry.load(config.problem))


def uniform_points(sampler, key, domain, n: int) -> Points:
    """n uniform points of equal weight on our mesh: those of the published procedure."""
    lower, upper = jnp.asarray(domain.lower), jnp.asarray(domain.upper)
    x = lower + (upper - lower) * jax.random.uniform(key, (n, domain.dimension))
    points = Points(x, jnp.full(n, 1.0 / n), jnp.full(n, domain.volume / n))
    return jax.device_put(points, NamedSharding(sampler.mesh, P(AXIS)))
