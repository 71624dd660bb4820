"""Runs of problems with data on their walls, against exact solutions."""

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist import Callback, Problem, open_run, resume, solve
from nivp_dist.errors import InputError
from nivp_dist.problems import Axes, Robin, Wall, laplacian
from nivp_dist.problems.burgers import BurgersFrontWalls
from nivp_dist.problems.thermal_waves import ThermalWaves

SETTINGS = {
    "devices": 1,
    "network": {"width": 8, "depth": 1, "frequencies": 3},
    "sampling": {"points": 200},
    "solver": {"method": "primal"},
    "integrator": {"t_end": 0.2, "initial_step": 0.02, "rtol": 1e-4},
    "fit": {"points": 200, "iterations": 40, "target": 1e-2},
    "output": {"evaluation_points": 1000, "plots": False, "times": [0.1]},
}
WARMED = 0.0503
WALLS = np.array([[0.0], [1.0]])


class Seen(Callback):
    """What a callback sees is the whole solution, too."""

    def after_step(self, view):
        view.record("wall", view.solution(WALLS)[0, 0])
        view.record("wall_rate", view.rate(WALLS)[0, 0])


@pytest.fixture(scope="module")
def driven(tmp_path_factory, keep_compiled):
    directory = tmp_path_factory.mktemp("walls") / "run"
    problem = ThermalWaves(dimension=1, conductivity=0.5)
    return solve(SETTINGS, problem=problem, directory=directory, quiet=True, callbacks=[Seen()])


def test_a_driven_wall_and_a_cooled_one(driven):
    errors = driven.errors()
    assert errors["relative_l2"].max() < 2e-3 and errors["relative_l2"][0] > 0
    assert np.all(errors["relative_l2"] < 3 * errors["estimate"])


def test_the_data_hold_exactly_in_what_is_stored(driven):
    problem, solution = driven.problem, driven.solution(0.2)
    assert solution(WALLS)[0, 0] == pytest.approx(np.cos(2 * np.pi * 0.2), abs=1e-13)
    exact = lambda x: problem.solution(jnp.asarray(x), 0.2, jnp)  # noqa: E731
    h = 1e-5
    inwards = [(u(WALLS[1:]) - u(WALLS[1:] - h)).item() / h for u in (solution, lambda x: exact(x)[:, None])]
    ends = [u(WALLS[1:]).item() for u in (solution, lambda x: exact(x)[:, None])]
    flux, exact_flux = (slope + problem.cooling * end for slope, end in zip(inwards, ends))
    assert flux == pytest.approx(exact_flux, abs=1e-4) and abs(ends[0] - ends[1]) > 1e-9


def test_callbacks_see_the_whole_solution(driven):
    metrics, w = driven.metrics(), 2 * np.pi
    t = metrics["t"]
    np.testing.assert_allclose(metrics["callback_wall"], np.cos(w * t), rtol=0, atol=1e-13)
    before = np.concatenate([[0.0], t[:-1]])
    rates = (np.cos(w * t) - np.cos(w * before)) / (t - before)
    np.testing.assert_allclose(metrics["callback_wall_rate"], rates, rtol=1e-9)


def test_a_resume_and_a_start_from_its_solution(driven, tmp_path):
    class Onward(ThermalWaves):
        initial = open_run(driven.directory, problem=driven.problem).solution(0.2)

    settings = SETTINGS | {"integrator": SETTINGS["integrator"] | {"t_start": 0.2, "t_end": 0.25}}
    settings["output"] = SETTINGS["output"] | {"times": []}
    problem = Onward(dimension=1, conductivity=0.5)
    onward = solve(settings, problem=problem, directory=tmp_path / "on", quiet=True)
    assert onward.errors()["relative_l2"].max() < 4e-3
    resumed = resume(driven.directory, settings={"integrator.t_end": 0.25}, problem=driven.problem, quiet=True)
    x = np.linspace(0, 1, 9)[:, None]
    np.testing.assert_allclose(onward.solution(0.25)(x), resumed.solution(0.25)(x), atol=5e-3)


@pytest.mark.parametrize("method", ["bdf", "sdirk"])
def test_implicit_steps_have_the_same_lifting(method, tmp_path):
    integrator = {"t_end": 0.1, "initial_step": 0.02, "rtol": 1e-3, "method": method}
    settings = SETTINGS | {"integrator": integrator, "output": SETTINGS["output"] | {"times": []}}
    problem = ThermalWaves(dimension=1, conductivity=0.5)
    run = solve(settings, problem=problem, directory=tmp_path / "run", quiet=True)
    assert run.errors()["relative_l2"].max() < 5e-3


class Plate(Problem):
    """A bar at rest whose left end is heated and cooled, with a source that makes u = sin(t) (1 - x)^2 exact."""

    @property
    def domain(self):
        return Axes(Robin(0, 1, at_lower=np.inf, at_upper=0.0))

    def initial(self, x):
        return 0.0 * x[0]

    def rhs(self, u, x, t):
        return laplacian(u, x) + jnp.cos(t) * (1 - x[0]) ** 2 - 2 * jnp.sin(t)

    def wall_data(self, x, t, axis, end):
        return jnp.sin(t) if end == "lower" else 0.0

    def reference(self, x, t):
        return np.sin(t) * (1 - x[:, 0]) ** 2


def test_a_start_from_rest(tmp_path):
    settings = SETTINGS | {"integrator": {"t_end": 0.5, "rtol": 1e-4}}
    run = solve(settings, problem=Plate(), directory=tmp_path / "run", quiet=True)
    assert run.errors()["relative_l2"][1:].max() < 2e-3


class Switched(Problem):
    """A rod whose right end is warmed within 1e-3 of time, in the middle of steps that are ten times as long."""

    domain = property(lambda self: Axes(Wall(0, 1)))

    def initial(self, x):
        return jnp.sin(jnp.pi * x[0])

    def rhs(self, u, x, t):
        return laplacian(u, x)

    def wall_data(self, x, t, axis, end):
        return (1 + jnp.tanh((t - WARMED) / 2e-4)) / 2 if end == "upper" else 0.0

    def reference(self, x, t):
        """The decay of the start, and the response to a step, whose width is far below t - WARMED."""
        n, x = np.arange(1, 200), x[:, 0]
        decay = np.exp(-((np.pi * n) ** 2) * max(t - WARMED, 0.0))
        modes = 2 / (np.pi * n) * (-1.0) ** n * decay * np.sin(np.pi * n * x[:, None])
        return np.sin(np.pi * x) * np.exp(-(np.pi**2) * t) + (t > WARMED) * (x + modes.sum(axis=1))


@pytest.mark.parametrize("method", ["cash_karp", "sdirk"])
def test_data_that_change_within_a_step_are_seen(method, tmp_path):
    """The rates at the stages of a step of 0.02 show nothing of it, and the inside would keep an error of 60 %."""
    settings = SETTINGS | {"integrator": {"t_end": 0.1, "initial_step": 0.02, "rtol": 1e-3, "method": method}}
    settings["output"] = SETTINGS["output"] | {"times": []}
    run = solve(settings, problem=Switched(), directory=tmp_path / "run", quiet=True)
    metrics = run.metrics()
    assert run.errors()["relative_l2"][-1] < 2e-2
    assert metrics["h"][np.abs(metrics["t"] - WARMED) < 2e-4].max() < 1e-3 < metrics["h"].max()


def test_other_forms_are_refused(tmp_path):
    settings = SETTINGS | {"network": SETTINGS["network"] | {"form": "exponential"}}
    with pytest.raises(InputError, match="network.form = 'exponential' and wall_data exclude each other"):
        solve(settings, problem=BurgersFrontWalls(), directory=tmp_path / "run", quiet=True)
