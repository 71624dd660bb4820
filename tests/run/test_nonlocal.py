"""Whole runs of equations that depend on integrals of the solution, against exact solutions."""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist import Problem, solve
from nivp_dist.errors import InputError
from nivp_dist.problems import PeriodicBox, WholeSpace, divergence, laplacian
from nivp_dist.run.simulation import Simulation
from nivp_dist.settings.model import Config

SMALL = {"network": {"width": 6, "depth": 1}, "solver": {"method": "primal"}, "devices": 1}


class Population(Problem):
    """u_t = D u'' + u (1 - mean of u): growth up to a mean of one. The modes of a cosine series stay apart."""

    @property
    def domain(self):
        return PeriodicBox(1)

    def initial(self, x):
        return 0.5 + 0.25 * jnp.cos(np.pi * x[0])

    def integrals(self, u, x, t):
        return u(x)[None] / 2

    def rhs(self, u, x, t, integrals):
        return 0.1 * laplacian(u, x) + u(x) * (1 - integrals[0])

    def reference(self, x, t):
        mean = 1 / (1 + np.exp(-t))  # the logistic equation
        return mean + 0.5 * mean * np.exp(-0.1 * np.pi**2 * t) * np.cos(np.pi * x[:, 0])


class Nodes(Population):
    def quadrature(self):
        return np.linspace(-1, 1, 32, endpoint=False)[:, None], np.full(32, 2 / 32)


class Attracted(Problem):
    """Ornstein-Uhlenbeck processes that are drawn to their mean, at a rate of 3: Gaussians stay Gaussians."""

    density = True
    linear = True

    @property
    def domain(self):
        return WholeSpace(1, centre=1.0, scale=0.5)

    def initial(self, x):
        return self.gaussian(x[0], 1.0, 0.25, jnp)

    def integrals(self, u, x, t):
        return u(x) * jnp.append(x, 1.0)

    def rhs(self, u, x, t, integrals):
        mean = integrals[0] / integrals[1]
        return 0.5 * laplacian(u, x) + divergence(lambda y: (y + 3 * (y - mean)) * u(y), x)

    def reference(self, x, t):
        return self.gaussian(x[:, 0], np.exp(-t), 0.125 + 0.125 * np.exp(-8 * t), np)

    @staticmethod
    def gaussian(x, mean, variance, numpy):
        return numpy.exp(-((x - mean) ** 2) / (2 * variance)) / numpy.sqrt(2 * numpy.pi * variance)


@pytest.mark.parametrize("problem, bound", [(Population(), 1e-3), (Nodes(), 1e-3), (Attracted(), 1e-2)])
def test_a_run_follows_the_exact_solution(problem, bound, tmp_path):
    """With integrals of zero the mean of the population would be 0.82 in place of 0.62 at the end, and that of the
    processes 0.14 in place of 0.61."""
    more = {
        "integrator": {"t_end": 0.5, "rtol": 1e-4},
        "sampling": {"points": 400},
        "fit": {"target": 1e-2, "iterations": 30},
    }
    run = solve(SMALL | more, problem=problem, directory=tmp_path / "run", quiet=True)
    assert run.errors()["relative_l2"][-1] < bound
    if isinstance(problem, Population):  # half the integral, which is the mean
        exact, tolerance = 1 / (1 + np.exp(-0.5)), bound if callable(problem.quadrature) else 0.02
        np.testing.assert_allclose(run.integrals(0.5), [exact], rtol=tolerance)


def test_implicit_steps_refuse_them():
    config = Config(problem={"name": "heat"}, integrator={"method": "bdf"}, **SMALL)
    with pytest.raises(InputError, match="integrator.method = 'bdf' does not differentiate integrals"):
        Simulation(config, Population())
