"""Files that a problem reads and does not declare."""

from pathlib import Path

import numpy as np
import pytest

from nivp_dist.problems import checks, registry
from nivp_dist.settings.model import ProblemSettings

TABLE = """\
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from nivp_dist import Box, Problem

{module}


class Table(Problem):
    domain = Box(1)
    data_files = {declared}

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2)

    def rhs(self, u, x, t):
        {rhs}
        return -u(x)
"""
BESIDE = 'K = np.load(Path(__file__).parent / "table.npy")'
PLAIN = 'K = np.loadtxt("k.txt")'


@pytest.mark.parametrize(
    "module, rhs, declared, found",
    [
        (BESIDE, "", ("table.npy",), []),
        (BESIDE, "", (), ["{folder}/table.npy"]),
        ("from helper import K", "", ("table.npy",), []),
        ("from helper import K", "", (), ["{folder}/table.npy"]),
        ("", PLAIN, (), ["{work}/k.txt"]),
        (BESIDE, PLAIN, ("table.npy", "{work}/k.txt"), []),
        ("open('out', 'w').close()", "", (), []),
    ],
)
def test_files_that_are_not_declared_are_warnings(tmp_path, monkeypatch, module, rhs, declared, found):
    """Whichever library opens them, at the import or later, beside the problem's file or not."""
    folder, work = tmp_path / "mine", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    np.save(folder / "table.npy", 0.5)
    Path("k.txt").write_text("0.5\n")
    (folder / "helper.py").write_text(f"from pathlib import Path\nimport numpy as np\n{BESIDE}\n")
    file = folder / "table.py"
    declared = tuple(name.format(work=work) for name in declared)
    file.write_text(TABLE.format(module=module, rhs=rhs or "pass", declared=declared))
    warnings = checks.check(registry.load(ProblemSettings(file=str(file), class_="Table")), str(file))
    why = "which is not in its data_files: if that is edited, a resume goes on with another equation"
    assert warnings == [f"{file}: Table reads {path.format(folder=folder, work=work)}, {why}" for path in found]
