# %% [markdown]
# # A drop that shrinks: the Allen-Cahn equation
#
# $$u_t = D\,(u_{xx} + u_{yy}) + u - u^3$$
#
# has two stable phases, $u = 1$ and $u = -1$, and between them an interface $u \approx \tanh(s / \sqrt{2 D})$, $s$
# being the distance from it. Where the interface is thin, it moves by its curvature alone, with the normal velocity
# $D \kappa$ (Allen and Cahn 1979). A drop of radius $R$ in the plane thus shrinks as
#
# $$\dot R = -D / R, \qquad R(t)^2 = R_0^2 - 2 D t.$$

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp

from nivp_dist import Problem, solve
from nivp_dist.problems import Axes, Neumann, laplacian

# %% [markdown]
# ## The problem
#
# A quarter of the drop, at the corner of a square whose walls it meets at right angles.


# %%
class Drop(Problem):
    """u_t = D lap u + u - u^3 on [0, 1]^2, zero slope on the walls, from a drop about the origin."""

    diffusion: float = 0.005
    radius: float = 0.6

    @property
    def domain(self):
        return Axes(Neumann(0, 1), Neumann(0, 1))

    def profile(self, r, xp=np):
        """u0 at distances r from the middle; smooth there, as a function of r^2. xp: numpy, or jax.numpy."""
        distance = (self.radius**2 - r**2) / (2 * self.radius)
        return xp.tanh(distance / np.sqrt(2 * self.diffusion))

    def initial(self, x):
        return self.profile(jnp.sqrt(x @ x + 1e-30), jnp)

    def rhs(self, u, x, t):
        return self.diffusion * laplacian(u, x) + u(x) - u(x) ** 3


# %% [markdown]
# ## The run
#
# While the drop shrinks from a radius of 0.6 to 0.4, of which the interface is a quarter: `radius` is where $u = 0$.

# %%
problem = Drop()
settings = {
    "accuracy": 3e-3,
    "network": {"width": 12, "depth": 2, "frequencies": 2},
    "sampling": {"method": "uniform", "points": 1500},
    "fit": {"points": 1500},
    "integrator": {"t_end": 20.0},
    "output": {"every": 4.0, "evaluation_points": 4000, "spectrum_every": 0, "plots": False},
}
run = solve(settings, problem=problem, quiet=True)
print(f"{run.summary['status']} at t = {run.summary['t']:g} after {run.summary['steps']} steps")

# %% [markdown]
# ## Against another method
#
# The drop is round, as long as it is far from the other walls. So $u(r, t)$ solves an equation in one dimension,
# $u_t = D (u_{rr} + u_r / r) + u - u^3$: here by finite volumes on a fine grid of $r$, with no flux at $r = 0$ and
# $r = 1$, and an implicit method of high order in time.

# %%
cells = 800
faces = np.linspace(0, 1, cells + 1)
r = (faces[1:] + faces[:-1]) / 2


def radial(t, u):
    flux = faces * np.concatenate([[0], problem.diffusion * np.diff(u) * cells, [0]])
    return np.diff(flux) * cells / r + u - u**3


other = solve_ivp(
    radial, (0, run.times[-1]), problem.profile(r), "LSODA", run.times, rtol=1e-7, atol=1e-9, lband=1, uband=1
).y.T

grid = np.linspace(0, 1, 101)
x, y = np.meshgrid(grid, grid, indexing="ij")
points = np.stack([x.ravel(), y.ravel()], axis=1)
distances = np.hypot(x, y)
inside = distances < 1  # where the radial solution is known
fields = {t: run.solution(t)(points).reshape(x.shape) for t in run.times}
errors = []
for (t, u), radial_values in zip(fields.items(), other):
    exact = np.interp(distances[inside], r, radial_values)
    errors.append(np.linalg.norm(u[inside] - exact) / np.linalg.norm(exact))
    print(f"t = {t:2g}: relative L2 distance from the radial solution {errors[-1]:.1e}")
assert max(errors) < 2e-2

# %% [markdown]
# ## Against theory
#
# The radius, where $u = 0$ on an axis, obeys the law of Allen and Cahn up to terms of the square of the thickness of
# the interface over the radius. By fitting a line to $R^2$ we measure the constant $2 D$.

# %%
line = np.linspace(0, 1, 2001)
on_axis = np.stack([line, 0 * line], axis=1)
radius = np.array([line[np.argmax(run.solution(t)(on_axis)[:, 0] < 0)] for t in run.times])  # the first u < 0
theory = np.sqrt(problem.radius**2 - 2 * problem.diffusion * run.times)
rate = -np.polyfit(run.times, radius**2, 1)[0]
print(f"radius at t = {run.times[-1]:g}: {radius[-1]:.4f}, in the limit of a thin interface {theory[-1]:.4f}")
print(f"R^2 decreases by {rate:.5f} in a unit of time, in that limit by {2 * problem.diffusion:.5f}")
assert abs(rate / (2 * problem.diffusion) - 1) < 0.1

# %% [markdown]
# ## A picture

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
image = left.pcolormesh(x, y, fields[run.times[-1]], shading="gouraud", cmap="RdBu_r", vmin=-1, vmax=1)
left.contour(x, y, fields[run.times[0]], [0.0], colors="k", linestyles="dashed")
left.set(title=f"u at t = {run.times[-1]:g}; dashed: the drop at t = 0", xlabel="x", ylabel="y", aspect="equal")
figure.colorbar(image, ax=left)
for t, radial_values in zip(run.times, other):
    (curve,) = middle.plot(grid, fields[t][:, 0], label=f"t = {t:g}")
    middle.plot(r[::25], radial_values[::25], ".", color=curve.get_color())
middle.set(title="along the wall y = 0; dots: radial solution", xlabel="x", ylabel="u")
middle.legend()
right.plot(run.times, radius**2, "o", label="network")
right.plot(run.times, theory**2, "-", label="R(0)^2 - 2 D t")
right.set(title="square of the radius", xlabel="t", ylabel="R^2")
right.legend()
figure.savefig(run.directory / "allen_cahn.png", dpi=120)
print(f"picture: {run.directory / 'allen_cahn.png'}")
