# %% [markdown]
# # A wave and its energy
#
# A string of length 2, fixed at both ends, is let go from a pulse:
#
# $$u_{tt} = c^2 u_{xx} \quad\text{in } (-1, 1), \qquad u(\pm 1, t) = 0, \qquad
#   u(x, 0) = e^{-x^2 / (2 s^2)}, \qquad u_t(x, 0) = 0.$$
#
# Two pulses run apart, are reflected with the opposite sign, meet again upside down, and after the period $4 / c$ the
# string is as it was. All the time it keeps its energy
#
# $$E = \tfrac12 \int_{-1}^{1} \left(u_t^2 + c^2 u_x^2\right) dx.$$

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from nivp_dist import Box, Problem, solve
from nivp_dist.problems import gradient, laplacian

# %% [markdown]
# ## The problem
#
# nivp_dist solves equations of first order in time. An equation of second order becomes a system for $u$ and $w = u_t$,
#
# $$u_t = w, \qquad w_t = c^2 u_{xx}.$$
#
# `energy` names components, linear in the unknowns, whose squares add up to the density of an energy: $c u_x$ and $w$.
# With `solver.norm = "energy"` the velocity of the parameters is a least-squares solution in the norm of the energy, in
# which the projected equation is as stable as the wave equation is. `invariants` only asks for a report.


# %%
class String(Problem):
    """(u, w)_t = (w, c^2 u_xx) on [-1, 1], u = w = 0 at the ends: a pulse at rest."""

    outputs = 2
    output_names = ("u", "u_t")
    linear = True
    even = (0,)  # u and u_t are even in x at all times: half of the network is enough

    speed: float = 1.0
    width: float = 0.2

    @property
    def domain(self):
        return Box(1)

    def pulse(self, x, xp=np):
        """u at t = 0. xp: numpy, or jax.numpy for what is compiled."""
        return xp.exp(-(x**2) / (2 * self.width**2))

    def initial(self, x):
        return jnp.stack([self.pulse(x[0], jnp), jnp.zeros(())])

    def rhs(self, u, x, t):
        return jnp.stack([u(x)[1], self.speed**2 * laplacian(lambda y: u(y)[0], x)])

    def energy(self, u, x):
        return jnp.append(self.speed * gradient(lambda y: u(y)[0], x), u(x)[1])

    def invariants(self, u, x):
        return {"energy": jnp.sum(self.energy(u, x) ** 2) / 2}


# %% [markdown]
# ## The run
#
# Over half a period, with an output at every sixteenth of it.

# %%
problem = String()
period = 4 / problem.speed
settings = {
    "accuracy": 3e-3,
    "network": {"width": 10, "depth": 2, "frequencies": 3},
    "sampling": {"method": "uniform", "points": 300},
    "solver": {"method": "primal", "norm": "energy"},
    "fit": {"points": 300},
    "integrator": {"t_end": period / 2},
    "output": {"every": period / 16, "evaluation_points": 4000, "spectrum_every": 0, "plots": False},
}
run = solve(settings, problem=problem, quiet=True)
print(f"{run.summary['status']} at t = {run.summary['t']:g} after {run.summary['steps']} steps")

# %% [markdown]
# ## Against d'Alembert
#
# The solution is $u = \tfrac12 (f(x - ct) + f(x + ct))$, where $f$ is the pulse, continued beyond the ends by
# reflections with the opposite sign.


# %%
def reflected(x):
    """f: the pulse and its images."""
    return sum((-1) ** k * problem.pulse(x - 2 * k) for k in range(-4, 5))


def exact(x, t):
    """u at x of any shape."""
    return (reflected(x - problem.speed * t) + reflected(x + problem.speed * t)) / 2


x = np.linspace(-1, 1, 2001)
fields = {t: run.solution(t)(x[:, None]) for t in run.times}  # (2001 points, 2 outputs)
norm = np.linalg.norm(exact(x, 0.0))  # half of it at other times
errors = np.array([np.linalg.norm(u[:, 0] - exact(x, t)) / norm for t, u in fields.items()])
for t, error in zip(run.times, errors):
    print(f"t = {t:4.2f}: error of u {error:.1e} of |u0|")
assert errors.max() < 5e-3

# %% [markdown]
# ## The energy
#
# Its exact value is $\tfrac12 c^2 \int u_0'^2 = \tfrac14 c^2 \sqrt\pi / s$. The run reports the integral over random
# points, with its standard error. Differences on the fine grid are more accurate.

# %%
energy = np.array(
    [np.trapezoid(u[:, 1] ** 2 + (problem.speed * np.gradient(u[:, 0], x)) ** 2, x) / 2 for u in fields.values()]
)
exact_energy = problem.speed**2 * np.sqrt(np.pi) / problem.width / 4
drift = energy / exact_energy - 1
value, uncertainty = run.statistics()["invariant_energy"][-1]
print(f"energy: {exact_energy:.4f} exactly, {energy[0]:.4f} at the start, {energy[-1]:.4f} at the end")
print(f"the run says {value:.3f} +- {uncertainty:.3f} at the end")
print(f"largest drift of the energy {np.max(np.abs(drift)):.1e}")
assert np.max(np.abs(drift)) < 5e-3 and abs(value - exact_energy) < 5 * uncertainty

# %% [markdown]
# ## A picture

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for t in run.times[[0, 2, 3, 6, 8]]:
    (line,) = left.plot(x, fields[t][:, 0], label=f"t = {t:g}")
    left.plot(x[::50], exact(x[::50], t), ".", color=line.get_color())
left.set(title="the string; dots: d'Alembert", xlabel="x", ylabel="u")
left.legend(loc="upper right")
right.plot(run.times, drift, "o-")
right.set(title="drift of the energy", xlabel="t", ylabel="E / E(exact) - 1")
figure.savefig(run.directory / "wave.png", dpi=120)
print(f"picture: {run.directory / 'wave.png'}")
