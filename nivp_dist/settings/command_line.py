"""The part of a command line that click does not know: one argument, and settings as `--section.key value`."""

from nivp_dist.errors import InputError
from nivp_dist.settings.files import COMMAND_LINE


def split(arguments: tuple[str, ...], name: str) -> tuple[str, dict[str, str]]:
    """The one positional argument, and the overrides: dotted key -> value as text.

    name: what the positional argument is called in messages. Raises InputError if there is none, or more than one.
    """
    positional, overrides = parse(arguments)
    if not positional:
        raise InputError(f"{COMMAND_LINE}: {name} is missing; see nivp --help")
    if len(positional) > 1:
        found = " ".join(positional)
        raise InputError(f"{COMMAND_LINE}: one {name} expected, got {found}; options are --section.key value")
    return positional[0], overrides


def parse(arguments: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Positional arguments, and the overrides, given as '--key value' or '--key=value'. Raises InputError."""
    positional, overrides, rest = [], {}, list(arguments)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            positional.append(token)
            continue
        key, equals, value = token[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{COMMAND_LINE}: --{key} needs a value")
            value = rest.pop(0)
        if key in overrides:
            raise InputError(f"{COMMAND_LINE}: --{key} is given twice")
        overrides[key] = value
    return positional, overrides
