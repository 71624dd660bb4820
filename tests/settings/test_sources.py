"""The files that a problem file needs."""

import hashlib

import pytest

from nivp_dist.errors import InputError
from nivp_dist.settings import sources

FILES = {
    "rod.py": "import numpy, os, a.b\nimport jax\n\ndef rhs():\n    from c import x\n    import shared.law\n",
    "a/__init__.py": "from . import e\n",
    "a/b.py": "from .d import y\nfrom ..c import z\n",
    "a/d.py": "import rod\nfrom ...elsewhere import other\nfrom ............................. import deep\n",
    "a/e/__init__.py": "",
    "a/unused.py": "",
    "c.py": "import os\nimport nowhere\nimport broken\n",
    "broken.py": "x = =\n",
    "os.py": "",
    "nivp_dist.py": "",
}
SHARED = {"shared/__init__.py": "import other\n", "shared/law.py": "from . import deep\n", "shared/deep.py": ""}
SHARED |= {"other.py": "import c\n", "c.py": ""}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def rod(tmp_path, monkeypatch):
    """A problem file with modules in its folder and elsewhere, in a folder that is in Python's path."""
    write(tmp_path / "here", FILES)
    write(tmp_path / "elsewhere", SHARED)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    return tmp_path / "here/rod.py"


def test_modules_are_found_in_the_folder_and_elsewhere(rod, tmp_path):
    """A module from elsewhere does not import from the folder of the problem."""
    found = sources.modules(rod)
    here = ["a/__init__.py", "a/b.py", "a/d.py", "a/e/__init__.py", "broken.py", "c.py"]
    assert sorted(source.copy for source in found if source.copy) == here
    elsewhere = sorted(str(source.path.relative_to(tmp_path / "elsewhere")) for source in found if not source.copy)
    assert elsewhere == ["c.py", "other.py", "shared/__init__.py", "shared/deep.py", "shared/law.py"]
    assert all(source.sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest() for source in found)
    assert {source.path for source in sources.modules_beside(rod)} == {source.path for source in found if source.copy}


def test_a_module_from_elsewhere_has_the_contents_with_which_this_process_has_executed_it(rod, tmp_path):
    before = {source.path: source.sha256 for source in sources.modules(rod)}
    (tmp_path / "elsewhere/shared/deep.py").write_text("K = 5.0\n")
    assert {source.path: source.sha256 for source in sources.modules(rod)} == before


def test_data_files(tmp_path):
    write(tmp_path, {"here/rod.py": "", "here/data/table.npy": "1", "far.npy": "2"})
    names = ("data/table.npy", "data/../data/table.npy", str(tmp_path / "far.npy"))
    found = sources.data(tmp_path / "here/rod.py", names, "Rod.data_files")
    assert [source.copy for source in found] == ["data/table.npy", "data/table.npy", None]
    assert found[2].path == tmp_path / "far.npy"


@pytest.mark.parametrize(
    "names, line",
    [
        (("none.npy",), "Rod.data_files names none.npy: there is no file {folder}/here/none.npy"),
        (("../far.npy",), "Rod.data_files names ../far.npy: it lies outside of {folder}/here: write its absolute path"),
        (("",), "Rod.data_files names : there is no file {folder}/here"),
        ("table.npy", "Rod.data_files must be a tuple of names of files, got 'table.npy'"),
        ((1,), "Rod.data_files must be a tuple of names of files, got (1,)"),
    ],
)
def test_data_files_that_are_none(tmp_path, names, line):
    write(tmp_path, {"here/rod.py": "", "far.npy": "2"})
    with pytest.raises(InputError) as caught:
        sources.data(tmp_path / "here/rod.py", names, "Rod.data_files")
    assert str(caught.value) == line.format(folder=tmp_path)
