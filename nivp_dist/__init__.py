"""Neural IVP: solve evolution equations in many dimensions by evolving the parameters of a network in time."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` below finds, for type checkers and editors
    from nivp_dist.api import open_run, resume, solve
    from nivp_dist.callbacks import Callback
    from nivp_dist.problems import Box, Problem
    from nivp_dist.settings.model import Config

__version__ = "0.2.0"

_PUBLIC = {
    "Problem": "nivp_dist.problems",
    "Box": "nivp_dist.problems",
    "Callback": "nivp_dist.callbacks",
    "Config": "nivp_dist.settings.model",
    "solve": "nivp_dist.api",
    "resume": "nivp_dist.api",
    "open_run": "nivp_dist.api",
}
__all__ = ["Problem", "Box", "Callback", "Config", "solve", "resume", "open_run"]  # noqa: RUF022  in the order of use


def __getattr__(name: str):
    """Import a public name when it is first used, so that `nivp status` does not wait for jax."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nivp_dist' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(list(globals()) + __all__)
