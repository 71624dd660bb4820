"""The widened network holds the narrow one, and the time derivative comes into its tangent space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend.mesh import make_mesh
from nivp_dist.fitting.time_derivative_targets import SHARE, Source, TimeDerivativeTargets
from nivp_dist.network.network import build_network
from nivp_dist.points.points import Points
from nivp_dist.problems import Box, Problem
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.problems.wave import Wave
from nivp_dist.run.simulation import Simulation
from nivp_dist.settings.model import Config, NetworkSettings

SETTINGS = NetworkSettings(width=6, depth=2, frequencies=2)
PROBLEM = Wave(width=0.3)
X = np.random.default_rng(0).uniform(-1, 1, (40, 2))
POINTS = Points(jnp.asarray(X), jnp.full(40, 1 / 40), jnp.full(40, 0.1))


class Moved(Problem):
    """A Gaussian, moved along the first coordinate at a velocity of two, far from the walls."""

    @property
    def domain(self):
        return Box(2, (-9.0, -9.0), (9.0, 9.0))

    def initial(self, x):
        return jnp.exp(-(x @ x) / (2 * 0.5))

    def rhs(self, u, x, t):
        return -2 * jax.grad(u)(x)[0]


@pytest.fixture(scope="module")
def time_derivative_targets():
    return TimeDerivativeTargets(SETTINGS, PROBLEM, build_network(SETTINGS, PROBLEM), make_mesh(1))


def source(problem, network, function=None):
    """Of an initial value, or of another function of a point."""
    u = function or problem.initial
    field = lambda _, x: network.as_field(jnp.reshape(jax.vmap(u)(x), (len(x), network.outputs)))  # noqa: E731
    return Source(field, lambda _: (u, 0.0))


def test_the_narrow_network_is_the_first_half_of_the_wide_one(time_derivative_targets):
    wide = jax.jit(time_derivative_targets.network.initialise)(jax.random.key(0))
    narrow = time_derivative_targets.restrict(wide)
    assert narrow.shape == (time_derivative_targets.narrow.size,)
    both = time_derivative_targets.network.field(wide, X)
    np.testing.assert_array_equal(time_derivative_targets.narrow.field(narrow, X), both[:, :2])


def test_the_target_is_u_beside_its_time_derivative_in_the_units_of_the_field(time_derivative_targets):
    start = source(PROBLEM, time_derivative_targets.narrow)
    scales = time_derivative_targets.scales(start, None, POINTS)
    target = np.asarray(time_derivative_targets.target(start, None, scales, POINTS.x))
    pulse = np.exp(-np.sum(X**2, 1) / (2 * 0.3**2)) / (60 * np.pi * 0.3**2)
    laplacian = (np.sum(X**2, 1) / 0.3**4 - 2 / 0.3**2) * pulse
    np.testing.assert_allclose(target[:, 0], time_derivative_targets.narrow.scales[0] * pulse, rtol=1e-12)
    np.testing.assert_array_equal(target[:, 1:3], 0)  # u_t at rest, and the derivative of u, which is u_t
    ratio = target[:, 3] / (0.1 * laplacian)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(target[:, 3]), SHARE * np.linalg.norm(target[:, :2]), rtol=1e-9)


def test_a_derivative_that_vanishes_is_not_scaled(time_derivative_targets):
    scales = time_derivative_targets.scales(
        source(PROBLEM, time_derivative_targets.narrow, lambda x: jnp.zeros(2)), None, POINTS
    )
    np.testing.assert_array_equal(scales, 1.0)


def test_time_derivative_targets_of_an_exponential():
    """Beside u = B exp(q) its derivative B exp(q) q_t: what is B exp(q) times a signed function."""
    problem, settings = Moved(), NetworkSettings(width=6, depth=2, frequencies=0, form="exponential")
    density = TimeDerivativeTargets(settings, problem, build_network(settings, problem), make_mesh(1))
    narrow, wide = density.narrow, density.network
    theta = wide.initialise(jax.random.key(0))
    field = np.asarray(wide.field(theta, X))
    assert field.shape == (40, 2) and (field[:, 1] > 0).any() and (field[:, 1] < 0).any()
    np.testing.assert_allclose(narrow.field(density.restrict(theta), X), field[:, :1], rtol=1e-12)
    start = source(problem, narrow)
    target = np.asarray(density.target(start, None, 1.0, POINTS.x))
    expected = 2 * X[:, 0] / 0.5 * target[:, 0]  # exp(-|x|^2 / (2 0.5)), shifted at a velocity of two
    np.testing.assert_allclose(target[:, 1], expected, rtol=1e-10)
    scale = SHARE * np.linalg.norm(target[:, 0]) / np.linalg.norm(expected)
    np.testing.assert_allclose(density.scales(start, None, POINTS), scale, rtol=1e-10)


def test_which_fits_have_time_derivative_targets():
    def wanted(problem, time_derivative_targets="auto", **settings):
        network = {"width": 4, "depth": 1} | settings
        fit = {"time_derivative_targets": time_derivative_targets}
        config = Config.model_validate({"problem": {"name": "wave"}, "network": network, "fit": fit})
        return TimeDerivativeTargets.wanted(config, build_network(config.network, problem))

    assert wanted(PROBLEM) and not wanted(PROBLEM, trunk="separate")
    assert wanted(Moved(), form="exponential") and not wanted(Moved(), form="direct")
    assert not wanted(LinearFokkerPlanck(dimension=1), form="exponential")
    assert wanted(LinearFokkerPlanck(dimension=1), True) and not wanted(PROBLEM, False)


def residuals_after_fit(seeds, wanted: bool) -> np.ndarray:
    """Of the first velocity of a wave at rest, on fresh points, for each seed."""
    config = Config.model_validate(
        {
            "devices": 1,
            "problem": {"name": "wave", "parameters": {"width": 0.2}},
            "network": {"width": 10, "depth": 2, "frequencies": 2, "alpha": 0.0, "symmetry": False},
            "sampling": {"points": 900},
            "solver": {"method": "primal"},
            "fit": {"points": 900, "iterations": 30, "time_derivative_targets": wanted, "on_miss": "continue"},
            "integrator": {"initial_step": 1e-3, "t_end": 1e-3},
        }
    )
    simulation = Simulation(config, Wave(width=0.2))

    def residual(seed):
        state = simulation.begin(seed)
        while not simulation.fits.is_done(state):
            state = simulation.fits.advance(state)
        state = simulation.after_output(simulation.fits.finish_initial(state)[0])
        return simulation.step(state, lambda: None).metrics["residual_fresh"]

    return np.array([residual(seed) for seed in seeds])


def test_the_residual_of_a_system_at_rest_falls():
    """A wave at rest: without these targets its u_t has next to no tangent space."""
    seeds = range(3)
    ratios = residuals_after_fit(seeds, True) / residuals_after_fit(seeds, False)
    assert np.exp(np.mean(np.log(ratios))) < 0.5  # of seeds 0 to 4: 0.15 to 0.53, geometric mean 0.29
