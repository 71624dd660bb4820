"""A small problem on a box, fitted on meshes of 1, 2 and 4 devices (those that the process has)."""

import jax
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.fitting.fit import Fitter
from nivp_dist.galerkin.discretisation import Discretisation
from nivp_dist.galerkin.velocity import Galerkin
from nivp_dist.network.network import build_network
from nivp_dist.points.sampling import Sampler
from nivp_dist.problems import Box, Problem
from nivp_dist.settings.fits import FitSettings
from nivp_dist.settings.model import NetworkSettings, SamplingSettings, SolverSettings


class OnABox(Problem):
    outputs = 2

    @property
    def domain(self):
        return Box(2)

    def initial(self, x):
        return x

    def rhs(self, u, x, t):
        return u(x)


class Setting:
    """Network, operator and sampler of one problem, and fitters that share them."""

    def __init__(self, problem, mesh, points, network, sampling):
        self.network = build_network(NetworkSettings(**network), problem)
        settings = SamplingSettings(points=points, **sampling)
        self.sampler = Sampler(settings, problem.domain, self.network.log_density, mesh)
        self.galerkin, self.iterative = (
            Galerkin(Discretisation(self.network, problem, settings, mesh), SolverSettings(method=method), fit_order=1)
            for method in ("primal", "dual_pcg")
        )
        self.density, self.points, self.mesh = self.sampler.broadest(), points, mesh
        self.theta = jax.jit(self.network.initialise)(jax.random.key(0))

    def fitter(self, target, /, iterative=None, goal=None, aim=None, **settings):
        # Fits of a few rounds miss their target, and are not extended.
        settings = FitSettings(**{"points": self.points, "batch": 50, "on_miss": "continue"} | settings)
        return Fitter(self.galerkin, self.sampler, settings, target, iterative=iterative, goal=goal, aim=aim)

    def draw(self, key):
        return self.sampler.draw(key, self.density)

    def dense(self, theta, points):
        """J (n m, p) and the diagonal of W (n m,) by jax.jacobian."""
        x = np.asarray(points.x)
        j = jax.jit(jax.jacobian(lambda theta: self.network.field(theta, x)))(theta)
        return np.asarray(j).reshape(-1, self.network.size), np.repeat(np.asarray(points.weights), self.network.outputs)


@pytest.fixture(scope="session")
def setting():
    """(problem, mesh, points, network settings, sampling settings) -> Setting."""

    def make(problem=None, devices=1, points=150, network=None, sampling=None):
        network = network or {"width": 5, "depth": 1, "frequencies": 1, "activation": "tanh"}
        sampling = sampling or {"method": "uniform"}
        return Setting(problem or OnABox(), make_mesh(devices), points, network, sampling)

    return make


@pytest.fixture(scope="module")
def box(setting):
    return setting()
