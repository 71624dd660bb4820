"""The guide's examples, each run as a user runs it. They compare themselves with theory and other methods."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, table

from nivp_dist.guide import examples

FOLDER = Path(examples.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
FOR_TESTS = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")  # a user has none of these
# example -> the form of a line that it prints -> the largest or, for two numbers, the largest relative distance of them
NUMBER = r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"
BOUNDS = {
    "heat": {f"t = 1.00: relative L2 error {NUMBER}": 5e-4, f"the heat is kept to {NUMBER}": 5e-4},
    "wave": {f"t = 2.00: error of u {NUMBER}": 3e-3, f"largest drift of the energy {NUMBER}": 2e-3},
    "kdv": {f"t = 1.5: relative L2 error {NUMBER}": 1e-2, f"integral of u: +{NUMBER} exactly, .*, {NUMBER} at": 5e-3},
    "allen_cahn": {
        f"t = 20: relative L2 distance from the radial solution {NUMBER}": 3e-3,
        f"decreases by {NUMBER} in a unit of time, in that limit by {NUMBER}": 0.05,
    },
    "double_wells": {
        f"product of one-dimensional densities {NUMBER}": 1e-2,
        f"probability of the first well: {NUMBER} .* by quadrature {NUMBER}": 0.04,
        f"quantile 0.9 of y_1: {NUMBER} .* by quadrature {NUMBER}": 0.02,
    },
    "landau_damping": {
        f"largest difference from linear theory {NUMBER}": 3e-3,
        f"frequency {NUMBER}, by the dispersion relation {NUMBER}": 0.01,
        f"damping rate {NUMBER}, by the dispersion relation {NUMBER}": 0.1,
    },
    "own_network": {
        f"largest relative change of u by a rotation: {NUMBER}": 1e-9,
        f"t = 0.5: relative L2 distance from the radial solution {NUMBER}": 5e-3,
        f"mean distance .*: {NUMBER} .* radial {NUMBER}": 0.01,
    },
    "two_processes": {f"the same bits\nrelative L2 error .* {NUMBER}": 5e-3},
}


@pytest.mark.timeout(600)  # a minute on an idle core for the longest, and this suite is not alone on its cores
@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_theory_says_and_draws_a_picture(name, tmp_path):
    printed = run(name, tmp_path)
    for form, bound in BOUNDS[name].items():
        found = re.search(form, printed)
        assert found, f"nothing like {form} was printed:\n{printed}"
        first, *second = map(float, found.groups())
        value = abs(first / second[0] - 1) if second else first
        assert value <= bound, found[0]
    picture = Path(re.search(r"^picture: (.*)$", printed, re.MULTILINE)[1])
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def run(name: str, folder: Path) -> str:
    """Run an example in an empty folder, with the programs that a user has; what it prints."""
    environment = {key: value for key, value in os.environ.items() if key not in FOR_TESTS}
    environment |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", f"nivp_dist.guide.examples.{name}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_page_has_every_example():
    rows = [row[0] for row in table("examples", "table: examples")]
    assert sorted(rows) == sorted(f"[{name}](examples/{name}.py)" for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_opens_as_a_notebook(name):
    """Cells of jupytext's percent format: a title and mathematics first, and text and code in turn."""
    cells = re.split(r"^# %%", (FOLDER / f"{name}.py").read_text(), flags=re.MULTILINE)
    assert cells[0] == "" and cells[1].startswith(" [markdown]\n# # ") and "$" in cells[1]
    for cell in cells[1:]:
        head, _, body = cell.partition("\n")
        assert head in ("", " [markdown]")
        assert head == "" or all(line.startswith("#") for line in body.splitlines() if line)
    assert len(cells) > 8
