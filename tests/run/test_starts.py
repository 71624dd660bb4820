"""Where runs start and when they write: integrator.t_start, output.every, and the solution of another run as u0."""

import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from whole_runs import PROBLEM

from nivp_dist import open_run
from nivp_dist.errors import InputError
from nivp_dist.problems import checks, registry
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.state import EVOLVE, FINISHED
from nivp_dist.settings.files import read_config
from nivp_dist.settings.output_times import output_times
from nivp_dist.storage import problem_copy, run_directory

SECOND = """
from pathlib import Path

from nivp_dist import open_run

{problem}

class Second(Modes):
    initial = open_run({place}).solution(0.1)

    def rhs(self, u, x, t):
        return jnp.where(t < 0.1, jnp.nan, 1.0) * super().rhs(u, x, t)
"""


@pytest.fixture
def second(runs, tmp_path):
    """The configuration of a run that starts from the solution of another, which lies at a place (source of a path)."""

    def make(place, **settings):
        (tmp_path / "mine.py").write_text(SECOND.format(problem=PROBLEM, place=place))
        return runs.config(problem__file=str(tmp_path / "mine.py"), problem__class="Second", **settings)

    return make


def test_a_late_start_from_the_solution_of_another_run(runs, undisturbed, second):
    """By a network of another shape. Both solve the same equation, and the second follows the reference from there.
    Its right-hand side has no value before that: nothing asks for one. Outputs are at multiples of a time."""
    times = {"integrator__t_start": 0.1, "output__times": [], "output__every": 0.1}
    config = second(repr(str(undisturbed.directory)), network__width=10, integrator__rtol=1e-4, **times)
    assert checks.check(registry.load(config.problem), "Second", 0.1) == []
    ran = runs.run(config)
    run = open_run(ran.directory)
    np.testing.assert_array_equal(run.times, [0.1, 0.2, 0.3])
    assert np.all(run.errors()["relative_l2"] < 1e-3)
    assert ran.metrics[0]["t"] - ran.metrics[0]["h"] == pytest.approx(0.1)
    assert min(line["h"] for line in ran.metrics) > 1e-4
    x = np.linspace(-1, 1, 50)[1:-1, None]
    first = open_run(undisturbed.directory).solution(0.1)(x)
    np.testing.assert_allclose(run.solution(0.1)(x), first, atol=2e-3)


@pytest.mark.parametrize("phase, written", [(EVOLVE, 3), (EVOLVE, 4), (FINISHED, 4)])
def test_a_resume_beyond_an_end_that_is_a_multiple(runs, phase, written):
    """The end of the first part, 0.3, and the third multiple, 3 * 0.1 > 0.3, are one output: it is written once."""
    config = runs.config(output__times=[], output__every=0.1, integrator__t_end=0.5)
    resumed = SimpleNamespace(config=config, output_times=output_times(config))
    resumed.outputs_before = partial(Simulation.outputs_before, resumed)
    state = SimpleNamespace(t=0.3, phase=phase, outputs_written=written)
    state._replace = lambda **changes: SimpleNamespace(**(vars(state) | changes))
    state = Simulation.resumed(resumed, state)
    assert (state.phase, state.outputs_written) == (EVOLVE, written)
    assert Simulation.output_due(resumed, state) is (written == 3)


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
    assert checks.check(registry.load(config.problem), "Second", 0.1) == []
    (warning,) = checks.check(registry.load(config.problem), "Second", 0.3)
    assert "set integrator.t_start to the time of <solution at t = 0.1 in " in warning
    directory = run_directory.create(config, tmp_path / "run", "run", files)
    shutil.rmtree(tmp_path / "first")
    problem = registry.load(read_config(directory / "config.toml").problem)
    assert problem.initial.files[0].startswith(str(directory / "problem/first"))
    x = np.array([0.3])
    assert problem.initial(x) == open_run(undisturbed.directory).solution(0.1)(x)
