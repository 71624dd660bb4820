# %% [markdown]
# # Landau damping: the Vlasov-Poisson system
#
# Electrons with the density $f(x, v, t)$ move in the electric field that they make with a uniform background of ions:
#
# $$f_t = -v f_x + E f_v, \qquad E_x = 1 - \int f\, dv.$$
#
# A small wave in a Maxwellian, $f = f_0(v)\,(1 + \alpha \cos k x)$ at $t = 0$ with $f_0 = e^{-v^2/2} / \sqrt{2 \pi}$,
# decays although nothing collides (Landau 1946). We write $f = f_0 + \alpha u$ and solve for $u$, so that all accuracy
# goes to the wave:
#
# $$u_t = -v u_x + E\,(f_0'(v) + \alpha u_v), \qquad E_x = -\int u\, dv, \qquad u(x, v, 0) = f_0(v) \cos k x.$$

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import curve_fit, root
from scipy.special import wofz

from nivp_dist import Problem, solve
from nivp_dist.problems import Axes, Periodic, Wall, gradient

# %% [markdown]
# ## The problem
#
# The field is an integral of the solution. `integrals` names its densities, here for the cosine and the sine of $x$ of
# the first harmonics, and `rhs` receives their values. `quadrature` gives the nodes of the sums: the trapezoidal rule
# is exact to rounding here.


# %%
class LandauDamping(Problem):
    """u_t = -v u_x + E (f0' + alpha u_v), E_x = - int u dv: a wave in a Maxwellian of electrons."""

    wavenumber: float = 0.5
    amplitude: float = 0.02
    fastest: float = 6.0  # velocities are cut off here
    harmonics: int = 2  # of the field

    @property
    def length(self):
        return 2 * np.pi / self.wavenumber

    @property
    def domain(self):
        return Axes(Periodic(0.0, self.length), Wall(-self.fastest, self.fastest))

    def maxwellian(self, v):
        return jnp.exp(-(v**2) / 2) / np.sqrt(2 * np.pi)

    def initial(self, x):
        return self.maxwellian(x[1]) * jnp.cos(self.wavenumber * x[0])

    def phases(self, x):
        return self.wavenumber * np.arange(1, self.harmonics + 1) * x[0]

    def integrals(self, u, x, t):
        return u(x) * jnp.append(jnp.cos(self.phases(x)), jnp.sin(self.phases(x)))

    def quadrature(self, nodes=(12, 48)):
        x = self.length * np.arange(nodes[0]) / nodes[0]
        v = self.fastest * (2 * np.arange(nodes[1]) / nodes[1] - 1)
        grid = np.stack(np.meshgrid(x, v, indexing="ij"), axis=-1).reshape(-1, 2)
        return grid, np.full(len(grid), (x[1] - x[0]) * (v[1] - v[0]))

    def rhs(self, u, x, t, integrals):
        cosines, sines = 2 / self.length * integrals.reshape(2, -1)  # coefficients of int u dv
        k = self.wavenumber * np.arange(1, self.harmonics + 1)
        field = jnp.sum((sines * jnp.cos(self.phases(x)) - cosines * jnp.sin(self.phases(x))) / k)
        u_x, u_v = gradient(u, x)
        return -x[1] * u_x + field * (-x[1] * self.maxwellian(x[1]) + self.amplitude * u_v)


# %% [markdown]
# ## The run

# %%
problem = LandauDamping()
settings = {
    "accuracy": 1e-2,
    "network": {"width": 14, "depth": 2, "frequencies": [1, 2]},  # one harmonic in x, two frequencies in v
    "sampling": {"method": "uniform", "points": 1200},
    "solver": {"method": "primal"},
    "fit": {"points": 1200},
    "integrator": {"t_end": 5.0},
    "output": {"every": 0.5, "evaluation_points": 4000, "spectrum_every": 0, "plots": False},
}
run = solve(settings, problem=problem, quiet=True)
print(f"{run.summary['status']} at t = {run.summary['t']:g} after {run.summary['steps']} steps")

# %% [markdown]
# The first harmonic of the charge, from the stored solutions:

# %%
nodes, weights = problem.quadrature()
cosine = 2 / problem.length * weights * np.cos(problem.wavenumber * nodes[:, 0])
charge = np.array([cosine @ run.solution(t)(nodes)[:, 0] for t in run.times])

# %% [markdown]
# ## Against linear theory
#
# For small $\alpha$ the charge $\rho$ of the wave solves an integral equation of Volterra's kind, in which each
# velocity carries away what it was given:
#
# $$\rho(t) = e^{-k^2 t^2 / 2} - \int_0^t (t - s)\, e^{-k^2 (t - s)^2 / 2}\, \rho(s)\, ds.$$
#
# The trapezoidal rule solves it step by step.

# %%
s = np.linspace(0, run.times[-1], 2001)
kernel = s * np.exp(-((problem.wavenumber * s) ** 2) / 2)
theory = np.exp(-((problem.wavenumber * s) ** 2) / 2)
for n in range(1, len(s)):  # the kernel vanishes at 0, so that rho(t) itself is not on the right
    theory[n] -= (s[1] - s[0]) * (kernel[n] * theory[0] / 2 + kernel[n - 1 : 0 : -1] @ theory[1:n])
error = np.max(np.abs(charge - np.interp(run.times, s, theory)))
print(f"charge: largest difference from linear theory {error:.1e} (it is 1 at the start)")
assert error < 2e-2

# %% [markdown]
# After the first oscillation $\rho$ is the least damped mode, $e^{-\gamma t} \cos(\omega t + \varphi)$. The frequency
# $\omega - i \gamma$ is a root of the dispersion relation $k^2 + 1 + \zeta Z(\zeta) = 0$,
# $\zeta = (\omega - i \gamma) / (\sqrt 2 k)$, where $Z$ is the plasma dispersion function. We fit such a mode to the
# charge from $t = 2$ on; traces of other modes are still there.


# %%
def dispersion(w):
    zeta = (w[0] + 1j * w[1]) / (np.sqrt(2) * problem.wavenumber)
    value = problem.wavenumber**2 + 1 + zeta * 1j * np.sqrt(np.pi) * wofz(zeta)
    return [value.real, value.imag]


def mode(t, size, gamma, omega, phase):
    return size * np.exp(-gamma * t) * np.cos(omega * t + phase)


frequency, growth = root(dispersion, [1.4, -0.15]).x
later = run.times >= 2.0
(_, gamma, omega, _), _ = curve_fit(mode, run.times[later], charge[later], [1.0, 0.1, 1.5, 0.0])
print(f"frequency {omega:.3f}, by the dispersion relation {frequency:.3f}")
print(f"damping rate {gamma:.3f}, by the dispersion relation {-growth:.3f}")
assert abs(omega - frequency) < 0.02 and abs(gamma + growth) < 0.02

# %% [markdown]
# ## A picture

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
grid = np.linspace(0, problem.length, 81), np.linspace(-4, 4, 121)
x, v = np.meshgrid(*grid, indexing="ij")
u = run.solution(run.times[-1])(np.stack([x.ravel(), v.ravel()], axis=1)).reshape(x.shape)
image = left.pcolormesh(x, v, u, shading="gouraud", cmap="RdBu_r", vmin=-abs(u).max(), vmax=abs(u).max())
left.set(title=f"the wave u at t = {run.times[-1]:g}", xlabel="x", ylabel="v")
figure.colorbar(image, ax=left)
right.plot(s, theory, "-", label="linear theory")
right.plot(run.times, charge, "o", label="network")
right.plot(s, theory[0] * np.exp(growth * s), "k:", label="damping rate of Landau")
right.plot(s, -theory[0] * np.exp(growth * s), "k:")
right.set(title="first harmonic of the charge", xlabel="t", ylim=(-1.3, 1.1))
right.legend(loc="lower right")
figure.savefig(run.directory / "landau_damping.png", dpi=120)
print(f"picture: {run.directory / 'landau_damping.png'}")
