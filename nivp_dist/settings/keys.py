"""The keys of a configuration, what each allows in words, and the known key nearest to a mistyped one."""

import difflib
import functools
from collections.abc import Iterable

from nivp_dist.settings.model import Config

CLOSE = 0.5  # similarity (difflib's, 0 to 1) from which on a name is suggested; lower ones suggest unrelated names


@functools.cache
def known_keys() -> dict[str, dict]:
    """Every key of a configuration, dotted, with the JSON schema of its value."""
    schema = Config.model_json_schema()

    def inside(table: dict, prefix: str) -> dict[str, dict]:
        keys = {}
        for name, entry in table["properties"].items():
            if "$ref" in entry:
                keys |= inside(schema["$defs"][entry["$ref"].rpartition("/")[2]], f"{prefix}{name}.")
            else:
                keys[prefix + name] = entry
        return keys

    return inside(schema, "")


def sections() -> list[str]:
    """The names of the sections, in the order of ``Config``; those inside another are dotted."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in known_keys() if "." in key))


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate closest to a mistyped name, or None if none is close."""
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=CLOSE)
    return close[0] if close else None


def suggestion(key: str) -> str:
    """What to write in place of an unknown key: the nearest key, or else the keys of its section, or the sections.

    Whole keys and their last parts are compared with the same weight, so that t_end finds integrator.t_end.
    """
    last = key.rpartition(".")[2]

    def similarity(known: str) -> float:
        return _ratio(key, known) + _ratio(last, known.rpartition(".")[2])

    best = max(known_keys(), key=similarity)
    if similarity(best) > 2 * CLOSE:
        return f"the nearest is {best}"
    section = key.partition(".")[0]
    if section in known_keys():
        return f"the nearest is {section}"
    inside = [known.partition(".")[2] for known in known_keys() if known.startswith(section + ".")]
    return f"[{section}] has {', '.join(inside)}" if inside else f"the sections are {', '.join(sections())}"


def _ratio(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def describe(schema: dict) -> str:
    """What a JSON schema allows, in words: 'a whole number of at least 1', "one of 'a', 'b'"."""
    if "anyOf" in schema:
        return " or ".join(describe(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    kind = schema.get("type", "")
    if kind == "array":
        plural = _plural(schema.get("items") or (schema.get("prefixItems") or [{}])[0])
        fixed = schema.get("minItems") == schema.get("maxItems") and "minItems" in schema
        return f"a list of {schema['minItems']} {plural}" if fixed else f"a list of {plural}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"a table of {_plural(values)}" if isinstance(values, dict) else "a table"
    names = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a string"}
    return f"{names.get(kind, 'of another type')} {_bounds(schema)}".strip()


def _bounds(schema: dict) -> str:
    if {"minimum", "maximum"} <= schema.keys():
        return f"from {_exact(schema['minimum'])} to {_exact(schema['maximum'])}"
    words = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "of at most",
    }
    return " and ".join(f"{word} {_exact(schema[bound])}" for bound, word in words.items() if bound in schema)


def _exact(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _plural(schema: dict) -> str:
    names = {"number": "numbers", "integer": "whole numbers", "string": "strings"}
    return names.get(schema.get("type", ""), "values")
