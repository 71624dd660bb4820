# %% [markdown]
# # Particles in double wells: a Fokker-Planck equation
#
# Particles in the plane move in a potential $V$ and diffuse, $dX = -\nabla V(X)\, dt + \sqrt{2 D}\, dW$. Their density
# obeys
#
# $$u_t = D\,\Delta u + \nabla\cdot(u \nabla V), \qquad
#   V = \tfrac12 (y_1^2 - 1)^2 + \tfrac12 (y_2^2 - 1)^2, \qquad y = Q^T x.$$
#
# $Q$ is a rotation by $30^\circ$: there are four wells, and the equation does not separate in $x$. All particles start
# near one point, $x \sim N(Q m, s^2 I)$, and settle in the wells.

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
# With `density = True` on the whole space the network represents $\log u$: the density is positive, and small values
# are as accurate as large ones.

# %%
ROTATION = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])  # Q


class DoubleWells(Problem):
    """u_t = D lap u + div(u grad V): four wells, from a Gaussian."""

    density = True
    linear = True

    diffusion: float = 0.5
    mean: float = 0.3  # m = (mean, mean)
    spread: float = 0.5

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
# With `sampling.method = "solution"` the collocation points follow the density itself. Its tails, like $\exp(-y^4)$,
# are thinner than those of the Gaussians from which points are drawn otherwise.

# %%
problem = DoubleWells()
settings = {
    "accuracy": 1e-2,
    "network": {"width": 12, "depth": 2, "activation": "sin"},
    "sampling": {"method": "solution", "points": 1000, "inflation": 1.0, "uniform_fraction": 0.02},
    "fit": {"points": 1000},
    "integrator": {"t_end": 0.4, "initial_step": 1e-3},
    "output": {"evaluation_points": 4000, "spectrum_every": 0, "plots": False},
}
run = solve(settings, problem=problem, quiet=True)
t = run.times[-1]
print(f"{run.summary['status']} at t = {t:g} after {run.summary['steps']} steps")

# %% [markdown]
# ## Another method
#
# In the coordinates $y$ the particles are independent, with the density $p(y_1) p(y_2)$. The function $p$ solves an
# equation in one dimension: here by finite volumes of Scharfetter and Gummel's kind, and the exponential of their
# matrix.

# %%
edges = np.linspace(-3, 3, 601)  # of the cells
y = (edges[1:] + edges[:-1]) / 2
h = y[1] - y[0]
half = np.diff((y**2 - 1) ** 2 / 2) / (2 * problem.diffusion)  # half of the differences of V / D
jumps = np.diag(np.exp(-half), -1) + np.diag(np.exp(half), 1)  # to the right, to the left, times h^2 / D
generator = (jumps - np.diag(jumps.sum(axis=0))) * problem.diffusion / h**2
p = expm(generator * t) @ np.exp(-((y - problem.mean) ** 2) / (2 * problem.spread**2))
p /= p.sum() * h
right = h * p[y > 0].sum()  # the probability of y_1 > 0

grid = np.stack(np.meshgrid(y[::10], y[::10], indexing="ij"), axis=-1).reshape(-1, 2)  # values of (y_1, y_2)
exact = np.outer(p[::10], p[::10]).ravel()
u = run.solution(t)(grid @ ROTATION.T)[:, 0]
error = np.linalg.norm(u - exact) / np.linalg.norm(exact)
print(f"relative L2 distance from the product of one-dimensional densities {error:.1e}")
assert error < 2e-2

# %% [markdown]
# ## Probabilities, quantiles, marginals
#
# They are estimated from weighted samples of the density that the network represents, with a standard error. The
# probability of the well on the right in both coordinates is $P(y_1 > 0)^2$.

# %%
well = run.probability(t, lambda x: np.all(x @ ROTATION > 0, axis=1))
print(f"probability of the first well: {well.value:.4f} +- {well.error:.4f}, by quadrature {right**2:.4f}")
assert abs(well.value - right**2) < 5 * well.error + 1e-2

levels = np.array([0.1, 0.5, 0.9])
quantiles = run.quantiles(t, lambda x: x @ ROTATION[:, 0], levels)  # of y_1, a function of x
by_quadrature = np.interp(levels, np.cumsum(p) * h, edges[1:])
for level, value, uncertainty, other in zip(levels, quantiles.value, quantiles.error, by_quadrature):
    print(f"quantile {level:.1f} of y_1: {value:.4f} +- {uncertainty:.4f}, by quadrature {other:.4f}")
assert np.all(np.abs(quantiles.value - by_quadrature) < 5 * quantiles.error + 1e-2)

# %% [markdown]
# The marginal of $x_1 = c\, y_1 - s\, y_2$, where $(c, -s)$ is the first row of $Q$, is the density of a sum of
# independent variables. The probability of a bin follows from sums over the cells of both.

# %%
bins = np.linspace(-2.4, 2.4, 25)
marginal = run.marginal(t, axis=0, edges=bins)
x1 = np.add.outer(ROTATION[0, 0] * y, ROTATION[0, 1] * y)
exact_marginal = np.histogram(x1, bins, weights=np.outer(p, p) * h**2)[0] / np.diff(bins)
difference = np.abs(marginal.value - exact_marginal)
print(f"marginal of x_1: largest difference {difference.max():.4f}, largest standard error {marginal.error.max():.4f}")
assert np.all(difference < 5 * marginal.error + 1e-2)

# %% [markdown]
# ## A picture

# %%
figure, (left, right_axes) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
line = np.linspace(-2.2, 2.2, 111)
a, b = np.meshgrid(line, line, indexing="ij")
density = run.solution(t)(np.stack([a.ravel(), b.ravel()], axis=1)).reshape(a.shape)
image = left.pcolormesh(a, b, density, shading="gouraud", cmap="viridis")
samples = run.samples(t, 300)
left.plot(*samples.T, "w.", markersize=1.5)
left.set(title=f"density at t = {t:g}, and 300 samples of it", xlabel="x_1", ylabel="x_2", aspect="equal")
left.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
figure.colorbar(image, ax=left)
right_axes.stairs(exact_marginal, bins, label="by quadrature")
middle = (bins[1:] + bins[:-1]) / 2
right_axes.errorbar(middle, marginal.value, 2 * marginal.error, fmt=".", label="run.marginal, 2 standard errors")
right_axes.set(title="marginal density of x_1", xlabel="x_1", ylabel="density")
right_axes.set_ylim(0, 0.7)  # room for the legend
right_axes.legend(loc="upper left")
figure.savefig(run.directory / "double_wells.png", dpi=120)
print(f"picture: {run.directory / 'double_wells.png'}")
