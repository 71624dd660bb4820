"""The files that a user's problem reads, found by Python's audit events: of those that it does not declare in
``data_files`` the run has no copy, and a resume cannot notice that they were edited."""

import functools
import os
import sys
import sysconfig
from pathlib import Path

from nivp_dist.settings.sources import INSTALLED

_found: dict[str, set[Path]] = {}  # folder of a problem file -> the files that the modules in it have opened
# Files of the system and of Python, which libraries open on behalf of their callers, and the endings of programs.
_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", sysconfig.get_path("stdlib"))
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
    if path.endswith(_PROGRAMS) or _is_of_the_system(path):
        return
    frame = sys._getframe(1)
    while frame is not None and _is_of_the_system(frame.f_code.co_filename):
        frame = frame.f_back
    caller = frame.f_code.co_filename if frame is not None else ""
    for folder, files in _found.items():
        if caller.startswith(folder + os.sep):
            files.add(Path(path))


def _is_of_the_system(path: str) -> bool:
    return path.startswith(("<frozen", *_OF_THE_SYSTEM)) or bool(INSTALLED & set(path.split(os.sep)))
