# %% [markdown]
# # Two solitons of the Korteweg-de Vries equation
#
# $$u_t = -6 u u_x - u_{xxx}$$
#
# has solitary waves $\tfrac{c}{2} \cosh^{-2}\!\big(\tfrac{\sqrt c}{2} (x - c t)\big)$ of any speed $c$. A fast, tall
# one overtakes a slow, flat one. Both come out of the meeting as they were, but for a shift: the fast one is ahead of
# where it would be alone, the slow one behind.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from nivp_dist import Problem, solve
from nivp_dist.problems import PeriodicBox, derivatives, gradient, laplacian

# %% [markdown]
# ## The problem
#
# The exact solution is known on the whole line (Hirota 1971): $u = 2\, \partial_{xx} \log F$ with
#
# $$F = 1 + e^{\theta_1} + e^{\theta_2}
#   + \Big(\frac{\kappa_1 - \kappa_2}{\kappa_1 + \kappa_2}\Big)^2 e^{\theta_1 + \theta_2},
#   \qquad \theta_i = \kappa_i (x - \kappa_i^2 t), \qquad \kappa_i = \sqrt{c_i}.$$
#
# It gives the initial condition, on a period so long that the tails do not matter. Derivatives in `rhs` may be nested:
# the third one is the Laplacian of the first.

# %%
HALF = 15.0  # half of the period
FAST, SLOW = 3.0, 1.0  # speeds


def hirota(x, t, xp=np):
    """The exact solution at x of any shape. xp: numpy, or jax.numpy for what is compiled."""
    first, second = np.sqrt(FAST), np.sqrt(SLOW)
    a, b = first * (x - FAST * t), second * (x - SLOW * t)
    ab = a + b + 2 * np.log((first - second) / (first + second))
    # u = 2 (F''/F - (F'/F)^2) is twice the variance of the exponents' slopes 0, k1, k2, k1 + k2 under the weights
    # 1, e^a, e^b, e^ab: a form without overflow.
    exponents = xp.stack([xp.zeros_like(x), a, b, ab])
    weights = xp.exp(exponents - xp.max(exponents, axis=0))
    weights = weights / xp.sum(weights, axis=0)
    slopes = np.array([0, first, second, first + second]).reshape(-1, *[1] * x.ndim)
    mean = xp.sum(weights * slopes, axis=0)
    return 2 * xp.sum(weights * (slopes - mean) ** 2, axis=0)


class Solitons(Problem):
    """u_t = -6 u u_x - u_xxx, periodic, from two solitons."""

    @property
    def domain(self):
        return PeriodicBox(1, -HALF, HALF)

    def initial(self, x):
        return hirota(x[0], -1.5, jnp)

    def rhs(self, u, x, t):
        value, slope, _ = derivatives(u, x)
        third = laplacian(lambda y: gradient(u, y)[0], x)
        return -6 * value * slope[0] - third


# %% [markdown]
# ## The run
#
# The third derivative makes the equation stiff: an explicit method would need tiny steps for the sake of stability
# alone. `sdirk` takes implicit Runge-Kutta steps, whose length is set by accuracy.

# %%
settings = {
    "network": {"width": 16, "depth": 2, "activation": "tanh", "frequencies": 3},
    "sampling": {"method": "uniform", "points": 600},
    "solver": {"method": "primal", "mu": 1e-12},
    "fit": {"points": 600, "target": 1e-3, "iterations": 200, "stop_at": 1e-5, "line_search": True},
    "integrator": {"method": "sdirk", "rtol": 1e-3, "t_start": -1.5, "t_end": 1.5},
    "output": {"times": [-0.5, 0.5], "evaluation_points": 4000, "plots": False},
}
run = solve(settings, problem=Solitons(), quiet=True)
steps = run.metrics()["h"]
print(f"{run.summary['status']} at t = {run.summary['t']:g} after {len(steps)} steps of mean length {steps.mean():.3f}")

# %% [markdown]
# ## Against the exact solution

# %%
x = np.linspace(-HALF, HALF, 1201)
fields = {t: run.solution(t)(x[:, None])[:, 0] for t in run.times}
errors = [np.linalg.norm(u - hirota(x, t)) / np.linalg.norm(hirota(x, t)) for t, u in fields.items()]
for t, error in zip(run.times, errors):
    print(f"t = {t:g}: relative L2 error {error:.1e}")
assert max(errors) < 1e-2

# %% [markdown]
# The equation keeps $\int u = 2\sqrt{c_1} + 2\sqrt{c_2}$ and $\int u^2 = \tfrac23 (c_1^{3/2} + c_2^{3/2})$. They are
# integrated here with the trapezoidal rule, which is exact to rounding for smooth periodic functions.

# %%
h = x[1] - x[0]
mass, momentum = (np.array([h * np.sum(u[:-1] ** power) for u in fields.values()]) for power in (1, 2))
exact_mass = 2 * (np.sqrt(FAST) + np.sqrt(SLOW))
exact_momentum = 2 / 3 * (FAST**1.5 + SLOW**1.5)
print(f"integral of u:   {exact_mass:.4f} exactly, {mass[0]:.4f} at the start, {mass[-1]:.4f} at the end")
print(f"integral of u^2: {exact_momentum:.4f} exactly, {momentum[0]:.4f} at the start, {momentum[-1]:.4f} at the end")
assert np.allclose(mass, exact_mass, rtol=1e-2) and np.allclose(momentum, exact_momentum, rtol=1e-2)

# %% [markdown]
# ## A picture

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for t, u in fields.items():
    (line,) = left.plot(x, u, label=f"t = {t:g}")
    left.plot(x[::20], hirota(x[::20], t), ".", color=line.get_color())
left.set(title="a fast soliton overtakes a slow one; dots: exact", xlabel="x", ylabel="u", xlim=(-10, 10))
left.legend()
right.plot(run.metrics()["t"], steps)
right.set(title="lengths of the implicit steps", xlabel="t", ylabel="h", ylim=(0, None))
figure.savefig(run.directory / "kdv.png", dpi=120)
print(f"picture: {run.directory / 'kdv.png'}")
