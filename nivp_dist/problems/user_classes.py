"""A class that a user has written, in a file of its own: found by its name, and made with parameters from settings."""

import dataclasses
import json
import sys
import typing
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from nivp_dist.errors import InputError
from nivp_dist.problems.loading import first_line, place_of
from nivp_dist.settings.keys import describe, nearest

Base = TypeVar("Base")


def own_classes(module: ModuleType) -> dict[str, type]:
    """The classes that a module defines, and not those that it imports, by name."""
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    return {key: value for key, value in classes.items() if value.__module__ == module.__name__}


def class_in(module: ModuleType, name: str, path: Path, base: type[Base], key: str) -> type[Base]:
    """The class of that name in the module of a user's file, a subclass of base.

    key: the setting that has the name, for messages. Raises InputError, which names the classes that there are.
    """
    own = own_classes(module)
    if name not in own:
        fitting = [key for key, value in own.items() if issubclass(value, base)] or list(own)
        hint = f"it has {', '.join(fitting)}" if fitting else "it has no class at all"
        raise InputError(f"{path}: {key}: there is no class '{name}' in this file; {hint}")
    cls = own[name]
    if not issubclass(cls, base):
        package = "nivp_dist" if base.__module__.startswith("nivp_dist.") else base.__module__.rpartition(".")[0]
        raise InputError(f"{path}: class {name} must derive from {package}.{base.__name__}")
    return cls


def instance(cls: type[Base], parameters: dict[str, Any], source: str, section: str) -> Base:
    """An instance of a dataclass, from parameters of the settings.

    source: the name of the class's file in messages. section: of the settings that has the parameters. Raises
    InputError: an unknown parameter, one of the wrong type or out of range, or an exception in the user's code.
    """
    values = validated(cls, parameters, source, section)
    try:
        return cls(**values)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  code of users can raise anything
        place = place_of(error, file_of(cls)) or source
        raise InputError(f"{place}: {first_line(error)}") from None


def validated(
    cls: type, parameters: dict[str, Any], source: str, section: str, given: Collection[str] = ()
) -> dict[str, Any]:
    """The parameters of a dataclass, from those of the settings, with their types and bounds checked.

    given: fields that are no parameters. Otherwise as ``instance``, which also says what is raised.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init and field.name not in given}
    for name in parameters:
        if name not in fields:
            close = nearest(name, fields)
            hint = f"the nearest is {close}" if close else f"it has {', '.join(fields) or 'none'}"
            raise InputError(f"{source}: unknown key {section}.{name}; {hint}")
    values = {}
    for name, value in parameters.items():
        values[name] = _validated(_adapter(cls, name, source), f"{section}.{name}", value, source)
    no_default = (dataclasses.MISSING, dataclasses.MISSING)
    for name, field in fields.items():
        if name not in values and (field.default, field.default_factory) == no_default:
            raise InputError(f"{source}: {section}.{name} must be set: it has no default")
    return values


def file_of(cls: type) -> str | None:
    """The file that defines a class; None for one typed into a prompt."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None)


def _adapter(cls: type, name: str, source: str) -> TypeAdapter:
    try:
        return TypeAdapter(typing.get_type_hints(cls, include_extras=True)[name])
    except (PydanticSchemaGenerationError, NameError) as error:
        raise InputError(
            f"{source}: parameter {name}: its annotation cannot be read from a configuration ({first_line(error)}); "
            "use int, float, bool, str, or tuples of them"
        ) from None


def _validated(adapter: TypeAdapter, key: str, value, source: str):
    try:
        return adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        try:
            wanted = describe(adapter.json_schema())
        except Exception:  # noqa: BLE001  an annotation with validators of its own may have no schema
            wanted = error.errors()[0]["msg"]
        found = json.dumps(value, default=str)
        raise InputError(f"{source}: {key} must be {wanted}, got {found}") from None
