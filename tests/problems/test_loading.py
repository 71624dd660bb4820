"""Problem files that import the modules in their folder."""

import sys

import pytest

from nivp_dist.errors import InputError
from nivp_dist.problems import registry
from nivp_dist.settings.model import ProblemSettings

MAIN = """\
import jax.numpy as jnp

import material
import lab.units as units
from lab import scales
from material import RATE as rate
from nivp_dist import Box, Problem


class Rod(Problem):
    domain = Box(1)

    def initial(self, x):
        return jnp.cos(jnp.pi * x[0] / 2)

    def rhs(self, u, x, t):
        from late import SIGN

        return SIGN * rate * u(x)

    def values(self):
        from late import SIGN

        return SIGN, rate, material.RATE, units.METRE, scales.LONG
"""
FILES = {
    "rod.py": MAIN,
    "material.py": "import late\n\nRATE = 2.0 * late.SIGN\n",
    "late.py": "SIGN = -1.0\n",
    "lab/__init__.py": "",
    "lab/units.py": "METRE = 1.0\n",
    "lab/scales.py": "from .units import METRE\n\nLONG = 10 * METRE\n",
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return ProblemSettings(file=str(folder / "rod.py"), class_="Rod")


def test_modules_in_the_folder_are_imported_in_every_way(tmp_path):
    before, path = set(sys.modules), list(sys.path)
    assert registry.load(write(tmp_path, FILES)).values() == (-1.0, -2.0, -2.0, 1.0, 10.0)
    assert not {"material", "late", "lab"} & (set(sys.modules) - before) and sys.path == path
    assert not list(tmp_path.rglob("__pycache__"))


def test_folders_with_modules_of_the_same_names_do_not_disturb_each_other(tmp_path):
    """Also for imports that are executed later, when the other problem has been loaded."""
    one = registry.load(write(tmp_path / "one", FILES))
    other = registry.load(write(tmp_path / "other", FILES | {"late.py": "SIGN = 1.0\n"}))
    assert one.values()[:2] == (-1.0, -2.0) and other.values()[:2] == (1.0, 2.0)


def test_a_module_is_read_again_after_it_was_edited(tmp_path):
    """Even if its length and the second of its last change are the same."""
    assert registry.load(write(tmp_path, FILES)).values()[0] == -1.0
    assert registry.load(write(tmp_path, FILES | {"late.py": "SIGN = -5.0\n"})).values()[:2] == (-5.0, -10.0)


@pytest.mark.parametrize(
    "name, text, line",
    [
        ("late.py", "SIGN = = 1\n", "{folder}/late.py:1: SyntaxError: invalid syntax"),
        ("late.py", "1 / 0\n", "{folder}/late.py:1: ZeroDivisionError: division by zero"),
        (
            "lab/scales.py",
            "from . import no\n",
            "{folder}/lab/scales.py:1: ImportError: cannot import name 'no' from 'lab'",
        ),
        ("late.py", "import lab.no\n", "{folder}/late.py:1: ModuleNotFoundError: No module named 'lab.no'; a problem "),
        ("late.py", "open(__file__ + 'x')\n", "{folder}/late.py:1: FileNotFoundError: [Errno 2] No such file or dir"),
    ],
)
def test_mistakes_in_a_module_are_one_line(tmp_path, name, text, line):
    with pytest.raises(InputError) as caught:
        registry.load(write(tmp_path, FILES | {name: text}))
    assert str(caught.value).startswith(line.format(folder=tmp_path)) and "\n" not in str(caught.value)
    assert registry.load(write(tmp_path, FILES)).values()[0] == -1.0
