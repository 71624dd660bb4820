"""Limits of stability against known ones, and the stiffness that a step meets against that of its equation."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.integration.attempts import combine
from nivp_dist.integration.stability import UNSTABLE_GROWTH, stability_function, stability_limit, stiffness
from nivp_dist.integration.step_size import StepControl
from nivp_dist.integration.tableaus import TABLEAUS, attempt
from nivp_dist.problems.heat import Heat
from nivp_dist.run.simulation import Simulation
from nivp_dist.settings.model import Config

KNOWN = {  # on the negative real axis, on the imaginary axis
    "heun": (2.0, 0.0),
    "bogacki_shampine": (2.513, np.sqrt(3)),  # R is that of every method of order 3 with three stages
    "cash_karp": (3.734, 0.0),
    "dormand_prince": (3.307, 0.997),
}


@pytest.mark.parametrize("name", TABLEAUS)
def test_limits_of_stability(name):
    """On the imaginary axis |R| of two pairs exceeds one from zero on, by less than rounding at first."""
    real, imaginary = KNOWN[name]
    assert stability_limit(TABLEAUS[name], 180) == pytest.approx(real, abs=2e-3)
    assert stability_limit(TABLEAUS[name], 90) == pytest.approx(imaginary, abs=5e-2 if imaginary == 0 else 2e-3)
    for angle in (90, 120, 180):
        assert stability_limit(TABLEAUS[name], angle, UNSTABLE_GROWTH) >= stability_limit(TABLEAUS[name], angle)


@pytest.mark.parametrize("name", TABLEAUS)
def test_a_step_multiplies_by_the_stability_function(name):
    z = -0.7 + 0.9j
    step = attempt(TABLEAUS[name], lambda y, t: z / 0.1 * y, combine, np.array([1 + 0j]), 0.0, 0.1, None)
    np.testing.assert_allclose(step.theta[0], stability_function(TABLEAUS[name])(z), rtol=1e-13)


def met(tableau, velocity, theta, h):
    """The stiffness of a step from theta."""
    velocities = np.array(attempt(tableau, velocity, combine, theta, 0.0, h, None).velocities)
    return stiffness(tableau, velocities @ velocities.T)


def linear(eigenvalues):
    """A, which is not normal and has these eigenvalues and the conjugates of the complex ones, and a start of y' = A y
    with all modes."""
    blocks = [np.array([[z.real, z.imag], [-z.imag, z.real]]) if z.imag else np.array([[z.real]]) for z in eigenvalues]
    size = sum(map(len, blocks))
    turn = np.eye(size) + 0.2 * np.random.default_rng(0).standard_normal((size, size)) / np.sqrt(size)
    matrix, at = np.zeros((size, size)), 0
    for block in blocks:
        matrix[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return turn @ matrix @ np.linalg.inv(turn), turn @ np.ones(size)


@pytest.mark.parametrize("name", ["bogacki_shampine", "cash_karp", "dormand_prince"])
@pytest.mark.parametrize("dominant, angle", [(-30 + 0j, 180), (30j, 90), (30 * np.exp(2.2j), 126), (20 + 0j, 0)])
def test_the_dominant_eigenvalue_of_a_linear_equation(name, dominant, angle):
    tableau = TABLEAUS[name]
    matrix, y = linear([dominant, -5 + 0j, -2 + 0j, -0.5 + 0j])
    limit = stability_limit(tableau, angle, UNSTABLE_GROWTH)
    h = (0.9 * limit if angle else 2.0) / abs(dominant)
    found = met(tableau, lambda y, t: matrix @ y, y, h)
    assert found.h_rho == pytest.approx(h * abs(dominant), rel=0.1)
    assert found.angle == pytest.approx(angle, abs=10)
    assert found.limit == pytest.approx(limit, rel=0.1)


def test_two_stages_see_one_direction():
    """The difference of the two stages of "heun" lies along the velocity, in which the fastest mode weighs most."""
    matrix, y = linear([-30 + 0j, -5 + 0j, -2 + 0j, -0.5 + 0j])
    assert met(TABLEAUS["heun"], lambda y, t: matrix @ y, y, 1 / 15).h_rho == pytest.approx(2.0, rel=0.1)


def test_an_equation_at_rest_is_not_stiff():
    found = met(TABLEAUS["cash_karp"], lambda y, t: 0 * y, np.ones(3), 0.1)
    assert found.h_rho / found.limit == 0


def test_nothing_is_said_of_velocities_whose_scalar_products_overflow():
    tableau = TABLEAUS["cash_karp"]
    stages = len(tableau.b)
    assert stiffness(tableau, np.full((stages, stages), np.inf)).h_rho == 0.0


# A network that solves a heat equation --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diffusion():
    """velocity(theta), and a theta to start from; random parameters serve, because every theta has a velocity."""
    network, sampling = {"width": 5, "depth": 1, "frequencies": 2}, {"points": 101, "method": "uniform"}
    config = Config(
        problem={"name": "heat"}, network=network, sampling=sampling, solver={"method": "primal", "mu": 1e-8}, devices=1
    )
    simulation = Simulation(config, Heat(dimension=1, width=0.3))
    galerkin, theta = simulation.galerkin, simulation.network.initialise(jax.random.key(0))
    points = simulation.sampler.draw(jax.random.key(1), simulation.blank().density, 101)
    shared = galerkin.prepare(theta, points, jax.random.key(2), 0)
    velocity = jax.jit(lambda theta: galerkin.velocity(theta, 0.0, points, shared, jnp.zeros_like(theta)).v)
    return SimpleNamespace(velocity=lambda theta, t: np.asarray(velocity(theta)), theta=np.asarray(theta))


def dominant_of(velocity, theta):
    """The dominant eigenvalue of d velocity / d theta, by central differences in all directions."""
    step = 1e-5 * np.linalg.norm(theta)
    moved = [(velocity(theta + step * e, 0.0) - velocity(theta - step * e, 0.0)) for e in np.eye(len(theta))]
    return max(np.linalg.eigvals(np.array(moved).T / (2 * step)), key=abs)


@pytest.mark.parametrize("name", ["cash_karp", "dormand_prince"])
def test_the_stiffness_of_a_network_that_diffuses(diffusion, name):
    """Steps as long as their errors allow come to the limit of stability, and meet the dominant eigenvalue there."""
    tableau, theta, h, error, found = TABLEAUS[name], diffusion.theta, 1e-3, 1.0, []
    control = StepControl(tableau.order, 0.0, np.inf)
    while len(found) < 100:
        step = attempt(tableau, diffusion.velocity, combine, theta, 0.0, h, None)
        before, error = error, float(np.linalg.norm(step.error) / (1e-5 * np.linalg.norm(theta)))
        if error > 1:
            h, error = control.rejected(h, error), before
            continue
        velocities, last = np.array(step.velocities), (theta, h)
        found.append(stiffness(tableau, velocities @ velocities.T))
        theta, h = step.theta, control.accepted(h, error, before, False)
    assert found[0].h_rho < 0.2 * found[0].limit  # the first step is short
    assert all(0.9 < each.h_rho / each.limit < 1.1 and each.angle == 180 for each in found[-24:])
    assert found[-1].h_rho == pytest.approx(last[1] * abs(dominant_of(diffusion.velocity, last[0])), rel=0.1)
