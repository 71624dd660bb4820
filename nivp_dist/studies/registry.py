"""The studies by their names. A study is imported when it is asked for, since most of them import jax."""

import importlib

from nivp_dist.errors import InputError
from nivp_dist.settings.keys import nearest
from nivp_dist.studies.study import Study

NAMES = (
    "scaling",
    "solvers",
    "conditioning",
    "restarts",
    "parabolic",
    "dimension",
    "architecture",
    "steps",
    "size",
)
MODULES = {name: f"nivp_dist.studies.{name}" for name in NAMES}  # each has a STUDY


def find(name: str) -> Study:
    """The study of that name. Raises InputError."""
    if name not in MODULES:
        close = nearest(name, MODULES)
        mend = f"the nearest is {close}" if close else f"there are {', '.join(MODULES)}"
        raise InputError(f"study: there is no study '{name}'; {mend}")
    return importlib.import_module(MODULES[name]).STUDY


def questions() -> dict[str, str]:
    """name -> question of every study."""
    return {name: find(name).question for name in MODULES}
