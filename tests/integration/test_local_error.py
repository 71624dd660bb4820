"""The estimated error of a step against its true error, the difference to sixteen steps in its place.

The Jacobian of this network changes direction within a step, as in every real run; that of the exact network in
tests/run/test_steps.py hardly does.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from nivp_dist.backend.host_numbers import read
from nivp_dist.galerkin.norms import StepNorms
from nivp_dist.integration.attempts import combine
from nivp_dist.integration.tableaus import TABLEAUS, attempt
from nivp_dist.problems.wave import Wave
from nivp_dist.run.simulation import Simulation
from nivp_dist.settings.model import Config

PULSE = {"dimension": 1, "width": 0.2, "speed_squared": 1.0}
SUBSTEPS = 16


@pytest.fixture(scope="module")
def pulse():
    """A pulse in one dimension, fitted to a thousandth."""
    config = Config(
        problem={"name": "wave", "parameters": PULSE},
        network={"width": 10, "depth": 2, "frequencies": 3},
        sampling={"points": 600},
        solver={"method": "primal", "mu": 1e-11},
        fit={"points": 600, "iterations": 25, "on_miss": "continue", "order": 1},
        devices=1,
    )
    simulation = Simulation(config, Wave(**PULSE))
    state = simulation.begin()
    while not simulation.fits.is_done(state):
        state = simulation.fits.advance(state)
    assert float(state.fit.error) < 2e-3
    state, _ = simulation.fits.finish_initial(state)
    points = simulation.sampler.draw(jax.random.key(0), state.density, config.sampling.points)
    shared = simulation.galerkin.prepare(state.theta, points, jax.random.key(1), 0)
    return SimpleNamespace(galerkin=simulation.galerkin, theta=state.theta, points=points, shared=shared)


def step(pulse, tableau, theta, t, h):
    """One step, and the field's rates at its stages."""
    rates = []

    def velocity(theta, t):
        result = pulse.galerkin.velocity(theta, t, pulse.points, pulse.shared, jnp.zeros_like(theta))
        rates.append(result.rate)
        return result.v

    return attempt(tableau, velocity, combine, theta, t, h, None), rates


@pytest.mark.parametrize(
    "method, h",
    [
        ("bogacki_shampine", 0.005),
        ("cash_karp", 0.005),
        ("dormand_prince", 0.0025),
    ],  # theta moves so far that J changes in the step
)
def test_the_estimated_error_of_a_step_is_its_true_error(pulse, method, h):
    tableau, fine = TABLEAUS[method], pulse.theta
    one, rates = step(pulse, tableau, pulse.theta, 0.0, h)
    for k in range(SUBSTEPS):
        fine = step(pulse, tableau, fine, k * h / SUBSTEPS, h / SUBSTEPS)[0].theta
    increments = [combine(None, h, b, rates) for b in (tableau.b, tableau.b_error)]
    packed = pulse.galerkin.step_norms(pulse.theta, 0.0, one.theta, one.error, *increments, pulse.points)
    norms = read(StepNorms, packed)
    field = lambda theta: pulse.galerkin.network.field(theta, pulse.points.x)  # noqa: E731
    difference = pulse.points.weights[:, None] * (field(one.theta) - field(fine)) ** 2
    true = float(jnp.sqrt(jnp.sum(difference)) / norms.scale)
    assert norms.error / norms.scale == pytest.approx(true, rel=0.2)
    assert norms.embedded / norms.scale < true / 2  # the embedded error alone is too small
