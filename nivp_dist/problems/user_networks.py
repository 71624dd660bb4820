"""The class of a network that settings name, and its parameters. What it computes is a matter of ``network``."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from nivp_dist.errors import InputError
from nivp_dist.problems.loading import load_module
from nivp_dist.problems.user_classes import class_in, validated
from nivp_dist.settings.keys import nearest
from nivp_dist.settings.model import NetworkSettings

KEY = "network.class"
# Fields of the class that are no parameters: what it is told, and what every flax module has.
TOLD = ("outputs", "domain", "even")
GIVEN = (*TOLD, "parent", "name")


class NetworkClass(NamedTuple):
    """A class of flax modules, parameters for it, and the name of its file in messages."""

    cls: type[nn.Module]
    parameters: dict[str, Any]
    source: str


def find(settings: NetworkSettings, shipped: Mapping[str, type[nn.Module]]) -> NetworkClass:
    """The class that the settings name, with its parameters validated: of network.file, or without it of `shipped`.

    Raises InputError: an unknown class or parameter (the message has the nearest known one), a parameter of the wrong
    type or out of range, a class that is no module with a field `outputs`, or an exception in the user's file (the
    message has file and line).
    """
    name = settings.class_ or ""
    if settings.file is None:
        cls, source = _shipped(name, shipped), f"network {name}"
    else:
        path = Path(settings.file)
        cls, source = class_in(load_module(path, "network"), name, path, nn.Module, KEY), str(path)
    if "outputs" not in fields(cls):
        raise InputError(f"{source}: class {name} needs the field `outputs: int`, the number of its outputs")
    return NetworkClass(cls, validated(cls, settings.parameters, source, "network.parameters", GIVEN), source)


def fields(cls: type) -> set[str]:
    """The names of the fields of a class of modules."""
    return {field.name for field in dataclasses.fields(cls)}


def _shipped(name: str, shipped: Mapping[str, type[nn.Module]]) -> type[nn.Module]:
    if name not in shipped:
        close = nearest(name, shipped)
        hint = f"the nearest is {close}" if close else f"there are {', '.join(shipped)}"
        raise InputError(f"{KEY}: there is no ready-made network '{name}'; {hint}; for your own set network.file")
    return shipped[name]
