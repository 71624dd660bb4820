# %% [markdown]
# # Heat in an insulated square
#
# A heated corner of an insulated square cools while the heat spreads:
#
# $$u_t = k\,(u_{xx} + u_{yy}) \quad\text{in } (0, 1)^2, \qquad \partial_n u = 0 \text{ on the walls}, \qquad
#   u(x, y, 0) = e^{a (\cos\pi x - 1)}\, e^{a (\cos\pi y - 1)}.$$
#
# Nothing leaves through the walls, so that the total heat $\int u$ stays as it is.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from nivp_dist import Problem, solve
from nivp_dist.problems import Axes, Neumann, laplacian

# %% [markdown]
# ## The problem
#
# A problem is a class. `domain` carries the boundary conditions, which the network satisfies exactly: with `Neumann`
# axes it is a function of cosines of zero slope on the walls. `initial` and `rhs` are the mathematics at one point `x`,
# of shape (2,), and `u` in `rhs` is a function of such a point. `invariants` names densities of conserved integrals.


# %%
class InsulatedSquare(Problem):
    """u_t = k lap u on [0, 1]^2, zero slope on the walls, from a hot corner."""

    linear = True

    conductivity: float = 0.05
    sharpness: float = 4.0

    @property
    def domain(self):
        return Axes(Neumann(0, 1), Neumann(0, 1))

    def initial(self, x):
        return jnp.exp(self.sharpness * jnp.sum(jnp.cos(jnp.pi * x) - 1))

    def rhs(self, u, x, t):
        return self.conductivity * laplacian(u, x)

    def invariants(self, u, x):
        return {"heat": u(x)}


# %% [markdown]
# ## The run
#
# The first part of a run fits the network to the initial condition. Then its parameters follow an ordinary differential
# equation, whose right-hand side is a least-squares problem at collocation points. `accuracy` is the relative error to
# aim at, and sets all tolerances.

# %%
problem = InsulatedSquare()
settings = {
    "accuracy": 1e-3,
    "network": {
        "width": 10,
        "depth": 2,
        "frequencies": 2,
    },  # of cos(pi x) and cos(2 pi x) along each axis
    "sampling": {"points": 1000},
    "fit": {"points": 1000},
    "integrator": {"t_end": 1.0},
    "output": {"times": [0.25, 0.5], "evaluation_points": 4000, "spectrum_every": 0, "plots": False},
}
run = solve(settings, problem=problem, quiet=True)
print(run)

# %% [markdown]
# ## Against the exact solution
#
# The solution is a product of two cosine series in one dimension. Their coefficients at $t = 0$ are modified Bessel
# functions, $e^{a \cos s} = I_0(a) + 2 \sum_n I_n(a) \cos(n s)$, and a trapezoidal rule gives them to rounding.


# %%
def exact(x, y, t, modes=30):
    """The series at coordinates x and y of any shape."""
    n = np.arange(modes)
    s = np.pi * (np.arange(64) + 0.5) / 64
    start = np.exp(problem.sharpness * (np.cos(s) - 1))
    coefficients = np.where(n == 0, 1, 2) * np.mean(start[:, None] * np.cos(n * s[:, None]), axis=0)
    coefficients = coefficients * np.exp(-problem.conductivity * (n * np.pi) ** 2 * t)
    along_x, along_y = (np.cos(np.pi * n * each[..., None]) @ coefficients for each in (x, y))
    return along_x * along_y


grid = np.linspace(0, 1, 65)
x, y = np.meshgrid(grid, grid, indexing="ij")
points = np.stack([x.ravel(), y.ravel()], axis=1)
fields = {t: run.solution(t)(points).reshape(x.shape) for t in run.times}
errors = {t: np.linalg.norm(u - exact(x, y, t)) / np.linalg.norm(exact(x, y, t)) for t, u in fields.items()}
for t, error, estimate in zip(run.times, errors.values(), run.errors()["estimate"]):
    print(f"t = {t:4.2f}: relative L2 error {error:.1e}, the run's own estimate {estimate:.1e}")
assert max(errors.values()) < 1e-3

# %% [markdown]
# The run integrates the invariants at its output times, over random points, and says how exactly it knows them. On our
# grid the trapezoidal rule is better. The exact heat is $(e^{-a} I_0(a))^2$.

# %%
weights = np.full(len(grid), 1 / (len(grid) - 1))
weights[[0, -1]] /= 2
exact_heat = exact(x, y, 0.0) @ weights @ weights
heat = np.array([u @ weights @ weights for u in fields.values()])
drift = np.max(np.abs(heat / exact_heat - 1))
value, uncertainty = run.statistics()["invariant_heat"][-1]
print(f"heat at the end: {heat[-1]:.6f}, exactly {exact_heat:.6f}; the run says {value:.4f} +- {uncertainty:.4f}")
print(f"the heat is kept to {drift:.1e}")
assert drift < 1e-3 and abs(value - exact_heat) < 5 * uncertainty

# %% [markdown]
# ## A picture

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
for axes, t in ((left, run.times[0]), (middle, run.times[-1])):
    image = axes.pcolormesh(x, y, fields[t], shading="gouraud", cmap="inferno", vmin=0)
    axes.set(title=f"u at t = {t:g}", xlabel="x", ylabel="y", aspect="equal")
    figure.colorbar(image, ax=axes)
for t, u in fields.items():
    (line,) = right.plot(grid, u[:, 0], label=f"t = {t:g}")
    right.plot(grid[::4], exact(grid[::4], np.zeros(17), t), ".", color=line.get_color())
right.set(title="along the wall y = 0; dots: exact", xlabel="x", ylabel="u")
right.legend()
figure.savefig(run.directory / "heat.png", dpi=120)
print(f"picture: {run.directory / 'heat.png'}")
