"""A user's file, of a problem, of callbacks or of a network, as a module.

It may import the files in its folder, as a script that Python runs may. The copies in a run directory have the names of
the files from which they were made, and several runs may be open in one process. So ``import material`` in a problem
file does not register a module ``material``, but one in a package of that problem's own, whose folder is that of the
file. Nothing is taken from or written to ``__pycache__``: Python would take the compiled code of an older file of the
same size and second for that of the file.
"""

import builtins
import hashlib
import importlib
import sys
import traceback
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

from nivp_dist.errors import InputError
from nivp_dist.problems import reads
from nivp_dist.problems.reads import PREFIX
from nivp_dist.settings import sources

PREFIXES = {"problem": PREFIX, "callbacks": "nivp_callbacks_", "network": "nivp_network_"}  # of the names of modules
_KINDS = {"problem": "a problem file", "callbacks": "a file of callbacks", "network": "the file of a network"}
PARTS = "_files"  # the ending of the name of the package of the modules in its folder


def load_module(path: Path, section: str = "problem") -> ModuleType:
    """The module that a user's file defines. It is registered, because annotations are resolved by module name.

    section: of the settings that names the file, "problem", "callbacks" or "network". What a problem's modules read is
        noticed.

    Raises InputError, with file and line, for any exception in the user's code.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {section}.file cannot be read: {error.strerror}") from None
    # The name comes from path and contents: the same file runs once, and again after it, or one beside it, was edited.
    words = [str(path), hashlib.sha256(content).hexdigest(), *(file.sha256 for file in sources.modules_beside(path))]
    name = PREFIXES[section] + hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    if section == "problem":
        reads.watch(path.parent)
    importlib.invalidate_caches()  # for files that were written a moment ago
    module, parts = sys.modules[name], sys.modules[name + PARTS] = ModuleType(name), ModuleType(name + PARTS)
    module.__file__, parts.__path__ = str(path), [str(path.parent)]
    try:
        vars(module)["__builtins__"] = _builtins(name + PARTS, path.parent)
        exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        for known in [key for key in sys.modules if key.startswith(name)]:
            del sys.modules[known]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise InputError(_message(error, path, name, section)) from None
    return module


def place_of(error: BaseException, file: str | Path | None) -> str | None:
    """ "file:line" of the innermost frame of the error's traceback that lies in the file, or None."""
    if file is None:
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file}:{frames[-1].lineno}" if frames else None


def first_line(error: BaseException) -> str:
    """ "TypeError: message": the class and the first line of the message, at most 200 characters."""
    text = str(error).strip().split("\n")[0]
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 200 else line[:197] + "..."


def _message(error: BaseException, path: Path, name: str, section: str) -> str:
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}" if error.filename else path  # none for bytes that are no text
        return f"{place}: SyntaxError: {error.msg}"
    hint = ""
    if isinstance(error, ImportError):
        hint = f"; {_KINDS[section]} imports installed packages and files in its folder"
    elif isinstance(error, FileNotFoundError) and section == "problem":
        hint = "; a run reads copies of its data: name the files in the class attribute data_files"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(path.parent)
    ]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else path
    return f"{place}: {first_line(error).replace(f'{name}{PARTS}.', '')}{hint}"


class _Loader(SourceFileLoader):
    """Executes a file in the folder of a problem file, for the modules that lie there."""

    def get_code(self, fullname):
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module):
        parts = module.__name__.partition(".")[0]
        vars(module)["__builtins__"] = _builtins(parts, Path(sys.modules[parts].__path__[0]))
        super().exec_module(module)


class _Finder:
    """Finds the modules in the folders of problem files (an entry of ``sys.meta_path``)."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        ours = path is not None and name.startswith(tuple(PREFIXES.values()))
        spec = PathFinder.find_spec(name, path) if ours else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder)


def _builtins(parts: str, folder: Path) -> dict:
    """Python's built-in functions with an ``__import__`` that looks in the folder first.

    parts: the name of the package that the modules in the folder belong to.
    """

    def import_(name, globals=None, locals=None, fromlist=(), level=0):
        if level or not sources.is_beside(folder, name):
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(f"{parts}.{name}", None, None, fromlist, 0)
        return module if fromlist else sys.modules[f"{parts}.{name.partition('.')[0]}"]

    return vars(builtins) | {"__import__": import_}
