"""Configurations in and out: TOML, overrides from the command line, and one clear line for every mistake.

Nothing here imports jax: `nivp status` and a mistyped key must answer at once.
"""

import functools
import hashlib
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from nivp_dist.errors import InputError
from nivp_dist.settings.keys import describe, known_keys, nearest, nearest_mend, sections
from nivp_dist.settings.model import Config

COMMAND_LINE = "command line"
RECORD = "config.toml"  # the resolved configuration in a run directory

# What may differ between a run and its continuation: how far, how watched, on how many devices.
CHANGEABLE = (
    "integrator.t_end",
    "integrator.max_steps",
    "integrator.min_step",
    "output.times",
    "output.plots",
    "output.evaluation_points",
    "checkpoint.every_steps",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "cluster.control",
    "cluster.startup_seconds",
    "cluster.deadline_minutes",
    "cluster.compilation_cache",
    "devices",
)


# ---------------------------------------------------------------------------------------------- reading


def shipped(folder: str) -> Path:
    """A folder that comes with the package: in the wheel, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with the package, name -> file."""
    return {path.stem: path for path in sorted(shipped("configs").glob("*.toml"))}


def describe_config(path: Path) -> tuple[str, str]:
    """The first comment line of a configuration, and its expected run time from a line '# time: 3 min'."""
    comments = [line.lstrip("# ").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    times = [match[1] for line in comments if (match := re.match(r"time:\s*(.+)", line))]
    what = [line for line in comments if line and not line.startswith("time:")]
    return what[0] if what else "", times[0] if times else ""


def read_config(source: str | Path, overrides: dict[str, str] | None = None) -> Config:
    """The validated configuration of a TOML file, or of the shipped configuration of that name.

    overrides: dotted key -> value as text, read as a TOML value and else as a plain string. A relative
    problem.file is taken from the configuration's folder (on the command line: from the working
    directory) and comes back absolute. A [versions] table is ignored: a run's own record can be read back.

    Raises InputError, one line that names the file (or "command line"), the key and the mend.
    """
    path = _find(source)
    data = read_toml(path)
    data.pop("versions", None)
    overrides = dict(overrides or {})
    _anchor_problem_file(data, path.parent)
    for key, text in overrides.items():
        _set(data, key, parse_value(text))
    if "problem.file" in overrides:
        _anchor_problem_file(data, Path.cwd())
    return _validate(data, str(path), overrides)


def resume_config(directory: str | Path, overrides: dict[str, str] | None = None) -> Config:
    """The configuration recorded in a run directory, with overrides of keys that may change (CHANGEABLE).

    Raises InputError if the directory holds no run, or a key may not change.
    """
    record = Path(directory) / RECORD
    if not record.is_file():
        raise InputError(f"{directory}: not the directory of a run (it holds no {RECORD})")
    fixed = [key for key in overrides or {} if key not in CHANGEABLE and key in known_keys()]
    fixed += [key for key in overrides or {} if key.startswith("problem.parameters.")]
    if fixed:
        raise InputError(
            f"{COMMAND_LINE}: {fixed[0]} decides the result and cannot change in a resumed run; "
            f"these can: {', '.join(CHANGEABLE)}"
        )
    return read_config(record, overrides)


def parse_value(text: str) -> Any:
    """Text from the command line as a TOML value; what is none is a plain string (``--solver.method dual``)."""
    for candidate in (text, text.lower()):
        try:
            table = tomllib.loads(f"value = {candidate}")
        except tomllib.TOMLDecodeError:
            continue
        if set(table) == {"value"}:
            return table["value"]
    try:
        return float(text)  # .5 and 1. are numbers to everyone but TOML
    except ValueError:
        return text


def read_toml(path: Path) -> dict:
    """The tables of a TOML file. Raises InputError, one line that names the file."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _find(source: str | Path) -> Path:
    path, shipped = Path(source), shipped_configs()
    if path.is_file():
        return path
    if str(source) in shipped:
        return shipped[str(source)]
    if path.is_dir():
        mend = "a run is continued with `nivp resume`" if (path / RECORD).is_file() else "name a TOML file in it"
        raise InputError(f"{source}: a directory, not a configuration; {mend}")
    close = nearest(path.stem, shipped)
    mend = f"did you mean the shipped {close}?" if close else "`nivp problems` lists the shipped ones"
    raise InputError(f"{source}: no such configuration file; {mend}")


def _anchor_problem_file(data: dict, folder: Path) -> None:
    problem = data.get("problem")
    if isinstance(problem, dict) and isinstance(problem.get("file"), str):
        problem["file"] = str((folder / Path(problem["file"]).expanduser()).resolve())


def _set(data: dict, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    table = data
    for section in parents:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"{COMMAND_LINE}: unknown key {key}: {section} is not a section")
    table[last] = value


# ------------------------------------------------------------------------------------------- validation


def _validate(data: dict, source: str, overrides: dict[str, str]) -> Config:
    where = lambda key: COMMAND_LINE if key in overrides else source  # noqa: E731
    mistakes = {key: f"{where(key)}: unknown key {key}; {nearest_mend(key)}" for key in _unknown(data)}
    for key, value in _leaves(data):
        if any(isinstance(entry, float) and not math.isfinite(entry) for entry in _flat(value)):
            mistakes[key] = f"{where(key)}: {key} must be finite, got {_show(value)}"
    try:
        # JSON mode is strict about types (no "3" for 3, no true for 1) yet takes tables for sections.
        config = Config.model_validate_json(json.dumps(_known_part(data), default=str), strict=True)
    except ValidationError as error:
        for key, line in _explain(error, data, where, overrides, rules=not mistakes).items():
            mistakes.setdefault(key, line)
    if mistakes:
        others = len(mistakes) - 1
        more = f" (and {others} more mistake{'s' if others > 1 else ''})" if others else ""
        raise InputError(next(iter(mistakes.values())) + more)
    return config


def _explain(error: ValidationError, data: dict, where, overrides: dict, rules: bool) -> dict[str, str]:
    """Wrong key -> its line. Rules between keys only on request: beside an unknown key they may be its echo."""
    lines = {}
    for detail in error.errors():
        key = _key_of(detail["loc"])
        if detail["type"] == "value_error":
            text = detail["msg"].removeprefix("Value error, ")
            blamed = any(name in text or (key and name.startswith(key + ".")) for name in overrides)
            if rules:
                lines[key] = f"{COMMAND_LINE if blamed else where(None)}: {text}"
        elif detail["type"] == "missing":
            lines[key] = f"{where(None)}: [{key}] is missing: name a problem, `nivp problems` lists them"
        elif key in sections():
            lines[key] = f"{where(key)}: {key} is a section, got {_show(detail['input'])}; write its keys under [{key}]"
        else:
            lines[key] = f"{where(key)}: {key} must be {describe(known_keys()[key])}, got {_show(_get(data, key))}"
    return lines


def _key_of(location: tuple) -> str:
    """The configuration key in pydantic's location, which may go on into list items and union members."""
    for length in range(len(location), 0, -1):
        key = ".".join(map(str, location[:length]))
        if key in known_keys() or key in sections():
            return key
    return ".".join(map(str, location))


def _leaves(table: dict, prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for name, value in table.items():
        key = f"{prefix}{name}"
        inside = isinstance(value, dict) and value and key != "problem.parameters"
        leaves += _leaves(value, key + ".") if inside else [(key, value)]
    return leaves


def _unknown(data: dict) -> list[str]:
    return [key for key, _ in _leaves(data) if key not in known_keys() and key not in sections()]


def _known_part(data: dict) -> dict:
    keep = {}
    for key, value in _leaves(data):
        section, _, name = key.rpartition(".")
        if key in known_keys() and section:
            keep.setdefault(section, {})[name] = value
        elif key in known_keys() or key in sections():
            keep[key] = value
    return keep


def _get(data: dict, key: str) -> Any:
    return functools.reduce(lambda table, name: table[name], key.split("."), data)


def _flat(value: Any) -> list:
    if isinstance(value, dict):
        return [entry for item in value.values() for entry in _flat(item)]
    return [entry for item in value for entry in _flat(item)] if isinstance(value, list) else [value]


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------------------------- writing, identity


def to_toml(config: Config, versions: dict[str, str] | None = None) -> str:
    """The resolved configuration as TOML (every key, unset ones left out), with a [versions] table if given."""
    data = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    return tomli_w.dumps(data | ({"versions": versions} if versions else {}))


def config_hash(config: Config) -> str:
    """sha256 (hex) of all that decides the result: a problem file by its content, without the keys of CHANGEABLE."""
    data = config.model_dump(mode="json", by_alias=True)
    data["output"].pop("directory")
    for key in CHANGEABLE:
        section, _, last = key.rpartition(".")
        (data[section] if section else data).pop(last)
    if config.problem.file is not None:
        try:
            data["problem"]["file"] = hashlib.sha256(Path(config.problem.file).read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{config.problem.file}: problem.file cannot be read: {error.strerror}") from None
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
