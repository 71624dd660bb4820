"""Where runs start and when they write: integrator.t_start, output.every, and the solution of another run as u0."""

import shutil

import numpy as np
import pytest
from whole_runs import PROBLEM

from nivp_dist import open_run
from nivp_dist.errors import InputError
from nivp_dist.problems import checks, registry
from nivp_dist.settings.files import read_config
from nivp_dist.storage import problem_copy, run_directory

FORCED = '''
import jax.numpy as jnp
import numpy as np

from nivp_dist import Box, Problem


class Forced(Problem):
    """u_t = u / t, u = u0 at t = 1, so that u = t u0. The equation has no meaning at t = 0."""

    @property
    def domain(self):
        return Box(1)

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2)

    def rhs(self, u, x, t):
        return u(x) / t

    def reference(self, x, t):
        return t * np.cos(np.pi * x[:, 0] / 2)
'''
SECOND = """
from pathlib import Path

from nivp_dist import open_run

{problem}

class Second(Modes):
    initial = open_run({place}).solution(0.1)
"""


@pytest.fixture
def configure(runs, tmp_path):
    """The configuration of the runs for another problem: (source of the class, its name, settings)."""

    def make(text, name, **settings):
        (tmp_path / "mine.py").write_text(text)
        return runs.config(problem__file=str(tmp_path / "mine.py"), problem__class=name, **settings)

    return make


@pytest.fixture
def second(configure):
    """The same of a run that starts from the solution of another, which lies at a place (source of its path)."""

    def make(place, **settings):
        return configure(SECOND.format(problem=PROBLEM, place=place), "Second", **settings)

    return make


def test_a_run_that_starts_late_and_writes_at_multiples(runs, configure):
    """Times and right-hand side are those of t_start: at t = 0 this equation would give infinities. A resume beyond the
    end, 1.2, does not take the twelfth multiple, 12 * 0.1 > 1.2, for another output."""
    late = {"integrator__t_start": 1.0, "integrator__t_end": 1.2, "output__times": [], "output__every": 0.1}
    config = configure(FORCED, "Forced", **late, integrator__rtol=1e-4, network__width=4)
    assert checks.check(registry.load(config.problem), "Forced", 1.0) == []
    ran = runs.run(config)
    assert sorted(ran.snapshots()) == [1.0, 1.1, 1.2]
    assert ran.metrics[0]["t"] - ran.metrics[0]["h"] == pytest.approx(1.0)
    runs.resume(ran, integrator__t_end=1.4)
    stored = ran.snapshots()
    assert sorted(stored) == [1.0, 1.1, 1.2, 1.3, 1.4] and stored[1.4]["step"] == ran.summary["steps"]
    assert all(arrays["relative_l2"] < 1e-3 for arrays in stored.values())
    assert min(line["h"] for line in ran.metrics) > 1e-4
    assert [message for _, message in ran.events if "no snapshot" in message] == []


def test_a_start_from_the_solution_of_another_run(runs, undisturbed, second):
    """By a network of another shape. Both solve the same equation, and the second follows the reference from there."""
    settings = {"integrator__t_start": 0.1, "output__times": [0.2], "integrator__rtol": 1e-4}
    config = second(repr(str(undisturbed.directory)), network__width=10, **settings)
    run = open_run(runs.run(config).directory)
    np.testing.assert_array_equal(run.times, [0.1, 0.2, 0.3])
    assert np.all(run.errors()["relative_l2"] < 1e-3)
    x = np.linspace(-1, 1, 50)[1:-1, None]
    first = open_run(undisturbed.directory).solution(0.1)(x)
    np.testing.assert_allclose(run.solution(0.1)(x), first, atol=2e-3)


def test_another_content_of_that_solution_is_refused(runs, undisturbed, second, tmp_path):
    """Other settings of its run are not: a resume of that may have rewritten them."""
    first = tmp_path / "elsewhere/first"
    shutil.copytree(undisturbed.directory, first)
    folder = tmp_path / "folder"
    folder.mkdir()
    config = second(repr(str(first)))
    file = (tmp_path / "mine.py").rename(folder / "mine.py")
    config = runs.config(problem__file=str(file), problem__class="Second")
    found = registry.files_of(config.problem)
    assert [source.path.name for source in found] == ["t_0.100000.npz", "modes.py", "config.toml"]
    directory = run_directory.create(config, tmp_path / "run", "run", found)
    (first / "config.toml").write_text((first / "config.toml").read_text() + "\n")
    problem_copy.require_unchanged(directory)
    snapshot = first / "snapshots/t_0.100000.npz"
    snapshot.write_bytes(snapshot.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"t_0.100000.npz: has changed since the run began, and decides its equation"):
        problem_copy.require_unchanged(directory)


def test_a_run_beside_the_problem_file_is_copied(runs, undisturbed, second, tmp_path):
    """The copy of the problem then reads the copy of the solution, and the original may go."""
    shutil.copytree(undisturbed.directory, tmp_path / "first")
    config = second('Path(__file__).parent / "first"')
    files = registry.files_of(config.problem)
    assert checks.check(registry.load(config.problem), "Second") != []  # the reference is that of t = 0
    assert checks.check(registry.load(config.problem), "Second", 0.1) == []
    directory = run_directory.create(config, tmp_path / "run", "run", files)
    shutil.rmtree(tmp_path / "first")
    problem = registry.load(read_config(directory / "config.toml").problem)
    assert problem.initial.files[0].startswith(str(directory / "problem/first"))
    x = np.array([0.3])
    assert problem.initial(x) == open_run(undisturbed.directory).solution(0.1)(x)
