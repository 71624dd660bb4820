"""A dictionary of settings, checked: a ``Config``, or one line that names the first mistake."""

import functools
import json
import math
from typing import Any

from pydantic import ValidationError

from nivp_dist.errors import InputError
from nivp_dist.settings.keys import describe, known_keys, sections, suggestion
from nivp_dist.settings.model import Config

COMMAND_LINE = "command line"  # the source that messages name for an override
TABLES = (
    "problem.parameters",
    "network.parameters",
    "callbacks.parameters",
)  # their keys are those of classes of the user
SHOWN_CHARACTERS = 60  # of a wrong value in a message


def validate(data: dict, source: str, overrides: dict[str, str]) -> Config:
    """The configuration in a dictionary of sections.

    source: where the dictionary comes from, for messages. overrides: the keys that the command line has set in it.
    Raises InputError: one line with the source, the key and what it must be, and the number of further mistakes.
    """
    where = functools.partial(_where, source=source, overrides=overrides)
    mistakes = {key: f"{where(key)}: unknown key {key}; {suggestion(key)}" for key in _unknown(data)}
    for key, value in _leaves(data):
        if any(isinstance(entry, float) and not math.isfinite(entry) for entry in _entries(value)):
            mistakes[key] = f"{where(key)}: {key} must be finite, got {_shown(value)}"
    try:
        # JSON mode is strict about types (no "3" for 3, no true for 1) yet takes tables for sections.
        config = Config.model_validate_json(json.dumps(_known_part(data), default=str), strict=True)
    except ValidationError as error:
        # A rule between two keys may be broken only because one of them is mistyped: then the typing error is shown.
        for key, line in _explain(error, data, where, with_rules=not mistakes).items():
            mistakes.setdefault(key, line)
    if mistakes:
        raise InputError(next(iter(mistakes.values())) + and_others(mistakes))
    return config


def and_others(mistakes) -> str:
    """'' for one mistake, ' (and 2 more mistakes)' for three."""
    others = len(mistakes) - 1
    return f" (and {others} more mistake{'s' if others > 1 else ''})" if others else ""


def _where(key: str, text: str = "", *, source: str, overrides: dict) -> str:
    """The source of a key, or of the first override that a message mentions."""
    mentioned = key in overrides or any(name in text or (key and name.startswith(f"{key}.")) for name in overrides)
    return COMMAND_LINE if mentioned else source


def _explain(error: ValidationError, data: dict, where, with_rules: bool) -> dict[str, str]:
    """Wrong key -> the line about it; rules between keys (``settings.rules``) only if asked for."""
    lines = {}
    for detail in error.errors():
        key = _key_of(detail["loc"])
        if detail["type"] == "value_error":
            text = detail["msg"].removeprefix("Value error, ")
            if with_rules:
                lines[key] = f"{where(key, text)}: {text}"
        elif detail["type"] == "missing":
            lines[key] = f"{where('')}: [{key}] is missing: name a problem, `nivp problems` lists them"
        elif key in sections():
            got = _shown(detail["input"])
            lines[key] = f"{where(key)}: {key} is a section, got {got}; write its keys under [{key}]"
        else:
            lines[key] = f"{where(key)}: {key} must be {describe(known_keys()[key])}, got {_shown(_get(data, key))}"
    return lines


def _key_of(location: tuple) -> str:
    """The configuration key in pydantic's location, which may go on into list items and union members."""
    for length in range(len(location), 0, -1):
        key = ".".join(map(str, location[:length]))
        if key in known_keys() or key in sections():
            return key
    return ".".join(map(str, location))


def _leaves(table: dict, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of everything that is not a section; each of TABLES counts as one value."""
    leaves = []
    for name, value in table.items():
        key = f"{prefix}{name}"
        inside = isinstance(value, dict) and value and key not in TABLES
        leaves += _leaves(value, key + ".") if inside else [(key, value)]
    return leaves


def _unknown(data: dict) -> list[str]:
    return [key for key, _ in _leaves(data) if key not in known_keys() and key not in sections()]


def _known_part(data: dict) -> dict:
    keep: dict[str, Any] = {}
    for key, value in _leaves(data):
        if key in known_keys() or key in sections():
            *parents, name = key.split(".")
            functools.reduce(lambda table, parent: table.setdefault(parent, {}), parents, keep)[name] = value
    return keep


def _get(data: dict, key: str) -> Any:
    return functools.reduce(lambda table, name: table[name], key.split("."), data)


def _entries(value: Any) -> list:
    """The numbers and texts in a value, out of all its lists and tables."""
    if isinstance(value, dict):
        return [entry for item in value.values() for entry in _entries(item)]
    return [entry for item in value for entry in _entries(item)] if isinstance(value, list) else [value]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
