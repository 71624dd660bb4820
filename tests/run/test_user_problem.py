"""A user's own problem, on the command line and from Python; and what a run leaves behind."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist import Box, Problem, open_run, solve
from nivp_dist.errors import InputError
from nivp_dist.problems import laplacian
from nivp_dist.settings.files import read_config

PROBLEM = '''
import jax.numpy as jnp
import numpy as np

from nivp_dist import Problem
from nivp_dist.problems import WholeSpace, divergence, laplacian


class Settling(Problem):
    """u_t = D lap u + div(x u): an Ornstein-Uhlenbeck process that starts off its centre."""

    density = True
    diffusion: float = 0.5
    start: float = 1.0

    @property
    def domain(self):
        return WholeSpace(1, centre=self.start, scale=0.5)

    def initial(self, x):
        return self.gaussian(x[0], self.start, 0.25, jnp)

    def rhs(self, u, x, t):
        return self.diffusion * laplacian(u, x) + divergence(lambda y: y * u(y), x)

    def reference(self, x, t):
        variance = self.diffusion + (0.25 - self.diffusion) * np.exp(-2 * t)
        return self.gaussian(x[:, 0], self.start * np.exp(-t), variance, np)

    @staticmethod
    def gaussian(x, mean, variance, numpy):
        return numpy.exp(-((x - mean) ** 2) / (2 * variance)) / numpy.sqrt(2 * numpy.pi * variance)
'''

CONFIG = """
[problem]
file = "settling.py"
class = "Settling"
[problem.parameters]
start = 0.8
[network]
width = 6
depth = 1
[sampling]
points = 200
[integrator]
t_end = 0.3
initial_step = 0.05
[fit]
points = 200
iterations = 5
target = 1e-2
[output]
times = [0.1]
evaluation_points = 1000
[checkpoint]
every_steps = 1
"""

KEYS = (
    "status message phase problem t t_end output_names errors steps rejected velocity_evaluations cg_iterations refits "
    "parameters points devices processes wall_seconds compile_seconds versions"
).split()
METRICS = (
    "step t h error rejected residual residual_fresh cg_iterations cg_wasted cg_residual evaluations theta_norm mu "
    "trace rank effective_sample_size coverage estimate estimate_bound "
    "wall_seconds"
).split()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """An otherwise empty directory with the user's two files."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "settling.py").write_text(PROBLEM)
    (folder / "settling.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def done(runs, workplace):
    """`nivp run settling.toml` in it: (run directory, stdout, stderr)."""
    code, out, err = runs.call("run", "settling.toml", cwd=workplace)
    assert code == 0, err
    return workplace / "runs/settling-001", out, err


def test_the_error_is_small(done):
    errors = open_run(done[0]).errors()
    assert errors["t"].tolist() == [0.0, 0.1, 0.3]
    assert errors["relative_l2"].max() < 1e-3


def test_what_a_run_directory_holds(done):
    directory = done[0]
    summary = json.loads((directory / "summary.json").read_text())
    assert set(KEYS) <= summary.keys()
    assert summary["status"] == "finished" and summary["problem"] == "Settling" and summary["t"] == 0.3
    assert (
        summary["processes"] == 1
        and summary["points"] == 200
        and summary["wall_seconds"] > summary["compile_seconds"] > 0
    )
    of_a_density = {"relative_l2_normalised", "relative_l2_unweighted", "log_rms", "kl", "invariants"}
    keys = {"t", "relative_l2", "compared_outputs", "estimate", "estimate_bound"} | of_a_density
    assert [set(error) for error in summary["errors"]] == 3 * [keys]
    config = read_config(directory / "config.toml")
    assert config.integrator.t_end == 0.3 and config.problem.parameters == {"start": 0.8}
    assert "[versions]" in (directory / "config.toml").read_text()
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == summary["steps"] and all(set(METRICS) <= line.keys() for line in lines)
    assert sum(line["evaluations"] for line in lines) == summary["velocity_evaluations"]
    assert sum(line["rejected"] for line in lines) == summary["rejected"]
    assert all(abs(b["t"] - a["t"] - b["h"]) < 1e-12 for a, b in zip(lines, lines[1:]))
    assert {"fit", "output", "finish"} <= {json.loads(x)["kind"] for x in (directory / "events.jsonl").open()}
    assert sorted(path.name for path in (directory / "snapshots").iterdir()) == [
        "t_0.000000.npz",
        "t_0.100000.npz",
        "t_0.300000.npz",
    ]
    assert 1 <= len([entry for entry in (directory / "checkpoints").iterdir() if entry.name.isdigit()]) <= 3
    assert list((directory / "pictures").glob("*.png"))


def test_the_output_of_a_batch_run(done, workplace):
    directory, out, err = done
    assert err == ""
    assert "\x1b" not in out and "\r" not in out
    said = ("initial fit", "evolve", "relative L2", f"nivp plot {directory}", f"nivp resume {directory}")
    for part in said:
        assert part in out


def test_resume_without_the_users_file(runs, workplace, done):
    """The run has its own copy: deleting or editing the file that it came from changes nothing."""
    second = workplace / "second"
    process = runs.process("run", "settling.toml", "--output", second, cwd=workplace)
    from_now = second / "metrics.jsonl"
    while not (from_now.exists() and from_now.read_text()):
        assert process.poll() is None
    process.kill()
    process.communicate()
    (workplace / "settling.py").write_text("raise RuntimeError('edited')")
    try:
        code, _, err = runs.call("resume", second, cwd=workplace)
        assert (code, err) == (0, "")
    finally:
        (workplace / "settling.py").write_text(PROBLEM)
    mine, theirs = (np.load(path / "snapshots/t_0.300000.npz")["theta"] for path in (second, done[0]))
    assert np.array_equal(mine, theirs)


def test_a_second_run_gets_a_directory_of_its_own(runs, workplace, done):
    before = {path: path.stat().st_mtime_ns for path in done[0].rglob("*")}
    code, _, err = runs.call("run", "settling.toml", "--output", done[0], cwd=workplace)
    assert code == 2 and err.count("\n") == 1 and "holds another run" in err
    assert {path: path.stat().st_mtime_ns for path in done[0].rglob("*")} == before


# From Python ---------------------------------------------------------------------------------------


class Cooling(Problem):
    """u_t = k u_xx from the first mode."""

    k: float = 0.2

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2)

    def rhs(self, u, x, t):
        return self.k * laplacian(u, x)

    def reference(self, x, t):
        return np.exp(-self.k * (np.pi / 2) ** 2 * t) * np.cos(np.pi * x[:, 0] / 2)


SETTINGS = {
    "network": {"width": 6, "depth": 1, "frequencies": 1},
    "sampling": {"points": 100},
    "integrator": {"t_end": 0.2, "initial_step": 0.05},
    "fit": {"points": 200, "iterations": 12, "target": 1e-2},
    "output": {"times": [0.1], "evaluation_points": 1000, "plots": False},
}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    return solve(SETTINGS, problem=Cooling(k=0.3), directory=tmp_path_factory.mktemp("python") / "run", quiet=True)


def test_solve_and_the_solution(solved):
    x = np.linspace(-1, 1, 41)[:, None]
    assert solved.times.tolist() == [0.0, 0.1, 0.2]
    for t in solved.times:
        u = solved.solution(t)(x)
        exact = solved.reference(t)(x)
        assert u.shape == exact.shape == (41, 1)
        assert np.abs(u - exact).max() < 2e-3
        assert u[0, 0] == u[-1, 0] == 0.0
    with pytest.raises(ValueError, match="not a stored time"):
        solved.solution(0.15)


def test_errors_and_metrics(solved):
    errors, metrics = solved.errors(), solved.metrics()
    assert errors["t"].tolist() == [0.0, 0.1, 0.2] and errors["relative_l2"].max() < 2e-3
    assert set(METRICS) <= metrics.keys()
    steps = solved.summary["steps"]
    assert metrics["step"].tolist() == list(range(1, steps + 1)) and metrics["t"][-1] == 0.2
    assert np.all(np.diff(metrics["wall_seconds"]) >= 0)
    assert np.isfinite(metrics["residual_fresh"]).all()


def test_opened_again(solved):
    again = open_run(solved.directory, problem=Cooling(k=0.3))
    x = np.array([[0.3]])
    assert again.solution(0.2)(x) == solved.solution(0.2)(x)
    with pytest.raises(InputError, match="k = 0.3, not 0.4"):
        open_run(solved.directory, problem=Cooling(k=0.4))
