"""Implicit steps from State to State: orders, stiff equations, errors, refits, bits, devices, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import assert_close

from nivp_dist.errors import InputError
from nivp_dist.integration import bdf, implicit_solve
from nivp_dist.integration.bdf import LARGEST_ORDER, Multistep
from nivp_dist.integration.sdirk import ALEXANDER
from nivp_dist.problems import PeriodicBox, Problem, derivatives
from nivp_dist.problems.heat import Heat
from nivp_dist.problems.linear_fokker_planck import LinearFokkerPlanck
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import replicated
from nivp_dist.settings.files import read_config
from nivp_dist.settings.model import Config

BDF = {"integrator__method": "bdf", "integrator__rtol": 1e-5}
SDIRK = {"integrator__method": "sdirk", "integrator__rtol": 1e-4}
METHODS = pytest.mark.parametrize("method", [BDF, SDIRK], ids=["bdf", "sdirk"])


@pytest.fixture(scope="module")
def implicit(runs):
    return runs.run(**BDF)


@pytest.fixture(scope="module")
def runge_kutta(runs):
    return runs.run(**SDIRK)


def errors(ran):
    return [error["relative_l2"] for error in ran.summary["errors"]]


def assert_below_estimates(ran):
    """At the start the estimate is the same error, on other points."""
    start, *later = ran.summary["errors"]
    assert start["relative_l2"] == pytest.approx(start["estimate"], rel=0.1)
    assert all(error["relative_l2"] <= error["estimate"] for error in later)


def test_against_the_exact_solution(implicit):
    assert max(errors(implicit)) < 1e-3
    assert implicit.summary["status"] == "finished" and implicit.summary["solver"] == "primal"
    orders = [line["order"] for line in implicit.metrics]
    assert orders[0] == 1 and max(orders) >= 3 and all(abs(b - a) <= 1 for a, b in zip(orders, orders[1:]))
    # An error is larger where the misfit of the fit explains it.
    assert np.median([line["error"] for line in implicit.metrics]) <= 1e-5
    assert not [message for kind, message in implicit.events if kind in ("warning", "finding")]


def test_a_runge_kutta_pair_against_the_exact_solution(runge_kutta):
    assert max(errors(runge_kutta)) < 1e-3
    assert {line["order"] for line in runge_kutta.metrics} == {3}
    assert np.median([line["error"] for line in runge_kutta.metrics]) <= 1e-4
    assert_below_estimates(runge_kutta)
    assert not [message for kind, message in runge_kutta.events if kind in ("warning", "finding")]


def test_by_conjugate_gradients_it_is_the_same_solution(runs, implicit):
    """As closely as the tolerance of a step asks for, in as many steps and corrections."""
    ran = runs.run(**BDF, solver__method="pcg", solver__rank=40)
    assert ran.summary["solver"] == "pcg" and ran.summary["cg_iterations"] > 0
    assert max(errors(ran)) == pytest.approx(max(errors(implicit)), rel=0.1)
    assert abs(ran.summary["steps"] - implicit.summary["steps"]) <= 2
    corrections = [sum(line["evaluations"] for line in each.metrics) for each in (ran, implicit)]
    assert corrections[0] <= 1.2 * corrections[1]
    assert all(line["rank"] == 40 and line["cg_iterations"] > line["cg_wasted"] for line in ran.metrics)
    assert not [message for kind, message in ran.events if kind in ("warning", "finding")]


def test_numbers_of_a_matrix_that_is_not_formed_are_absent(implicit):
    assert all(line["mu"] is line["trace"] is None and "condition" not in line for line in implicit.metrics)


def test_the_estimate_is_above_the_error(implicit):
    assert_below_estimates(implicit)


def test_the_largest_order_is_that_of_the_settings(runs, implicit):
    second = runs.run(**BDF, integrator__max_order=2)
    orders = [max(line["order"] for line in run.metrics) for run in (second, implicit)]
    assert orders[0] == 2 < orders[1]


@pytest.mark.parametrize("moment", [("step", 1), ("step", 7)])
def test_a_crash_changes_nothing(runs, implicit, same, crash, moment):
    """Also one before the first checkpoint with earlier fields in it."""
    same(runs.resume(runs.begin(crash, moment, **BDF)), implicit)


def test_a_crash_changes_nothing_with_a_runge_kutta_pair(runs, runge_kutta, same, crash):
    same(runs.resume(runs.begin(crash, ("step", 3), **SDIRK)), runge_kutta)


@METHODS
@pytest.mark.devices
def test_all_devices_of_this_process(runs, method):
    one, all_ = (
        runs.run(devices=devices, **method, solver__mu=1e-6, integrator__t_end=0.02, output__times=[])
        for devices in (1, 0)
    )
    assert_close(all_, one, t=0.02)


def test_a_refit_keeps_the_order(runs):
    """Earlier fields are functions of their own parameters: a fresh network in place of the present one is no start."""
    settings = {"restart__every": 0.15, "restart__fit__iterations": 80, "restart__fit__stop_at": 1e-6}
    ran = runs.run(**BDF, **settings)
    refits = [message for kind, message in ran.events if kind == "refit" and "reached" in message]
    assert refits and all("accepted" in message for message in refits)
    orders = {line["t"]: line["order"] for line in ran.metrics}
    assert min(order for t, order in orders.items() if t > 0.15) >= 2
    assert max(errors(ran)) < 1e-3


def test_a_misfit_that_stays_does_not_shorten_steps(runs):
    """A network too small for the tolerance: its misfits enter the estimate, and steps are as long as without them."""
    settings = {"network__width": 3, "fit__on_miss": "continue", "integrator__rtol": 1e-9}
    ran = runs.run(**BDF | settings)
    assert ran.summary["status"] == "finished" and ran.summary["steps"] < 100
    last = ran.metrics[-1]
    assert last["estimate_residual"] > 1e-6 and last["error"] > 1e-9


# One mode, whose amplitude alone changes: earlier fields are known exactly --------------------------------------------

END = 1.0


class OneMode(Problem):
    """u_t = stiffness (u_xx + u) + g(t) u, u = a(t) sin x with a = exp(int g)."""

    stiffness: float = 1.0

    @property
    def domain(self):
        return PeriodicBox(1, 0.0, 2 * np.pi)

    def initial(self, x):
        return jnp.sin(x[0])

    def rhs(self, u, x, t):
        value, _, curvature = derivatives(u, x)
        return self.stiffness * (curvature + value) + (jnp.cos(3 * t) - 1) * value


def amplitude(t):
    return np.exp(np.sin(3 * t) / 3 - t)


class Case:
    """The fitted start of a problem, and an implicit stepper whose tolerance accepts every step."""

    def __init__(self, problem, method="bdf"):
        config = Config(
            problem={"name": "heat"},
            network={"width": 8, "depth": 1, "frequencies": 1, "activation": "tanh"},
            sampling={"method": "uniform", "points": 80},
            solver={"mu": 1e-13},
            integrator={"method": method, "rtol": 1e9, "t_end": END, "initial_step": 0.1},  # not guessed, and so kept
            fit={"points": 80, "iterations": 200, "target": 1e-5, "stop_at": 1e-9, "line_search": True},
            devices=1,
        )
        self.simulation = simulation = Simulation(config, problem)
        state = simulation.begin()
        while not simulation.fits.is_done(state):
            state = simulation.fits.advance(state)
        state, error = simulation.fits.finish_initial(state)
        assert error < 1e-5
        self.start = state._replace(outputs_written=1, size_floor=0.0)
        self.network = simulation.network

    def scaled(self, factor):
        """theta of the start with the field multiplied by a factor."""
        head = next(layer for layer in self.network.layers if layer.path[-1] == "head")
        theta = np.array(self.start.theta)
        theta[head.start : head.stop] *= factor
        return theta

    def steps(self, count, order):
        """The state at END after equal steps of an order, from exact earlier fields."""
        h = END / count
        earlier = np.stack([self.scaled(amplitude(-(j + 1) * h)) for j in range(LARGEST_ORDER)])
        multistep = Multistep(np.full(LARGEST_ORDER, h), np.zeros(LARGEST_ORDER + 1), LARGEST_ORDER, order)
        state = replicated(self.start._replace(earlier=earlier, multistep=multistep), self.simulation.mesh)
        while state.t < END:
            state = state._replace(h=h, multistep=state.multistep._replace(order=order))
            state = self.simulation.stepper.step(state, lambda: None).state
        assert state.step == count
        return state

    def independent_steps(self, count):
        """The state at END after equal steps of a method that starts from the present solution alone."""
        h, state = END / count, self.start
        while state.t < END:
            state = self.simulation.stepper.step(state._replace(h=h), lambda: None).state
        assert state.step == count
        return state

    def error(self, state):
        x = np.linspace(0, 6, 50)[:, None]
        return np.abs(
            np.asarray(self.network.values(state.theta, x))[:, 0] - amplitude(state.t) * np.sin(x[:, 0])
        ).max()


@pytest.fixture(scope="module")
def one_mode():
    return Case(OneMode())


@pytest.fixture
def solved_exactly(monkeypatch):
    """Equations are solved as well as the network can, although every error of a step is tolerated."""
    for name, value in {"CONVERGED": 0.0, "UNPREDICTED": 0.0, "GAINED": np.inf, "MOST_CORRECTIONS": 30}.items():
        monkeypatch.setattr(implicit_solve, name, value)


def by_the_formula(count, order):
    """The amplitude at END by the formula for a' = (cos 3 t - 1) a, from exact earlier values."""
    h = END / count
    known, (gamma, earlier) = [amplitude(-j * h) for j in range(order)], bdf.formula(h * np.arange(1.0, 6.0), order)
    for n in range(1, count + 1):
        new = earlier[:order] @ known / (1 - gamma * (np.cos(3 * n * h) - 1))
        known = [new, *known[:-1]]
    return known[0]


@pytest.mark.parametrize("order", range(1, LARGEST_ORDER + 1))
def test_steps_of_a_pde_are_those_of_the_formula(one_mode, order, solved_exactly):
    """The amplitude of the mode follows the formula, whose order test_bdf.py has, as closely as the network can.

    Measured: within a hundredth to a five-hundredth of the formula's own error.
    """
    x, expected = np.linspace(0, 6, 50)[:, None], by_the_formula(8, order)
    state = one_mode.steps(8, order)
    difference = np.asarray(one_mode.network.values(state.theta, x))[:, 0] - expected * np.sin(x[:, 0])
    assert np.abs(difference).max() < abs(expected - amplitude(END)) / 20


def test_stiff_modes_are_damped_in_steps_of_any_length(solved_exactly):
    """h times the rates of the other modes is 20 and more; that of the slow one is as accurate as the order says."""
    stiff = Case(OneMode(stiffness=100.0))
    assert stiff.error(stiff.steps(16, 2)) < 5e-3


def by_the_pair(count):
    """The amplitude at END by the pair for a' = (cos 3 t - 1) a, in the textbook's form."""
    h, value, matrix = END / count, 1.0, ALEXANDER.matrix
    for n in range(count):
        rates = np.diag(np.cos(3 * h * (n + ALEXANDER.times[1:])) - 1)
        slopes = np.linalg.solve(np.eye(len(matrix)) - h * rates @ matrix, rates @ np.full(len(matrix), value))
        value += h * matrix[-1] @ slopes
    return value


def test_steps_of_a_pde_are_those_of_the_runge_kutta_pair(solved_exactly):
    """As for the formulas above."""
    case = Case(OneMode(), "sdirk")
    x, expected = np.linspace(0, 6, 50)[:, None], by_the_pair(3)
    state = case.independent_steps(3)
    difference = np.asarray(case.network.values(state.theta, x))[:, 0] - expected * np.sin(x[:, 0])
    assert np.abs(difference).max() < abs(expected - amplitude(END)) / 20


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value",
    [
        ("solver.method", "dual_pcg"),
        ("solver.precision", "float32"),
        ("solver.norm", "energy"),
        ("solver.equal_shares", "true"),
        ("sampling.method", "residual"),
        ("network.form", "exponential"),
    ],
)
def test_what_implicit_steps_do_not_support_is_refused_in_a_line(key, value):
    with pytest.raises(
        InputError, match=f"integrator.method = 'bdf' needs {key} = .*: set that, or an explicit method"
    ):
        read_config("heat_periodic_2d", {"integrator.method": "bdf", "solver.method": "primal", key: value})


@pytest.mark.parametrize("method", ["bdf", "sdirk"])
def test_log_densities_are_refused(method):
    config = Config(problem={"name": "linear_fokker_planck"}, integrator={"method": method}, devices=1)
    with pytest.raises(InputError, match=f"'{method}' needs network.form = 'direct', and it is 'log_density'"):
        Simulation(config, LinearFokkerPlanck(dimension=2))


def of_width(width, method):
    network = {"width": width, "depth": 2, "frequencies": 2}
    settings = {"integrator": {"method": "bdf"}, "solver": {"method": method, "rank": 256}}
    return Simulation(Config(problem={"name": "heat"}, network=network, devices=1, **settings), Heat())


def test_large_networks_are_solved_for_without_the_matrix():
    found = {width: of_width(width, "auto") for width in (8, 120, 300)}
    assert [each.galerkin.method for each in found.values()] == ["primal", "pcg", "pcg"]
    assert [each.blank().rank for each in found.values()] == [0, 256, 256]
    # The matrix may take over where it fits into a device, and where no method was asked for.
    assert [each.stepper.direct is not None for each in found.values()] == [False, True, False]
    assert of_width(120, "pcg").stepper.direct is None
    with pytest.raises(InputError, match="needs a matrix of .* set solver.method = 'pcg', or lower network.width"):
        of_width(300, "primal")
