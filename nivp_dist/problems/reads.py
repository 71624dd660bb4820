"""The files that a user's problem reads, found by Python's audit events: of those that it does not declare in
``data_files`` the run has no copy, and a resume cannot notice that they were edited."""

import functools
import os
import re
import sys
import sysconfig
from pathlib import Path

from nivp_dist.settings.sources import INSTALLED

PREFIX = "nivp_problem_"  # of the names of the modules of problem files, and of those in their folders
_found: dict[str, set[Path]] = {}  # folder of a problem file -> the files that the modules in it have opened
# Files of the system, of Python and of this package, which open files on behalf of their callers; endings of programs.
_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", sysconfig.get_path("stdlib"))
_OF_THE_SYSTEM += (str(Path(__file__).resolve().parents[1]) + os.sep,)
_PROGRAMS = (".py", ".pyc", ".so")


def watch(folder: Path) -> None:
    """From now on notice what the modules in the folder of a problem file read."""
    _found.setdefault(str(folder), set())
    _install()


def by(folder: Path) -> set[Path]:
    """The files that the modules in a folder have opened so far to read them, themselves or through a library."""
    return set(_found.get(str(folder), ()))


@functools.cache
def _install() -> None:
    sys.addaudithook(_notice)  # which Python cannot undo


def _notice(event: str, arguments: tuple) -> None:
    if event != "open" or not isinstance(arguments[0], str) or arguments[2] & os.O_ACCMODE != os.O_RDONLY:
        return
    path = os.path.abspath(arguments[0])
    if path.endswith(_PROGRAMS) or _is_of_the_system(path) or _is_compiled(path):
        return
    frame = sys._getframe(1)
    while frame is not None and _is_of_the_system(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None or not str(frame.f_globals.get("__name__")).startswith(PREFIX):
        return  # a script in the same folder, which starts the run
    caller = frame.f_code.co_filename
    for folder, files in _found.items():
        if caller.startswith(folder + os.sep):
            files.add(Path(path))


def _is_compiled(path: str) -> bool:
    """Whether a file is one of jax's compiled programs, by its folder or, where jax has had another one, its name."""
    if re.search(r"-[0-9a-f]{64}-(cache|atime)$", path):
        return True
    jax = sys.modules.get("jax")
    folder = jax.config.jax_compilation_cache_dir if jax is not None else None
    return bool(folder) and path.startswith(os.path.abspath(folder) + os.sep)


def _is_of_the_system(path: str) -> bool:
    return path.startswith(("<frozen", *_OF_THE_SYSTEM)) or bool(INSTALLED & set(path.split(os.sep)))
