# %% [markdown]
# # Particles in double wells: a Fokker-Planck equation
#
# Particles in the plane move in a potential $V$ and diffuse, $dX = -\nabla V(X)\, dt + \sqrt{2 D}\, dW$. Their density obeys
#
# $$u_t = D\,\Delta u + \nabla\cdot(u \nabla V), \qquad
#   V = \tfrac12 (y_1^2 - 1)^2 + \tfrac12 (y_2^2 - 1)^2, \qquad y = Q^T x.$$
#
# $Q$ is a rotation by $30^\circ$: there are four wells, and the equation does not separate in $x$. All particles start near
# one point, $x \sim N(Q m, s^2 I)$, and settle in the wells.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import expm

from nivp_dist import Problem, solve
from nivp_dist.problems import WholeSpace, derivatives, divergence

# %% [markdown]
# ## The problem
#
# With `density = True` on the whole space the network represents $\log u$: the density is positive, and small values are as
# accurate as large ones.

# %%
ROTATION = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])  # Q


class DoubleWells(Problem):
    """u_t = D lap u + div(u grad V): four wells, from a Gaussian."""

    density = True
    linear = True

    diffusion: float = 0.5
    mean: float = 0.3  # m = (mean, mean)
    spread: float = 0.6

    @property
    def domain(self):
        return WholeSpace(2, centre=ROTATION @ [self.mean, self.mean], scale=self.spread)

    def initial(self, x):
        y = ROTATION.T @ x
        square = jnp.sum((y - self.mean) ** 2)
        return jnp.exp(-square / (2 * self.spread**2)) / (2 * np.pi * self.spread**2)

    def force(self, x):
        y = ROTATION.T @ x
        return ROTATION @ (2 * (y - y**3))  # -grad V

    def rhs(self, u, x, t):
        value, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - self.force(x) @ slope - divergence(self.force, x) * value


# %% [markdown]
# ## The run
#
# Collocation points are drawn from Gaussians that follow the density.

# %%
problem = DoubleWells()
settings = {
    "accuracy": 1e-2,
    "network": {"width": 12, "depth": 2},
    "sampling": {"points": 1500},
    "fit": {"points": 1500},
    "integrator": {"t_end": 0.5},
    "output": {"evaluation_points": 4000, "spectrum_every": 0, "plots": False},
}
run = solve(settings, problem=problem, quiet=True)
t = run.times[-1]
print(f"{run.summary['status']} at t = {t:g} after {run.summary['steps']} steps")
