"""The problems and the network on which ours and the published procedure are compared."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nivp_dist.backend.mesh import AXIS
from nivp_dist.points.points import Points
from nivp_dist.problems import registry
from nivp_dist.problems.base import Problem
from nivp_dist.problems.domains import Box
from nivp_dist.problems.vlasov import Vlasov
from nivp_dist.run.simulation import Simulation
from nivp_dist.settings.model import Config, ProblemSettings

# The published architecture: 3 layers of 100, L = 5. One trunk for all outputs: with several, the published procedure
# does not evolve the wave at all.
NETWORK = {"form": "direct", "width": 100, "depth": 3, "frequencies": 5, "alpha": 1.0, "trunk": "shared"}
SMALL = NETWORK | {"width": 8, "depth": 1, "frequencies": 2}
RIGHT_HAND_SIDES = ("advection", "wave", "fokker_planck_trap", "vlasov")


class BoxedVlasov(Vlasov):
    """Vlasov as published: u itself on [-1, 1]^6, zero on the walls. It has velocities there, but no solution."""

    density = False

    @property
    def domain(self) -> Box:
        return Box(6, -1.0, 1.0)


def problem(settings: ProblemSettings) -> Problem:
    """A shipped problem on a box: the published procedure draws uniform points only."""
    return BoxedVlasov() if settings.name == "vlasov" else registry.load(settings)


def simulation(name: str, network: dict, **sections) -> Simulation:
    """Our procedure for a shipped problem. sections: further sections of the configuration, as dictionaries."""
    config = Config.model_validate({"problem": {"name": name}, "network": network, "devices": 1} | sections)
    return Simulation(config, problem(config.problem))


def uniform_points(mesh: Mesh, key, domain, n: int) -> Points:
    """n uniform points of equal weight on a mesh, as the published procedure draws them."""
    lower, upper = jnp.asarray(domain.lower), jnp.asarray(domain.upper)
    x = lower + (upper - lower) * jax.random.uniform(key, (n, domain.dimension))
    points = Points(x, jnp.full(n, 1.0 / n), jnp.full(n, domain.volume / n))
    return jax.device_put(points, NamedSharding(mesh, P(AXIS)))
