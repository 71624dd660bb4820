"""A run directory belongs to one run, and to one group of processes at a time."""

import json
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nivp_dist.errors import InputError
from nivp_dist.run import launch
from nivp_dist.settings.files import no_run_in, read_config
from nivp_dist.settings.model import Config
from nivp_dist.storage import problem_copy, run_directory
from nivp_dist.storage.lock import hold, in_use

HEAT = Config(problem={"name": "heat"})


def refused(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return str(caught.value)


def test_default_directories_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_directory.create(HEAT, None, "heat") == tmp_path / "runs/heat-001"
    assert run_directory.create(HEAT, None, "heat") == tmp_path / "runs/heat-002"
    assert run_directory.create(HEAT, None, "a b/c") == tmp_path / "runs/a_b_c-001"


def test_runs_that_start_together_get_different_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: run_directory.create(HEAT, None, "heat"), range(16)))
    assert len(set(made)) == 16


def test_the_record_is_the_configuration_with_versions(tmp_path):
    path = run_directory.create(HEAT, tmp_path / "new/run", "heat")
    assert read_config(path / "config.toml") == HEAT
    assert tomllib.loads((path / "config.toml").read_text())["versions"]["numpy"] == np.__version__


def test_output_directory_of_the_configuration_is_used(tmp_path):
    config = Config(problem={"name": "heat"}, output={"directory": str(tmp_path / "there")})
    assert run_directory.create(config, None, "heat") == tmp_path / "there"
    assert run_directory.create(config, tmp_path / "here", "heat") == tmp_path / "here"


def test_an_empty_directory_may_be_given_once(tmp_path):
    run_directory.create(HEAT, tmp_path, "heat")
    assert refused(run_directory.create, HEAT, tmp_path, "heat") == (
        f"{tmp_path}: holds another run; use `nivp resume {tmp_path}`, or another --output"
    )


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    assert refused(run_directory.create, HEAT, tmp_path, "x") == f"{tmp_path}: not empty; choose another with --output"
    line = f"{tmp_path}/thesis.tex: a file of that name is in the way; choose another with --output"
    assert refused(run_directory.create, HEAT, tmp_path / "thesis.tex", "x") == line


def test_an_unwritable_place_is_refused():
    # /proc takes no directories, whoever asks
    assert refused(run_directory.create, HEAT, "/proc/run", "x") == (
        "/proc/run: cannot make the run directory: No such file or directory; choose another with --output"
    )


def test_the_run_keeps_its_own_copy_of_a_problem_file(tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")
    config = Config(problem={"file": str(tmp_path / "mine.py"), "class": "Mine"})
    path = run_directory.create(config, tmp_path / "run", "x")
    (tmp_path / "mine.py").write_text("x = 2\n")
    assert tomllib.loads((path / "config.toml").read_text())["problem"]["file"] == "problem/mine.py"
    again = read_config(path / "config.toml")
    assert Path(again.problem.file).read_text() == "x = 1\n"
    run_directory.record_config(path, again)
    assert read_config(path / "config.toml") == again
    assert tomllib.loads((path / "config.toml").read_text())["problem"]["file"] == "problem/mine.py"


@pytest.fixture
def network(tmp_path):
    """A configuration with a network's file, which imports a module beside it, and the directory of its run."""
    (tmp_path / "mine.py").write_text("from layers import x\n")
    (tmp_path / "layers.py").write_text("x = 1\n")
    config = Config(problem={"name": "heat"}, network={"file": str(tmp_path / "mine.py"), "class": "Mine"})
    return config, run_directory.create(config, tmp_path / "run", "x")


def test_the_run_keeps_its_own_copy_of_a_network(network, tmp_path):
    _, path = network
    (tmp_path / "mine.py").write_text("x = 2\n")
    (tmp_path / "layers.py").unlink()
    again = read_config(path / "config.toml")
    assert again.network.file == str(path / "network/mine.py")
    assert {file.name: file.read_text() for file in (path / "network").iterdir()} == {
        "mine.py": "from layers import x\n",
        "layers.py": "x = 1\n",
    }
    problem_copy.require_unchanged(path)
    run_directory.record_config(path, again)
    assert read_config(path / "config.toml") == again
    assert tomllib.loads((path / "config.toml").read_text())["network"]["file"] == "network/mine.py"


@pytest.mark.parametrize("name", ["mine.py", "layers.py"])
def test_a_changed_copy_of_a_network_is_refused(network, name):
    _, path = network
    (path / "network" / name).write_text("x = 3\n")
    assert refused(problem_copy.require_unchanged, path) == (
        f"{path}/network/{name}: has changed since the run began, and decides its network: put it back, or start a new "
        "run"
    )


@pytest.mark.parametrize("name, what", [("mine.py", "network.file"), ("layers.py", "network/layers.py")])
def test_a_run_that_is_present_does_not_go_on_with_another_network(network, tmp_path, name, what):
    config, path = network
    assert launch.continuation(path, config)[0].network.file == str(path / "network/mine.py")
    (tmp_path / name).write_text("from layers import x\nx = 3\n")
    line = refused(launch.continuation, path, config)
    assert line.startswith(f"{path}: holds a run with other contents of {what}: it cannot go on")


def test_summary(tmp_path):
    path = run_directory.create(HEAT, tmp_path / "run", "x")
    assert run_directory.read_summary(path) is None
    run_directory.write_summary(path, {"t": np.float64(0.5), "errors": [{"t": 0.0, "relative_l2": np.nan}]})
    assert run_directory.read_summary(path) == {"t": 0.5, "errors": [{"t": 0.0, "relative_l2": None}]}
    json.loads((path / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    line = no_run_in(tmp_path)
    assert refused(run_directory.read_summary, tmp_path) == line
    (path / "summary.json").write_text("{")
    assert refused(run_directory.read_summary, path).startswith(f"{path}/summary.json: damaged: ")


def test_two_processes_cannot_hold_one_directory(tmp_path):
    code = (
        "import sys; from nivp_dist.storage.lock import hold\n"
        f"with hold({str(tmp_path)!r}): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        assert in_use(tmp_path)
        with pytest.raises(InputError, match=f"^{tmp_path}: in use by process {other.pid} on "):
            with hold(tmp_path):
                pass
    finally:
        other.kill()  # -9: the kernel gives the lock back
        other.wait()
        other.stdin.close()
        other.stdout.close()
    assert not in_use(tmp_path)
    with hold(tmp_path):
        assert in_use(tmp_path)


def test_a_lock_is_waited_for_on_request(tmp_path):
    """The server of a file system keeps the lock of a host that was lost; a job that begins again must outwait it."""
    code = (
        "import time; from nivp_dist.storage.lock import hold\n"
        f"with hold({str(tmp_path)!r}): print('held', flush=True); time.sleep(1.5)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="in use by process"):
            with hold(tmp_path, patience=0.1):
                pass
        with hold(tmp_path, patience=60):
            assert in_use(tmp_path)


def test_planned_directories_are_those_that_would_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_directory.planned(None, "heat") == tmp_path / "runs/heat-001" and not Path("runs").exists()
    assert run_directory.create(HEAT, None, "heat") == tmp_path / "runs/heat-001"
    assert run_directory.planned(None, "heat") == tmp_path / "runs/heat-002"
    assert run_directory.planned("new", "heat") == tmp_path / "new" and not Path("new").exists()
    line = "runs/heat-001: holds another run; use `nivp resume runs/heat-001`, or another --output"
    assert refused(run_directory.planned, "runs/heat-001", "heat") == line


def test_folders_for_several_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_directory.make_folder(None, "a sweep") == tmp_path / "runs/a_sweep-001"
    assert run_directory.make_folder("deep/er", "x") == tmp_path / "deep/er"
    assert refused(run_directory.make_folder, "deep", "x") == "deep: not empty; choose another with --output"
    # /proc takes no directories, whoever asks
    assert refused(run_directory.make_folder, "/proc/sweep", "x").startswith(
        "/proc/sweep: cannot be made: No such file"
    )


def test_locks_of_one_process_nest(tmp_path):
    with hold(tmp_path):
        with hold(tmp_path):
            pass
        assert in_use(tmp_path)
    assert not in_use(tmp_path)


def test_has_checkpoint_counts_complete_ones_only(tmp_path):
    assert not run_directory.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints/7.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not run_directory.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints/7").mkdir()
    assert run_directory.has_checkpoint(tmp_path)
    run_directory.discard(tmp_path)
    assert (tmp_path / "checkpoints/7").is_dir()
