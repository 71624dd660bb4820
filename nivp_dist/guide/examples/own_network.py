# %% [markdown]
# # A network of your own: a radial density
#
# Particles in five dimensions diffuse in the potential $V = \tfrac14 (r^2 - 1)^2$, $r = |x|$, whose minimum is a
# sphere:
#
# $$u_t = D\,\Delta u + \nabla\cdot(u \nabla V), \qquad u(x, 0) = N(x; 0, s^2 I).$$
#
# Start and equation do not prefer a direction. So $u$ is a function of $r$ at all times, and at the end proportional to
# $e^{-V / D}$. A network that is a function of $r^2$, with $r^2$ and $r^4$ beside its hidden neurons, knows that from
# the start: it needs few neurons, and its symmetry is exact.

# %%
import tempfile
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import expm
from scipy.special import gamma

from nivp_dist import Problem, solve
from nivp_dist.problems import WholeSpace, derivatives, divergence

# %% [markdown]
# ## The network
#
# A class of flax in a file of its own, which the run copies into its directory. It is called with points (n, d), in
# units of the domain: here $x / s$. For a density it is $\log u$, up to a constant.

# %%
folder = Path(tempfile.mkdtemp(prefix="own_network-", dir="."))  # for all files of this example
(folder / "radial.py").write_text('''
import flax.linen as nn
import jax.numpy as jnp


class Radial(nn.Module):
    """A function of r^2 alone."""

    outputs: int
    width: int = 8

    @nn.compact
    def __call__(self, x):
        square = jnp.sum(x**2, axis=1, keepdims=True)
        hidden = nn.swish(nn.Dense(self.width)(square / x.shape[1]))
        hidden = nn.swish(nn.Dense(self.width)(hidden))
        return nn.Dense(self.outputs)(jnp.concatenate([hidden, square, square**2], axis=1))
''')

# %% [markdown]
# ## The problem


# %%
class Shell(Problem):
    """u_t = D lap u + div(u grad V), V = (|x|^2 - 1)^2 / 4, from a Gaussian about the origin."""

    density = True
    linear = True

    dimension: int = 5
    diffusion: float = 0.25
    spread: float = 0.4

    @property
    def domain(self):
        return WholeSpace(self.dimension, scale=self.spread)

    def initial(self, x):
        return jnp.exp(-(x @ x) / (2 * self.spread**2)) / (2 * np.pi * self.spread**2) ** (self.dimension / 2)

    def force(self, x):
        return (1 - x @ x) * x  # -grad V

    def rhs(self, u, x, t):
        value, slope, curvature = derivatives(u, x)
        return self.diffusion * curvature - self.force(x) @ slope - divergence(self.force, x) * value


# %% [markdown]
# ## The run
#
# `gaussians = 0`: nothing is added to the network, whose own square makes the density fall far out.

# %%
problem = Shell()
settings = {
    "accuracy": 1e-2,
    "network": {"file": folder / "radial.py", "class": "Radial", "parameters": {"width": 8}, "gaussians": 0},
    "sampling": {"method": "solution", "points": 1000, "inflation": 1.0, "uniform_fraction": 0.02},
    "fit": {"points": 1000},
    "integrator": {"t_end": 0.5, "initial_step": 1e-3},
    "output": {"times": [0.1, 0.2], "evaluation_points": 4000, "spectrum_every": 0, "plots": False},
}
run = solve(settings, problem=problem, directory=folder / "run", quiet=True)
size = len(run.snapshot(0.0)["theta"])
print(f"{run.summary['status']} at t = {run.summary['t']:g} after {run.summary['steps']} steps; {size} parameters")

# %% [markdown]
# The symmetry, at random points and a random rotation of them:

# %%
random = np.random.default_rng(0)
x = 0.5 * random.normal(size=(100, problem.dimension))
rotation, _ = np.linalg.qr(random.normal(size=(problem.dimension, problem.dimension)))
u = run.solution(run.times[-1])
asymmetry = np.max(np.abs(u(x @ rotation) / u(x) - 1))
print(f"largest relative change of u by a rotation: {asymmetry:.0e}")
assert asymmetry < 1e-9

# %% [markdown]
# ## Against another method
#
# The density $q$ of $r$ solves an equation in one dimension, with the potential $V - D (d - 1) \log r$: here by finite
# volumes of Scharfetter and Gummel's kind, and the exponential of their matrix. Then $u = q / (A\, r^{d - 1})$, where
# $A$ is the area of the unit sphere.

# %%
d, D = problem.dimension, problem.diffusion
edges = np.linspace(0, 2.8, 561)  # of the cells
r = (edges[1:] + edges[:-1]) / 2
h = r[1] - r[0]
potential = (r**2 - 1) ** 2 / 4 - D * (d - 1) * np.log(r)
half = np.diff(potential) / (2 * D)
jumps = np.diag(np.exp(-half), -1) + np.diag(np.exp(half), 1)  # to the right, to the left, times h^2 / D
generator = (jumps - np.diag(jumps.sum(axis=0))) * D / h**2
area = 2 * np.pi ** (d / 2) / gamma(d / 2)
start = r ** (d - 1) * np.exp(-(r**2) / (2 * problem.spread**2))
along = np.outer(r, np.eye(d)[0])  # points on an axis
errors, curves = [], {}
for t in run.times:
    q = expm(generator * t) @ start
    q /= h * q.sum()
    exact = q / (area * r ** (d - 1))
    curves[t] = run.solution(t)(along)[:, 0] * area * r ** (d - 1), q
    weight = r ** (d - 1)  # of the integral over space
    errors.append(np.sqrt(np.sum(weight * (run.solution(t)(along)[:, 0] - exact) ** 2) / np.sum(weight * exact**2)))
    print(f"t = {t:3.1f}: relative L2 distance from the radial solution {errors[-1]:.1e}")
assert max(errors) < 2e-2

mean = run.expectation(run.times[-1], lambda x: np.linalg.norm(x, axis=1))
print(f"mean distance from the origin at the end: {mean.value:.4f} +- {mean.error:.4f}, radial {h * np.sum(r * q):.4f}")
assert abs(mean.value - h * np.sum(r * q)) < 5 * mean.error + 1e-3

# %% [markdown]
# ## A picture

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for t, (network, other) in curves.items():
    (line,) = axes.plot(r, network, label=f"t = {t:g}")
    axes.plot(r[::20], other[::20], ".", color=line.get_color())
axes.set(title="density of the distance r; dots: radial solution", xlabel="r", ylabel="q", xlim=(0, 2))
axes.legend()
figure.savefig(folder / "own_network.png", dpi=120)
print(f"picture: {folder / 'own_network.png'}")
