"""The wheel, outside a checkout: what travels in it is enough to submit and to start."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import nivp_dist

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the wheel of this checkout is unpacked into, as pip would."""
    pytest.importorskip("hatchling", reason="the wheel cannot be built here: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").iterdir()
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def run(installed, tmp_path):
    """Python on the installed package, from an empty folder: the completed process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NIVP", "SLURM"))}
    environment |= {"PYTHONPATH": str(installed), "XDG_CONFIG_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    return lambda *words: subprocess.run(
        [sys.executable, *map(str, words)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )


@pytest.mark.parametrize("folder", ["configs", "launch", "slurm", "nivp_dist/guide/examples"])
def test_all_that_is_shipped_travels(installed, folder):
    ours, theirs = CHECKOUT / folder, installed / "nivp_dist" / folder.removeprefix("nivp_dist/")
    names = sorted(path.name for path in ours.iterdir() if path.is_file())
    assert names and names == sorted(path.name for path in theirs.iterdir())
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names)


def test_the_marker_of_a_typed_package_travels(installed):
    assert (installed / "nivp_dist/py.typed").is_file()  # PEP 561: type checkers of users read our annotations


def test_the_wheel_has_the_version_of_the_package(installed):
    (metadata,) = installed.glob("*.dist-info/METADATA")
    assert f"\nVersion: {nivp_dist.__version__}\n" in metadata.read_text()
    assert "version" not in tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("sweep", [(), ("--sweep", "seed=1,2")])
def test_submit_outside_a_checkout(run, tmp_path, sweep):
    done = run("-m", "nivp_dist.cli", "submit", "heat_2d", "--nodes", "2", "--dry-run", *sweep)
    assert (done.returncode, done.stderr) == (0, "") and not list(tmp_path.iterdir())
    assert done.stdout.startswith("#!/bin/bash\n") and "#SBATCH --nodes=2\n" in done.stdout
    assert ("#SBATCH --array=0-1\n" in done.stdout) is bool(sweep) and not re.search("@[A-Z]+@", done.stdout)


def test_the_launcher_outside_a_checkout(run, installed):
    done = run(installed / "nivp_dist/launch/local", "2", "--", sys.executable, "-c", "import os; print(os.environ)")
    assert done.returncode == 0 and done.stdout.count("'NIVP_PROCESSES': '2'") == 2


def test_the_guide_outside_a_checkout(run):
    done = run("-m", "nivp_dist.cli", "guide", "settings")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("# Choosing settings\n")
