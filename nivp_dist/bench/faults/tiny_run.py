"""The run that is disturbed: 18 steps, a refit, three snapshots, a checkpoint every three transitions."""

from pathlib import Path

PROBLEM = '''
import jax.numpy as jnp
import numpy as np

from nivp_dist import Box, Problem
from nivp_dist.problems import laplacian


class Modes(Problem):
    """u_t = k lap u on [-1, 1], started from two of its modes: each decays at its own rate."""

    k: float = 0.1

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2) + 0.5 * jnp.sin(jnp.pi * x[0])

    def rhs(self, u, x, t):
        return self.k * laplacian(u, x)

    def reference(self, x, t):
        rate = self.k * np.pi**2
        slow, fast = np.exp(-rate * t / 4) * np.cos(np.pi * x / 2), np.exp(-rate * t) * np.sin(np.pi * x)
        return (slow + 0.5 * fast)[:, 0]
'''

CONFIG = """
seed = 1
[problem]
file = "modes.py"
class = "Modes"
[network]
width = 6
depth = 1
frequencies = 1
alpha = 1.0
[sampling]
points = 200
redraw_every = 2
[solver]
method = "primal"
mu = 1e-9
[integrator]
method = "bogacki_shampine"
rtol = 1e-3
t_end = 0.1
initial_step = 0.005
max_step = 0.005
[fit]
order = 1
points = 200
iterations = 6
target = 1e-1
[restart]
max_age = 0.06
cooldown_steps = 2
bound = 1e-1
[output]
times = [0.05]
evaluation_points = 500
plots = false
[checkpoint]
every_steps = 3
[cluster]
silence_seconds = 10.0
deadline_minutes = 0.75
"""

# Runs that were killed on the way, name -> in which step: before and after the second output, and near the end.
STOPPED = {"early": 5, "middle": 11, "late": 17}


def write(folder: Path) -> Path:
    """Write the problem and the configuration into a folder. Returns the path of the configuration."""
    (folder / "modes.py").write_text(PROBLEM)
    path = folder / "modes.toml"
    path.write_text(CONFIG)
    return path
