"""The modules and data of a user's problem: edited after the start of a run, they do not change what it computes."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from nivp_dist import cli, open_run, resume, solve
from nivp_dist.errors import InputError

ROD = """\
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from nivp_dist import Box, Problem
from nivp_dist.problems import laplacian

SOURCE = float(np.load(Path(__file__).parent / "data/source.npy"))


class Rod(Problem):
    domain = Box(1)
    data_files = ("data/source.npy",)

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2)

    def rhs(self, u, x, t):
        from conductivity import K
        from nivp_test_shared import FACTOR

        return FACTOR * K * laplacian(u, x) + SOURCE * (1 - x[0] ** 2)
"""
SETTINGS = {
    "problem": {"class": "Rod"},
    "network": {"width": 6, "depth": 1, "frequencies": 1},
    "sampling": {"points": 100},
    "integrator": {"t_end": 0.1, "initial_step": 0.05},
    "fit": {"points": 200, "iterations": 12, "target": 1e-2},
    "output": {"times": [0.1], "evaluation_points": 1000, "plots": False},
}


@pytest.fixture
def rod(tmp_path, monkeypatch):
    """The settings of a problem file with a module and a data file beside it, and a module elsewhere."""
    folder, shared = tmp_path / "mine", tmp_path / "shared"
    (folder / "data").mkdir(parents=True)
    shared.mkdir()
    (folder / "rod.py").write_text(ROD)
    (folder / "conductivity.py").write_text("K = 0.05\n")
    np.save(folder / "data/source.npy", 0.5)
    (shared / "nivp_test_shared.py").write_text("FACTOR = 1.0\n")
    monkeypatch.syspath_prepend(shared)
    monkeypatch.delitem(sys.modules, "nivp_test_shared", raising=False)  # that of another test
    monkeypatch.chdir(tmp_path)
    return SETTINGS | {"problem": {"file": "mine/rod.py", "class": "Rod"}}


def edit(folder):
    (folder / "conductivity.py").write_text("K = 5.00\n")
    np.save(folder / "data/source.npy", 50.0)


def test_a_run_goes_on_with_the_equation_with_which_it_began(rod, tmp_path, monkeypatch):
    """From another working directory, and also after the user's files are gone."""
    straight = solve(rod | {"integrator": {"t_end": 0.2, "initial_step": 0.05}}, directory="straight", quiet=True)
    directory = solve(rod, directory="run", quiet=True).directory
    edit(tmp_path / "mine")
    elsewhere = tmp_path / "another/place"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    run = resume(directory, settings={"integrator.t_end": 0.2}, quiet=True)
    assert np.array_equal(run.snapshot(0.2)["theta"], straight.snapshot(0.2)["theta"])
    shutil.rmtree(tmp_path / "mine")
    assert resume(directory, settings={"integrator.t_end": 0.25}, quiet=True).problem.domain.dimension == 1


def test_a_module_from_elsewhere_that_has_changed_ends_a_resume(rod, tmp_path):
    directory = solve(rod, directory="run", quiet=True).directory
    module = tmp_path / "shared/nivp_test_shared.py"
    module.write_text("FACTOR = 100.0\n")
    line = f"{module}: has changed since the run began, and decides its equation: put it back, or start a new run"
    with pytest.raises(InputError) as caught:
        resume(directory, settings={"integrator.t_end": 0.2}, quiet=True)
    assert str(caught.value) == line
    with pytest.raises(InputError, match="has changed since the run began"):
        _ = open_run(directory).problem
    module.unlink()
    with pytest.raises(InputError, match="nivp_test_shared.py: cannot be read: No such file"):
        resume(directory, settings={"integrator.t_end": 0.2}, quiet=True)


def test_a_copy_that_was_edited_ends_a_resume(rod, tmp_path):
    directory = solve(rod, directory="run", quiet=True).directory
    edit(directory / "problem")
    with pytest.raises(InputError, match="problem/conductivity.py: has changed since the run began"):
        resume(directory, settings={"integrator.t_end": 0.2}, quiet=True)


def test_a_run_that_is_present_does_not_go_on_with_an_edited_module(rod, tmp_path, capsys):
    text = '[problem]\nfile = "mine/rod.py"\nclass = "Rod"\n[output]\nplots = false\n'
    Path("rod.toml").write_text(
        text + "[fit]\ntarget = 1e-2\n[network]\nwidth = 6\ndepth = 1\n[integrator]\nt_end = 0.01\n"
    )
    words = ["run", "rod.toml", "--output", "run", "--resume-if-present"]
    assert cli.main(words) == 0 and cli.main(words) == 0
    capsys.readouterr()
    np.save("mine/data/source.npy", 50.0)
    assert cli.main(words) == 2
    what = "holds a run with other contents of problem/data/source.npy: it cannot go on"
    assert what in capsys.readouterr().err


def test_data_that_is_not_declared_is_not_found_in_the_run(rod, tmp_path):
    """The run reads copies, so that it cannot read a file that may be edited."""
    (tmp_path / "mine/rod.py").write_text(ROD.replace("    data_files", "    _unused"))
    with pytest.raises(
        InputError, match="rod.py:9: FileNotFoundError: .*: name the files in the class attribute data_"
    ):
        solve(rod, directory="run", quiet=True)
    assert not (tmp_path / "run").exists()
