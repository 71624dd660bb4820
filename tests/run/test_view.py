"""What callbacks see of a run, against a density that is known exactly; and the trackers that compute with it."""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.backend import random_keys
from nivp_dist.callbacks import Conserved, LivePicture, SteadyState
from nivp_dist.points.mixture import Density
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import EVOLVE
from nivp_dist.run.view import Moment, StateView
from nivp_dist.settings.files import read_config

D, MEAN, STEP = 2, np.array([0.3, -0.2]), 0.1


class Known(LinearFokkerPlanck):
    """A problem whose invariants have integrals that are known for a Gaussian."""

    def invariants(self, u, x):
        return {"square": jnp.sum(x**2) * u(x), "two": 2.0 * u(x)}


@pytest.fixture(scope="module")
def simulation():
    settings = {"problem.parameters.dimension": str(D), "network.width": "4", "network.depth": "1", "devices": "1"}
    return Simulation(read_config("linear_fokker_planck_8d", settings), Known(dimension=D))


def gaussian(simulation, variance, mass=1.0, **changes):
    """A state whose network is a Gaussian of that variance and mass, exactly, and whose points follow it."""
    network, count = simulation.network, len(simulation.network.quadratics)
    covariances, means = jnp.tile(variance * jnp.eye(D), (count, 1, 1)), jnp.tile(jnp.array(MEAN), (count, 1))
    near = network.initialise_near(random_keys.run_key(0), jnp.full(count, mass / count), means, covariances)
    theta = jnp.zeros(network.size)
    for form in network.quadratics:  # the rest of the network is zero
        theta = theta.at[form.start : form.stop].set(near[form.start : form.stop])
    density = Density(jnp.full(count, 1 / count), means, covariances)
    return simulation.blank()._replace(phase=EVOLVE, theta=theta, density=density, **changes)


def exact(x, variance):
    return np.exp(-np.sum((x - MEAN) ** 2, axis=-1) / (2 * variance)) / (2 * np.pi * variance) ** (D / 2)


def view_of(simulation, directory, variance=0.5, before=None, mass=1.0, step=10):
    state = gaussian(simulation, variance, mass, t=STEP, step=step)
    earlier = None if before is None else gaussian(simulation, before, mass, t=0.0)
    return StateView(Moment("after_step", state, earlier), simulation, directory, {})


def test_the_solution_and_its_rate(simulation, tmp_path):
    view, x = view_of(simulation, tmp_path, before=0.4), np.random.default_rng(0).normal(size=(7, D))
    np.testing.assert_allclose(view.solution(x)[:, 0], exact(x, 0.5), rtol=1e-10)
    assert float(view.solution(x[0])) == pytest.approx(exact(x[0], 0.5))
    np.testing.assert_allclose(view.rate(x)[:, 0], (exact(x, 0.5) - exact(x, 0.4)) / STEP, rtol=1e-8, atol=1e-12)


def test_integrals_and_expectations_lie_within_their_errors(simulation, tmp_path):
    view = view_of(simulation, tmp_path, mass=1.5)
    second = D * 0.5 + MEAN @ MEAN
    found = view.integrals()
    for name, wanted in (("mass", 1.5), ("two", 3.0), ("square", 1.5 * second)):
        value, error = found[name]
        assert abs(value - wanted) < 4 * error < 0.1 * wanted, name
    value, error = view.expectation(lambda x: np.sum(x**2, axis=1))
    assert abs(value - second) < 4 * error < 0.1 * second
    x, weights = view.points(5000)
    assert x.shape == (5000, D) and np.sum(weights * exact(x, 0.5)) == pytest.approx(1.0, abs=0.05)


def test_numbers_are_recorded_after_steps_once_and_by_a_name(simulation, tmp_path):
    view = view_of(simulation, tmp_path)
    view.record("peak", np.float32(2.0))
    assert view.recorded == {"peak": 2.0} and type(view.recorded["peak"]) is float
    with pytest.raises(ValueError, match="is no name"):
        view.record("the peak", 1.0)
    with pytest.raises((TypeError, ValueError)):
        view.record("peak", [1.0, 2.0])
    view._taken = {"peak": 1.0}
    with pytest.raises(ValueError, match="recorded by another callback"):
        view.record("peak", 1.0)
    other = StateView(Moment("at_output", gaussian(simulation, 0.5)), simulation, tmp_path, {})
    with pytest.raises(ValueError, match="call record in after_step"):
        other.record("peak", 1.0)
    with pytest.raises(ValueError, match="call rate in after_step"):
        other.rate(np.zeros((1, D)))


def test_the_rate_of_change_of_a_density_is_that_of_its_logarithm(simulation, tmp_path):
    """For a Gaussian whose variance s changes, (log u)_t = (|x - m|^2 / (2 s^2) - d / (2 s)) s_t, with the root mean
    square sqrt(d / 2) s_t / s under u."""
    tracker = SteadyState(tolerance=1.0)
    slow, fast = (view_of(simulation, tmp_path, before=0.5 - change) for change in (1e-4, 1e-1))
    tracker.after_step(slow)
    wanted = np.sqrt(D / 2) * (1e-4 / STEP) / 0.5
    assert slow.recorded["rate_of_change"] == pytest.approx(wanted, rel=0.1)
    tracker.after_step(fast)
    assert fast.recorded["rate_of_change"] > 1.0


def test_a_steady_state_stops_the_run_after_some_steps_in_succession(simulation, tmp_path):
    tracker, still, moving = (
        SteadyState(tolerance=0.1, steps=2),
        view_of(simulation, tmp_path, before=0.5),
        view_of(simulation, tmp_path, before=0.4),
    )
    stops = []
    for view in (still, moving, still, still):
        view.wanted_stop = ""
        tracker.after_step(view)
        stops.append(view.wanted_stop)
    assert stops[:3] == ["", "", ""] and stops[3].startswith("steady state: u changes by 0 of itself")


def test_what_is_conserved_is_compared_with_its_first_value(simulation, tmp_path):
    tracker = Conserved(tolerance=0.05)
    tracker.after_fit(view_of(simulation, tmp_path, step=0))
    same, other, between = (
        view_of(simulation, tmp_path),
        view_of(simulation, tmp_path, mass=1.2),
        view_of(simulation, tmp_path, step=5),
    )
    for view in (same, other, between):
        tracker.after_step(view)
    assert same.recorded["mass_change"] == 0.0 and same.recorded["mass"] == tracker.memory["first"]["mass"]
    assert other.recorded["two_change"] == pytest.approx(0.2 * same.recorded["two"])
    assert not same.wanted_stop and " has changed from " in other.wanted_stop
    assert not between.recorded and between.wanted_stop == other.wanted_stop  # it holds between two measurements


def test_the_live_picture_is_drawn_at_intervals_of_wall_time(simulation, tmp_path):
    tracker, picture = LivePicture(seconds=1e9), tmp_path / "pictures/live.png"
    view = view_of(simulation, tmp_path)
    tracker.after_step(view)
    first = picture.stat().st_ino
    tracker.after_step(view)
    assert picture.stat().st_ino == first  # not drawn again
    tracker.at_end(view)
    assert picture.stat().st_ino != first and [path.name for path in picture.parent.iterdir()] == ["live.png"]
