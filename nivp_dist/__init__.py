"""Neural IVP: solve evolution equations in many dimensions by evolving the parameters of a network in time."""

import importlib

__version__ = "0.2.0"

_PUBLIC = {
    "Problem": "nivp_dist.problems",
    "Box": "nivp_dist.problems",
    "Config": "nivp_dist.settings.model",
    "solve": "nivp_dist.api",
    "open_run": "nivp_dist.api",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    """Import a public name when it is first used, so that `nivp status` does not wait for jax."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nivp_dist' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(list(globals()) + __all__)
