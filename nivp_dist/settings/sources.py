"""The files beside a user's problem file that decide its equation: modules that it imports, and data that it reads.

A file that lies in the folder of the problem file is copied into the run directory, and the run uses the copy. A module
from elsewhere (PYTHONPATH, an editable installation) or a data file from elsewhere stays where it is; the run directory
records its sha256, and a resume refuses another content. Installed packages do not count: their versions are recorded.
"""

import ast
import functools
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nivp_dist.errors import InputError

INSTALLED = {"site-packages", "dist-packages"}  # folders of installed packages


class Source(NamedTuple):
    """A file. copy: its path in the folder of the problem file, as POSIX text, or None if it lies elsewhere.

    sha256: '' for a file that may change while the equation does not. It is copied, and not compared.
    """

    path: Path
    copy: str | None
    sha256: str


class _Import(NamedTuple):
    """An absolute module name that a file imports, and the folder to which it is relative, if it is."""

    name: str
    folder: Path | None


def modules_beside(file: Path) -> list[Source]:
    """The modules in the folder of a problem file that it imports, or that these import."""
    return _modules(file, elsewhere=False)


def modules(file: Path) -> list[Source]:
    """All modules that a problem file imports, and those that these import, but for installed packages.

    Imports in functions count too. Modules whose name is computed while the program runs are not found.
    """
    return _modules(file, elsewhere=True)


def data(file: Path, names: object, where: str) -> list[Source]:
    """The data files that a problem declares: names relative to the folder of its file and in it, or absolute ones.

    where: the place of the declaration in messages. Raises InputError if one of them is not a file, or leaves the
    folder by a relative name, which would mean another file to the copy of the problem in a run directory.
    """
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where} must be a tuple of names of files, got {names!r}")
    sources = []
    for name in names:
        path = data_path(file.parent, name)
        inside = path.is_relative_to(file.parent)
        if not path.is_file():
            raise InputError(f"{where} names {name}: there is no file {path}")
        if not (inside or Path(name).is_absolute()):
            raise InputError(f"{where} names {name}: it lies outside of {file.parent}: write its absolute path")
        sources.append(Source(path, path.relative_to(file.parent).as_posix() if inside else None, sha256(path)))
    return sources


def uncompared(file: Path, path: Path) -> Source:
    """A file that is copied if it lies in the folder of the problem file, and may change afterwards."""
    return Source(path, path.relative_to(file.parent).as_posix() if path.is_relative_to(file.parent) else None, "")


def data_path(folder: Path, name: str) -> Path:
    """The absolute path of a data file. folder: of the problem file."""
    return Path(os.path.normpath(folder / name))


def is_beside(folder: Path, name: str) -> bool:
    """Whether a module (the first part of a dotted name) lies in the folder of a problem file. Names of Python's own
    library, and ours, never do."""
    top = name.partition(".")[0]
    known = top in sys.stdlib_module_names or top == "nivp_dist"
    return not known and ((folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file())


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits. Raises InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


# A module from elsewhere is executed once in a process. If it is edited later, this process goes on with the old code.
_first_sha256 = functools.cache(sha256)


def _modules(file: Path, elsewhere: bool) -> list[Source]:
    found: dict[Path, Source] = {}
    waiting = [(file, True)]
    while waiting:
        importer, beside = waiting.pop()
        for path, is_beside in _imported_files(importer, file.parent if beside else None, elsewhere):
            if path not in found and path != file:
                copy = path.relative_to(file.parent).as_posix() if is_beside else None
                found[path] = Source(path, copy, sha256(path) if is_beside else _first_sha256(path))
                waiting.append((path, is_beside))
    return list(found.values())


def _imported_files(importer: Path, folder: Path | None, elsewhere: bool) -> Iterator[tuple[Path, bool]]:
    """The files that a file imports directly, each with whether it lies beside the problem file.

    folder: of the problem file, if the importer lies beside it. elsewhere: whether to look for other files too.
    """
    for name, relative_to in _imports(importer):
        if relative_to is not None:
            files = _files_of(name, relative_to)  # none outside of the folder, where the import fails
            yield from ((path, folder is not None) for path in files if folder is None or path.is_relative_to(folder))
        elif folder is not None and is_beside(folder, name):
            yield from ((path, True) for path in _files_of(name, folder))
        elif elsewhere:
            yield from ((path, False) for path in _files_elsewhere(name))


def _imports(file: Path) -> Iterable[_Import]:
    try:
        tree = ast.parse(file.read_bytes()) if file.suffix == ".py" else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):  # the import itself reports it
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [_Import(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = Path(os.path.normpath(file.parent / Path(*[".."] * (node.level - 1)))) if node.level else None
            names = [f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names]
            found += [_Import(name, folder) for name in names]  # alias.name may be a module, or a name in one
    return found


def _files_of(name: str, folder: Path) -> list[Path]:
    """The files that the import of a dotted name executes: those of its packages and its own. Names of objects in a
    module, which `from module import name` has at the end, have none."""
    files, place = [], folder
    for part in name.split("."):
        module, place = place / f"{part}.py", place / part
        if (place / "__init__.py").is_file():
            files.append(place / "__init__.py")
        elif module.is_file():
            return [*files, module]
        elif not place.is_dir():
            break
    return files


def _files_elsewhere(name: str) -> list[Path]:
    """The files of a module that is neither of Python's own library, nor of an installed package, nor ours."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "nivp_dist":
        return []
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):  # the import itself reports it
        return []
    if spec is None:
        return []
    folders = list(spec.submodule_search_locations or [])
    place = Path(folders[0]) if folders else Path(spec.origin or "")
    if INSTALLED & set(place.parts) or not place.is_absolute() or not place.exists():
        return []
    return [place] if place.is_file() and place.suffix != ".py" else _files_of(name, place.parent)
