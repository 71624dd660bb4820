"""integrator.method = "auto": explicit steps, implicit ones while stability makes those dearer, and the same bits."""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.errors import StepTooShort
from nivp_dist.integration.switching import WINDOW
from nivp_dist.problems import Box, Problem, derivatives
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.run.auto_steps import AutoStepper
from nivp_dist.run.implicit_steps import ImplicitStepper
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import from_tree, to_tree
from nivp_dist.run.steps import Stepper
from nivp_dist.settings.model import Config

STIFF = {"integrator__method": "auto", "integrator__rtol": 1e-3, "integrator__t_end": 0.1}
STIFF |= {"problem__parameters__k": 1.0, "output__times": []}


def test_a_stiff_run_becomes_implicit_and_resumes_after_that(runs, same, crash):
    """Stopped in the first implicit steps; explicit steps are on the disk as well."""
    ran = runs.run(**STIFF)
    implicit = [line["implicit"] for line in ran.metrics]
    first = implicit.index(1)
    assert WINDOW <= first <= 2 * WINDOW and all(implicit[first:])
    assert ran.summary["errors"][-1]["relative_l2"] < ran.summary["errors"][-1]["estimate"] < 2e-3
    (message,) = (message for kind, message in ran.events if kind == "finding")
    assert message.startswith("implicit steps (bdf) from here on")
    resumed = runs.resume(runs.begin(crash, ("step", first + 2), **STIFF, checkpoint__every_steps=1))
    same(resumed, ran)


# A stiffness that ends ------------------------------------------------------------------------------------------------


class Ending(Problem):
    """u_t = s (u_xx + u) - u, s = stiffness until t = until and zero after that: u = exp(-t) sin x whatever s is.

    With u = 0 at both ends sin x is the slowest mode, and all others decay.
    """

    stiffness: float = 100.0
    until: float = 0.5

    @property
    def domain(self):
        return Box(1, 0.0, np.pi)

    def initial(self, x):
        return jnp.sin(x[0])

    def rhs(self, u, x, t):
        value, _, curvature = derivatives(u, x)
        return jnp.where(t < self.until, self.stiffness, 0.0) * (curvature + value) - value


def evolved(t_end, method="auto", min_step=1e-7, **parameters):
    """The states and messages of all steps, and the simulation."""
    config = Config(
        problem={"name": "ending"},
        network={"width": 6, "depth": 1, "frequencies": 1, "activation": "tanh"},
        sampling={"method": "uniform", "points": 80},
        solver={"method": "primal", "mu": 1e-10},
        integrator={"method": method, "rtol": 1e-4, "t_end": t_end, "min_step": min_step},
        fit={"points": 80, "iterations": 60, "target": 1e-4, "stop_at": 1e-6, "line_search": True},
        output={"spectrum_every": 0},
        devices=1,
    )
    simulation = Simulation(config, Ending(**parameters))
    state = simulation.begin()
    while not simulation.fits.is_done(state):
        state = simulation.fits.advance(state)
    state = simulation.fits.finish_initial(state)[0]._replace(outputs_written=1)
    states, messages = [state], []
    while state.t < t_end:
        accepted = simulation.step(state, lambda: None)
        state, messages = accepted.state, messages + accepted.findings
        states.append(state)
    return states, messages, simulation


def test_explicit_steps_return_where_the_stiffness_ends():
    states, messages, simulation = evolved(3.0, stiffness=1000.0)
    methods = [state.switching.name for state in states]
    changes = [(a, b) for a, b in zip(methods, methods[1:]) if a != b]
    assert changes == [("explicit", "bdf"), ("bdf", "explicit")]
    first = methods.index("bdf")
    back = states[methods.index("explicit", first) - 1]
    assert back.t > 0.5 and sum("explicit steps (cash_karp) from here on" in message for message in messages) == 1
    again = from_tree(to_tree(states[first]), simulation.mesh)  # what is kept of the explicit steps
    np.testing.assert_array_equal(again.switching.records, states[first].switching.records)
    np.testing.assert_array_equal(again.earlier[0], states[first - 1].theta)
    assert again.switching[:-1] == states[first].switching[:-1] and again.switching.explicit_step < 0.1
    x = np.linspace(0, np.pi, 50)[:, None]
    values = np.asarray(simulation.network.values(states[-1].theta, x))[:, 0]
    np.testing.assert_allclose(values, np.exp(-3.0) * np.sin(x[:, 0]), atol=2e-3 * np.exp(-3.0))


def test_a_run_that_no_explicit_step_can_begin_begins_with_implicit_ones(monkeypatch):
    """The shortest step is 1e-4, and rho is 50 times the stiffness or more. The steps are those of bdf."""
    stiff = {"min_step": 1e-4, "stiffness": 3000.0, "until": 9.0}
    states, messages, simulation = evolved(0.1, **stiff)
    assert [state.switching.name for state in states[1:]] == ["bdf"] * (len(states) - 1)
    assert len(messages) == 1 and "no explicit step is accepted" in messages[0]
    implicit = evolved(0.1, method="bdf", **stiff)[0]
    assert [state.t for state in states] == [state.t for state in implicit]
    np.testing.assert_array_equal(states[-1].theta, implicit[-1].theta)
    with pytest.raises(StepTooShort, match="step size below integrator.min_step = 0.0001 at t = 0") as explicit:
        evolved(0.1, method="cash_karp", **stiff)

    def fail(*_):
        raise StepTooShort("nor is an implicit one")

    monkeypatch.setattr(ImplicitStepper, "step", fail)
    with pytest.raises(StepTooShort) as both:
        simulation.step(states[0], lambda: None)
    assert str(both.value) == str(explicit.value)


def test_a_run_that_is_not_stiff_has_the_bits_of_explicit_steps():
    (auto, messages, _), (explicit, *_) = (evolved(1.0, method, stiffness=0.1) for method in ("auto", "cash_karp"))
    assert {state.switching.method for state in auto} == {0} and not messages
    assert [state.t for state in auto] == [state.t for state in explicit]
    np.testing.assert_array_equal(auto[-1].theta, explicit[-1].theta)


def test_where_implicit_steps_are_impossible_all_are_explicit():
    for changes, kind in [({}, AutoStepper), ({"solver": {"method": "pcg"}}, Stepper)]:
        config = Config(problem={"name": "ending"}, integrator={"method": "auto"}, devices=1, **changes)
        assert type(Simulation(config, Ending()).stepper) is kind
    config = Config(problem={"name": "linear_fokker_planck"}, integrator={"method": "auto"}, devices=1)
    simulation = Simulation(config, LinearFokkerPlanck(dimension=2))
    assert type(simulation.stepper) is Stepper and simulation.blank().earlier.shape[0] == 0
