"""Points that follow the residual of the velocity at the start of a step (sampling.method = "residual").

The network cannot represent the solution, so that there is a residual: Burgers' equation with few parameters, from
initial parameters as they come.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import rankdata

from nivp_dist.backend import random_keys
from nivp_dist.errors import RunFailed
from nivp_dist.galerkin.velocity import Quality
from nivp_dist.integration.stages import LARGER_MU, Stages
from nivp_dist.problems import registry
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import EVOLVE, replicated
from nivp_dist.run.steps import Stepper, last_step
from nivp_dist.settings.files import read_config

N, OVERSAMPLING = 401, 4  # not a multiple of 4 devices
SETTINGS = {
    "sampling.points": str(N),
    "sampling.oversampling": str(OVERSAMPLING),
    "network.width": "8",
    "network.depth": "1",
    "network.frequencies": "2",
    "solver.mu": "1e-6",
    "integrator.rtol": "1e-2",
    "integrator.initial_step": "0.001",
    "output.spectrum_every": "0",
}
no_poll = lambda: None  # noqa: E731


class Recorder:
    """A Galerkin that records the points of its velocities, and may replace velocities: spoil(call, velocity)."""

    def __init__(self, galerkin, spoil=lambda call, velocity: velocity):
        self.inner, self.spoil, self.points = galerkin, spoil, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def velocity(self, theta, t, points, regularisation, guess):
        self.points.append(np.asarray(points.x))
        return self.spoil(len(self.points), self.inner.velocity(theta, t, points, regularisation, guess))


class Case:
    def __init__(self, devices=1):
        config = read_config("burgers_1d", SETTINGS | {"devices": str(devices)})
        self.simulation = simulation = Simulation(config, registry.load(config.problem))
        theta = simulation.network.initialise(jax.random.key(1))
        blank = simulation.blank()._replace(phase=EVOLVE, outputs_written=1, theta=theta)
        self.state = replicated(blank, simulation.mesh)

    def stepper(self, galerkin, direct=None):
        simulation = self.simulation
        return Stepper(simulation.config, galerkin, simulation.sampler, simulation.output_times, direct)

    def run(self, steps, stepper=None):
        """The results of so many steps from the start."""
        state, results = self.state, []
        for _ in range(steps):
            results.append((stepper or self.simulation.stepper).step(state, no_poll))
            state = results[-1].state
        return results


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def taken(case):
    """Three steps with a record of their points."""
    recorder = Recorder(case.simulation.galerkin)
    return case.run(3, case.stepper(recorder)), recorder.points


def rank_correlation(case, state, measure):
    """Spearman's correlation of |J v - f|^2 for the velocity `measure` with that for the velocity of the step from
    `state`, on points to which neither is fitted."""
    simulation = case.simulation
    at, pilot = simulation.stepper._where_residual_is_large(
        state, simulation.stepper.discretisation(state), last_step(state), no_poll
    )
    velocity = Stages(simulation.stepper.choice.system(at, last_step(state)), state.velocity, state.t)
    velocity = velocity(state.theta, state.t)
    fresh = simulation.sampler.draw(jax.random.key(5), state.density, 2000)
    squares = [simulation.galerkin.residual_squares(state.theta, state.t, v, fresh) for v in (measure(pilot), velocity)]
    return np.corrcoef(*map(rankdata, squares))[0, 1]


@pytest.mark.parametrize("moment", ["after a refit", "late"])
def test_points_are_ranked_by_the_residual_of_the_step(case, taken, moment):
    """A refit leaves no velocity behind. The velocity of the step before, even of the same theta, ranks otherwise."""
    state = case.state if moment == "after a refit" else taken[0][-1].state
    pilot = rank_correlation(case, state, lambda pilot: pilot.first)
    before = rank_correlation(case, state, lambda _: state.velocity)
    assert pilot > 0.8 and before < 0.5, (pilot, before)


def test_a_step_takes_one_more_velocity_on_other_points(case, taken):
    """Neither of its two sets of points is among the candidates of the other."""
    results, points = taken
    assert [result.metrics["evaluations"] for result in results] == [7, 7, 7]
    assert results[-1].state.evaluations == len(points) == 21
    state, sampler = results[1].state, case.simulation.sampler
    pilot, *others = points[14:]
    assert all(np.array_equal(each, others[0]) for each in others)
    for found, key in ((pilot, random_keys.step_points_key), (others[0], random_keys.residual_points_key)):
        candidates = sampler.draw(key(state.run_key, 2), state.density, N * OVERSAMPLING)
        assert {*found[:, 0]} <= {*np.asarray(candidates.x)[:, 0]}


def test_the_same_state_gives_the_same_bits(case, taken):
    again = case.simulation.stepper.step(taken[0][1].state, no_poll)
    np.testing.assert_array_equal(again.state.theta, taken[0][2].state.theta)
    assert again.metrics == taken[0][2].metrics


def not_finite(number):
    """Spoils the residual of the velocity with that number."""
    residual = Quality._fields.index("residual")

    def spoil(call, velocity):
        return velocity._replace(numbers=velocity.numbers.at[residual].set(jnp.nan)) if call == number else velocity

    return spoil


def test_without_a_pilot_the_step_is_taken_on_its_points(case, taken):
    recorder = Recorder(case.simulation.galerkin, not_finite(1))
    result = case.stepper(recorder).step(case.state, no_poll)
    assert all(np.array_equal(each, taken[1][0]) for each in recorder.points)
    assert result.metrics["evaluations"] == 7 and result.state.t > 0
    (warning,) = result.warnings
    assert warning == f"the points do not follow the residual: the velocity at t = 0 is not finite; {LARGER_MU}"


def test_where_there_is_no_velocity_at_all_the_run_fails(case):
    recorder = Recorder(case.simulation.galerkin, lambda call, velocity: not_finite(call)(call, velocity))
    with pytest.raises(RunFailed, match="^the velocity at t = 0 is not finite"):
        case.stepper(recorder).step(case.state, no_poll)
    assert len(recorder.points) == 2


@pytest.mark.devices
def test_two_steps_on_four_devices(case, taken):
    one, many = taken[0][1].state, Case(devices=4).run(2)[-1].state
    assert many.t == pytest.approx(one.t, rel=1e-9)
    np.testing.assert_allclose(np.asarray(many.theta), one.theta, rtol=0, atol=1e-9)
