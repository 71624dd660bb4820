import json
import sys
from types import SimpleNamespace
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import Field

from nivp_dist import Box, Config, Problem, open_run, resume, solve
from nivp_dist.errors import InputError
from nivp_dist.network.network import build_network
from nivp_dist.problems.heat import Heat
from nivp_dist.report.progress import Reporter
from nivp_dist.run.reporter import SilentReporter
from nivp_dist.storage import run_directory, snapshots

NETWORK = {"width": 6, "depth": 1, "frequencies": 2}
TIMES = [0.0, 0.1, 0.25]


class Decay(Problem):
    dimension: Annotated[int, Field(ge=1)] = 1
    rate: float = 0.5

    @property
    def domain(self):
        return Box(self.dimension)

    def initial(self, x):
        return jnp.prod(1 - x**2)

    def rhs(self, u, x, t):
        return -self.rate * u(x)

    def reference(self, x, t):
        return np.exp(-self.rate * t) * np.prod(1 - x**2, axis=1)


class Faulty(Decay):
    def rhs(self, u, x, t):
        return jnp.ones(7)


class Unreferenced(Decay):
    reference = None


class heat(Decay):
    pass


def store(path, config, problem, times=TIMES):
    """What the controller leaves behind, with random networks. Returns theta of every time."""
    network = build_network(config.network, problem)
    thetas = {}
    for number, t in enumerate(times):
        thetas[t] = np.asarray(network.initialise(jax.random.key(number)))
        moments = {"mass": 1.0 + t, "mean": np.full(network.dimension, t), "covariance": np.eye(network.dimension)}
        snapshots.save(path, t, {"theta": thetas[t], "step": number, "relative_l2": 0.01 * t} | moments)
    first = {"step": 1, "t": 0.1, "h": 0.1, "residual": None}
    second = {"step": 2, "t": 0.25, "h": 0.15, "residual": 0.5, "new": 7}
    (path / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    run_directory.write_summary(path, {"status": "finished", "t": 0.25, "t_end": 0.25, "problem": config.problem.name})
    return thetas


@pytest.fixture
def wave(tmp_path):
    config = Config(problem={"name": "wave"}, network=NETWORK)
    path = run_directory.create(config, tmp_path / "run", "run")
    run = open_run(path)
    run.thetas = store(path, run.config, run.problem)
    return run


@pytest.fixture
def evolve(monkeypatch):
    """A controller that leaves a directory behind without computing, and remembers how it was called."""
    calls = []

    def fake(config, directory, *, resume=False, reporter=None, problem=None, callbacks=(), ending=None):
        from nivp_dist.problems.registry import load

        calls.append(SimpleNamespace(config=config, resume=resume, reporter=reporter, problem=problem))
        store(directory, config, problem or load(config.problem))

    module = SimpleNamespace(evolve=fake)
    monkeypatch.setitem(sys.modules, "nivp_dist.run.controller", module)
    monkeypatch.setattr("nivp_dist.run.controller", module, raising=False)
    fake.calls = calls
    return fake


# --------------------------------------------------------------------------------------------- open_run


def test_solution_is_the_network_of_that_time_at_any_number_of_points(wave):
    network = build_network(wave.config.network, wave.problem)
    for n in (1, 50, 70_000):  # the last in more than one piece
        x = np.random.default_rng(n).uniform(-1, 1, (n, 2))
        for t in (0.0, 0.25):
            u = wave.solution(t)(x)
            assert u.shape == (n, 2) and u.dtype == np.float64
            np.testing.assert_allclose(u, np.asarray(network.values(wave.thetas[t], x)), rtol=1e-12, atol=1e-14)
    assert wave.solution(0.1)(np.zeros((0, 2))).shape == (0, 2)


def test_solution_takes_lists_and_times_equal_to_rounding(wave):
    exact = wave.solution(0.1)(np.array([[0.1, 0.2]]))
    np.testing.assert_array_equal(wave.solution(0.1 * (1 + 5e-10))([[0.1, 0.2]]), exact)


def test_solution_is_a_function_of_one_point_that_jax_can_trace(wave):
    """Inside of a program it gives the values that it gives outside of one, and the slopes of these."""
    u, x = wave.solution(0.1), np.random.default_rng(0).uniform(-1, 1, (5, 2))
    np.testing.assert_allclose([u(point) for point in x], u(x), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(u))(x), u(x), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(u)(x), u(x), rtol=1e-12)
    slopes, h = jax.vmap(jax.jacfwd(u))(x), 1e-6
    for axis, step in enumerate(h * np.eye(2)):
        np.testing.assert_allclose(slopes[:, :, axis], (u(x + step) - u(x - step)) / (2 * h), rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match=r"points must have the shape \(n, 2\), got \(3,\)"):
        jax.jit(u)(np.zeros(3))


@pytest.mark.parametrize("t", [0.2, 0.1 * (1 + 2e-9), -0.1, np.nan])
def test_a_time_that_is_not_stored_is_refused_with_those_that_are(wave, t):
    with pytest.raises(ValueError, match=r"t = .* is not a stored time; stored are: 0, 0.1, 0.25"):
        wave.solution(t)


@pytest.mark.parametrize("shape", [(5, 3), (2,), (5, 2, 1), ()])
def test_points_of_another_shape_are_refused_in_one_line(wave, shape):
    takes_one_point = [] if shape == (2,) else [wave.solution(0.1)]
    for function in (*takes_one_point, wave.reference(0.1)):
        with pytest.raises(ValueError) as error:
            function(np.zeros(shape))
        assert str(error.value) == f"points must have the shape (n, 2), got {shape}"


def test_reference_is_the_problems_at_any_time(wave):
    x = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    np.testing.assert_array_equal(wave.reference(0.17)(x), wave.problem.reference(x, 0.17))
    assert wave.reference(0.17)(x).shape == (20, 2)


def test_times_errors_metrics_and_statistics_are_arrays(wave):
    np.testing.assert_array_equal(wave.times, TIMES)
    np.testing.assert_array_equal(wave.errors()["t"], TIMES)
    np.testing.assert_allclose(wave.errors()["relative_l2"], [0.0, 1e-3, 2.5e-3])
    metrics = wave.metrics()
    np.testing.assert_array_equal(metrics["h"], [0.1, 0.15])
    np.testing.assert_array_equal(metrics["residual"], [np.nan, 0.5])  # null
    np.testing.assert_array_equal(metrics["new"], [np.nan, 7])  # absent
    np.testing.assert_array_equal(metrics["mu"], [np.nan, np.nan])
    statistics = wave.statistics()
    assert statistics["mean"].shape == (3, 2) and statistics["covariance"].shape == (3, 2, 2)
    np.testing.assert_array_equal(statistics["mass"], [1.0, 1.1, 1.25])


def test_repr_and_summary_tell_where_it_stands(wave):
    assert repr(wave) == f"<Run wave (finished, t = 0.25 of 0.25, 3 stored times) in {wave.directory}>"
    assert wave.summary["status"] == "finished"


def test_a_run_that_has_only_begun_can_be_opened(tmp_path):
    run = open_run(run_directory.create(Config(problem={"name": "heat"}), tmp_path / "run", "run"))
    assert run.summary == {} and len(run.times) == 0 and len(run.metrics()["t"]) == 0
    assert run.errors()["relative_l2"].shape == (0,) and set(run.statistics()) == {"t"}
    assert "not started" in repr(run)
    with pytest.raises(ValueError, match="stored are: none yet"):
        run.solution(0.0)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not the directory of a run"):
        open_run(tmp_path)


def test_a_network_of_another_size_is_refused(wave):
    snapshots.save(wave.directory, 0.1, {"theta": np.zeros(3), "relative_l2": 0.0})
    with pytest.raises(InputError, match=r"has 3 parameters and \[network\] says"):
        wave.solution(0.1)


# ------------------------------------------------------------------------------------------------ solve


@pytest.mark.parametrize("kind", ["config", "dict", "path"])
def test_solve_takes_settings_in_every_form(evolve, tmp_path, kind):
    settings = {"problem": {"name": "heat"}, "network": NETWORK, "solver": {"mu": 1e-7}}
    file = tmp_path / "x.toml"
    file.write_text('[problem]\nname = "heat"\n[network]\nwidth = 6\ndepth = 1\nfrequencies = 2\n[solver]\nmu = 1e-7\n')
    given = {"config": Config(**settings), "dict": settings, "path": file}[kind]
    run = solve(given, directory=tmp_path / "run", quiet=True)
    assert run.config == Config(**settings) and run.directory == tmp_path / "run"
    np.testing.assert_array_equal(run.times, TIMES)
    (call,) = evolve.calls
    assert call.config == run.config and not call.resume and type(call.reporter) is SilentReporter


def test_solve_makes_a_new_directory_in_the_working_directory(evolve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [solve({"problem": {"name": "heat"}, "network": NETWORK}, quiet=True) for _ in range(2)]
    assert [run.directory for run in runs] == [tmp_path / "runs/heat-001", tmp_path / "runs/heat-002"]


def test_solve_reports_unless_told_to_be_quiet(evolve, tmp_path):
    solve({"problem": {"name": "heat"}, "network": NETWORK}, directory=tmp_path / "run")
    assert type(evolve.calls[0].reporter) is Reporter


@pytest.mark.parametrize("form", ["dict", "config", "file"])
def test_solve_with_a_class_of_the_session(evolve, tmp_path, form):
    file = tmp_path / "x.toml"
    file.write_text("[network]\nwidth = 6\ndepth = 1\nfrequencies = 2\n")
    config = Config(problem={"name": "heat"}, network=NETWORK)
    given = {"dict": {"network": NETWORK}, "config": config, "file": file}[form]
    problem = Decay(dimension=2, rate=0.7)
    run = solve(given, problem=problem, directory=tmp_path / "run", quiet=True)
    assert evolve.calls[0].problem is problem and run.problem is problem
    assert run.config.problem.name == "Decay" and run.config.problem.parameters == {"dimension": 2, "rate": 0.7}
    x = np.random.default_rng(0).uniform(-1, 1, (9, 2))
    assert run.solution(0.1)(x).shape == (9, 1)

    again = open_run(run.directory, problem=Decay(dimension=2, rate=0.7))
    np.testing.assert_array_equal(again.solution(0.1)(x), run.solution(0.1)(x))
    np.testing.assert_allclose(again.reference(0.1)(x)[:, 0], np.exp(-0.07) * np.prod(1 - x**2, axis=1))


def test_a_run_of_a_class_of_the_session_needs_it_for_its_solution_only(evolve, tmp_path):
    path = solve({"network": NETWORK}, problem=Decay(), directory=tmp_path / "run", quiet=True).directory
    run = open_run(path)
    assert len(run.metrics()["t"]) == 2 and run.summary["problem"] == "Decay"
    with pytest.raises(InputError, match=r"use open_run\(directory, problem=Decay\(...\)\)"):
        run.solution(0.1)
    with pytest.raises(InputError, match="holds a run of Decay, not of Unreferenced"):
        open_run(path, problem=Unreferenced())
    with pytest.raises(InputError, match="with other parameters: rate = 0.5, not 0.9"):
        open_run(path, problem=Decay(rate=0.9))


def test_no_reference_is_none(evolve, tmp_path):
    run = solve({"network": NETWORK}, problem=Unreferenced(), directory=tmp_path / "run", quiet=True)
    assert run.reference(0.1) is None


def test_an_instance_of_a_shipped_class_is_recorded_by_its_shipped_name(evolve, tmp_path):
    path = solve({"network": NETWORK}, problem=Heat(dimension=1), directory=tmp_path / "run", quiet=True).directory
    assert open_run(path).problem == Heat(dimension=1)
    assert open_run(path, problem=Heat(dimension=1)).problem == Heat(dimension=1)
    with pytest.raises(InputError, match="dimension = 1, not 2"):
        open_run(path, problem=Heat())


@pytest.mark.parametrize(
    "given, problem, message",
    [
        ({"problem": {"name": "heat"}, "solver": {"mo": 1}}, None, "config: unknown key solver.mo; .*solver.mu"),
        ({"problem": {"name": "heat"}, "solver": {"mu": -1.0}}, None, "config: solver.mu must be"),
        ({"problem": {"name": "haet"}}, None, "the nearest is 'heat'"),
        ({}, None, r"\[problem\] is missing"),
        (7, None, "config must be a Config, a dict, a path or a name, got int"),
        ({}, Decay, r"problem must be an instance of a Problem class.*problem=MyProblem\(...\)"),
        ({}, Faulty(), "rhs"),
        ({}, heat(), "the class heat has the name of a shipped problem: rename it"),
        ({"problem": {"name": "heat"}, "devices": 999}, None, "999"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(evolve, tmp_path, given, problem, message):
    with pytest.raises(InputError, match=message) as error:
        solve(given, problem=problem, directory=tmp_path / "run", quiet=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists() and not evolve.calls


def test_a_directory_that_holds_a_run_is_refused(evolve, tmp_path):
    settings = {"problem": {"name": "heat"}, "network": NETWORK}
    solve(settings, directory=tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="holds another run"):
        solve(settings, directory=tmp_path / "run", quiet=True)
    assert len(evolve.calls) == 1


def test_a_run_refused_by_the_controller_leaves_no_directory(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise InputError("sampling.points = 1 is less than one for each device")

    module = SimpleNamespace(evolve=refuse)
    monkeypatch.setitem(sys.modules, "nivp_dist.run.controller", module)
    monkeypatch.setattr("nivp_dist.run.controller", module, raising=False)
    with pytest.raises(InputError, match="sampling.points"):
        solve({"problem": {"name": "heat"}}, directory=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------------------------- resume


def test_resume_goes_on_with_changed_settings(evolve, tmp_path):
    path = solve({"problem": {"name": "heat"}, "network": NETWORK}, directory=tmp_path / "run", quiet=True).directory
    run = resume(path, settings={"integrator.t_end": 2.0, "output.times": [1.5, 2.0]}, quiet=True)
    assert evolve.calls[1].resume and evolve.calls[1].config.integrator.t_end == 2.0
    assert run.config.output.times == [1.5, 2.0] and open_run(path).config.integrator.t_end == 2.0
    with pytest.raises(InputError, match="solver.mu decides the result and cannot change"):
        resume(path, settings={"solver.mu": 1e-9})
    with pytest.raises(InputError, match="not the directory of a run"):
        resume(tmp_path / "other")


def test_a_run_of_a_class_of_the_session_is_resumed_with_its_instance(evolve, tmp_path):
    path = solve({"network": NETWORK}, problem=Decay(), directory=tmp_path / "run", quiet=True).directory
    again = Decay()
    assert resume(path, problem=again, quiet=True).problem is again and evolve.calls[1].problem is again
    with pytest.raises(InputError, match=r"use resume\(directory, problem=Decay\(...\)\)"):
        resume(path)
    with pytest.raises(InputError, match="with other parameters: rate = 0.5, not 0.9"):
        resume(path, problem=Decay(rate=0.9))
    assert len(evolve.calls) == 2


@pytest.mark.parametrize("problem", [None, Decay()])
def test_solve_resumes_the_run_that_is_present(evolve, tmp_path, problem):
    settings = {"network": NETWORK} | ({} if problem else {"problem": {"name": "heat"}})
    arguments = {"problem": problem, "directory": tmp_path / "run", "resume_if_present": True, "quiet": True}
    solve(settings, **arguments)
    solve(settings | {"integrator": {"t_end": 3.0}}, **arguments)
    assert [call.resume for call in evolve.calls] == [False, True]
    assert evolve.calls[1].config.integrator.t_end == 3.0 and evolve.calls[1].problem is problem


def test_solve_refuses_a_run_that_is_present_with_another_result(evolve, tmp_path):
    arguments = {"directory": tmp_path / "run", "resume_if_present": True, "quiet": True}
    settings = {"problem": {"name": "heat"}, "network": NETWORK}
    solve(settings, **arguments)
    with pytest.raises(InputError, match="holds a run with seed = 0, and now it is 7"):
        solve(settings | {"seed": 7}, **arguments)
    with pytest.raises(InputError, match="resume_if_present needs the directory"):
        solve(settings, resume_if_present=True)
    assert len(evolve.calls) == 1
