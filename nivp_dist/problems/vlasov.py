"""The Vlasov equation of particles in a given force field, in six dimensions."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from nivp_dist.problems import Positive, Problem, WholeSpace
from nivp_dist.problems._gaussians import mixture_density


class Vlasov(Problem):
    """Vlasov equation of particles in a fixed potential well, at z = (x, v) in R^6.

    Equation:    u_t = -(v . grad_x u + E(x) . grad_v u),  E = grad exp(-|x|^2), which points to the centre
    Domain:      R^6; u is a density
    Initial:     N(0, s^2 I) in z
    Parameters:  s = spread
    Source:      Neural IVP (Finzi et al. 2023, arXiv 2304.14994): s = 0.3, to T = 3, on [-1, 1]^6 with u = 0 on the
                 walls. On these walls u0 is 4e-3 of its peak, and 3 % of the particles leave through them by T, so that
                 no solution has these boundary data. Here the domain is R^6; the flow preserves volumes, log u
                 satisfies the same equation, and the network represents log u.
    Reference:   u0 at the foot of the characteristic z' = (v, E), backwards by Dormand-Prince 8(5,3), to 1e-9
    """

    summary: ClassVar[str] = "Vlasov equation in a fixed potential well, a density on R^6"
    reference_kind: ClassVar[str] = "characteristics, integrated to 1e-9"
    density: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    dimension: ClassVar[int] = 6

    spread: Positive = 0.3

    @property
    def domain(self):
        return WholeSpace(self.dimension, 0.0, self.spread)

    def initial(self, x):
        return mixture_density(x, *self._start(), jnp)

    def rhs(self, u, x, t):
        return -jax.jvp(u, (x,), (_flow(x, jnp),))[1]

    def drift(self, x, t):
        return _flow(x, jnp)

    def _start(self):
        return np.ones(1), np.zeros((1, 6)), self.spread**2 * np.eye(6)[None]

    def reference(self, x, t):
        return mixture_density(trace_back(x, t), *self._start(), np)

    def statistics(self, t):
        return {"mass": 1.0, "mean": np.zeros(6)}


def _flow(z, xp):
    """(v, E(x)) at z = (x, v) of shape (..., 6)."""
    x, v = z[..., :3], z[..., 3:]
    return xp.concatenate([v, -2 * x * xp.exp(-xp.sum(x**2, axis=-1, keepdims=True))], axis=-1)


def trace_back(z, t, rtol=1e-11):
    """The points (n, 6) at time 0 of the characteristics that pass through z (n, 6) at time t.

    All are integrated together, with one step size. Raises RuntimeError: the integration did not reach time 0.
    """
    if t == 0:
        return np.array(z)
    slope = lambda _, state: -_flow(state.reshape(-1, 6), np).ravel()  # noqa: E731
    path = solve_ivp(slope, (0.0, float(t)), np.ravel(z), method="DOP853", rtol=rtol, atol=rtol, t_eval=[float(t)])
    if not path.success:
        raise RuntimeError(f"the characteristics could not be followed back from t = {t}: {path.message}")
    return path.y[:, -1].reshape(-1, 6)
