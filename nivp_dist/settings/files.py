"""Configurations in files: found, read, overridden from the command line, written, and compared by a hash.

Nothing here imports jax: `nivp status`, and the message about a mistyped key, have to appear at once.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from nivp_dist.errors import InputError
from nivp_dist.settings.automatic import as_found
from nivp_dist.settings.keys import known_keys, nearest
from nivp_dist.settings.model import Config
from nivp_dist.settings.validation import COMMAND_LINE, validate

RECORD = "config.toml"  # the resolved configuration in a run directory
# Its tables that are no settings: versions of packages, and the files that a user's problem needs with their sha256.
VERSIONS, SOURCES = "versions", "sources"

# Keys that may change between a run and its continuation: how far it goes, what is written, where it runs.
CHANGEABLE = (
    *("integrator.t_end", "integrator.max_steps", "integrator.min_step"),
    *("output.times", "output.every", "output.plots", "output.evaluation_points", "output.spectrum_every"),
    "checkpoint.every_steps",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    *("callbacks.file", "callbacks.classes", "callbacks.parameters"),
    "cluster.control",
    "cluster.startup_seconds",
    "cluster.deadline_minutes",
    "cluster.silence_seconds",
    "cluster.shutdown_seconds",
    "cluster.compilation_cache",
    "devices",
)

# The sections whose key `file` names a Python file of the user.
WITH_FILES = ("problem", "network", "callbacks")


class Description(NamedTuple):
    """The comments at the top of a configuration: what it solves, how long that takes, and the error at the end."""

    what: str
    time: str
    error: str


# ---------------------------------------------------------------------------------------------- shipped


def shipped(folder: str) -> Path:
    """A folder that comes with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with the package, name -> file."""
    return {path.stem: path for path in sorted(shipped("configs").glob("*.toml"))}


def describe_config(path: Path) -> Description:
    """The first comment line of a configuration, and what follows '# time:' and '# error:'; '' where there is none."""
    comments = [line.lstrip("# ").strip() for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    found = {"time": "", "error": ""}
    for line in reversed(comments):
        if match := re.match(r"(time|error):\s*(.+)", line):
            found[match[1]] = match[2]
    return Description(next(filter(None, comments), ""), **found)


# ---------------------------------------------------------------------------------------------- reading


def read_config(
    source: str | Path, overrides: dict[str, str] | None = None, note: Callable[[str], None] = lambda line: None
) -> Config:
    """The validated configuration of a TOML file, or of the shipped configuration of that name.

    overrides: dotted key -> value as text, read as a TOML value if it is one and as a plain string otherwise.
    note: called with one line for each thing that the reader should know.

    A relative file of the user starts at the configuration's folder (on the command line: at the working directory) and
    comes back absolute. Tables [versions] and [sources] are ignored, so that a run's own record can be read. Output
    times of the file beyond an integrator.t_end of the command line are left out.

    Raises InputError, one line that names the file (or "command line"), the key and what to change.
    """
    path, overrides = _find(source), dict(overrides or {})
    data = read_toml(path)
    for table in (VERSIONS, SOURCES):
        data.pop(table, None)
    # A pipe, as in `nivp run <(...)`, has no folder of its own.
    resolve_files(data, path.parent if path.is_file() else Path.cwd())
    for key, text in overrides.items():
        _set(data, key, parse_value(text))
    if overrides.keys() & {f"{section}.file" for section in WITH_FILES}:
        resolve_files(data, Path.cwd())
    if "integrator.t_end" in overrides and "output.times" not in overrides:
        _leave_out_late_times(data, note)
    return validate(data, str(path), overrides)


def resume_config(
    directory: str | Path, overrides: dict[str, str] | None = None, note: Callable[[str], None] = lambda line: None
) -> Config:
    """The configuration recorded in a run directory, with overrides of keys that may change (CHANGEABLE).

    overrides, note: as in ``read_config``. Raises InputError if the directory holds no run, or a key may not change.
    """
    record = Path(directory) / RECORD
    if not record.is_file():
        raise InputError(no_run_in(directory))
    fixed = [key for key in overrides or {} if key not in CHANGEABLE and key in known_keys()]
    fixed += [key for key in overrides or {} if key.startswith(("problem.parameters.", "network.parameters."))]
    if fixed:
        raise InputError(
            f"{COMMAND_LINE}: {fixed[0]} decides the result and cannot change in a resumed run; "
            f"these can: {', '.join(CHANGEABLE)}"
        )
    return read_config(record, overrides, note)


def continuation(directory: str | Path, wanted: Config) -> tuple[Config, bool]:
    """The configuration with which the run in a directory goes on as `wanted` says, and whether it is a changed one.

    Raises InputError if the directory holds no run, or if `wanted` would give another result: the line names the key.
    """
    kept = resume_config(directory)
    wanted = as_found(wanted, kept)
    before, now = fixed_settings(kept), fixed_settings(wanted)
    if changed := changed_keys(before, now):
        key = changed[0]
        values = f"{key} = {value_of(before, key)}, and now it is {value_of(now, key)}"
        what = f"other contents of {key}" if key in ("problem.file", "network.file") else values
        mend = "undo the change, or choose another directory"
        raise InputError(f"{directory}: holds a run with {what}: it cannot go on with that; {mend}")
    output = wanted.output.model_copy(update={"directory": kept.output.directory})
    wanted = wanted.model_copy(update={"problem": kept.problem, "network": kept.network, "output": output})
    return wanted, wanted != kept


def no_run_in(directory: str | Path) -> str:
    """The message about a directory that is not that of a run."""
    return (
        f"{directory}: not the directory of a run (it holds no {RECORD}): name one that `nivp run` has made, such as "
        "runs/heat_2d-001"
    )


def name_of(source: str | Path) -> str:
    """What a run of a configuration is called: the name of its file without the ending; 'run' for a pipe."""
    return "run" if (path := Path(source)).exists() and not path.is_file() else path.stem


def parse_value(text: str) -> Any:
    """Text from the command line as a TOML value, or as a plain string if it is none (``--solver.method dual``)."""
    for candidate in (text, text.lower()):
        try:
            table = tomllib.loads(f"value = {candidate}")
        except tomllib.TOMLDecodeError:
            continue
        if set(table) == {"value"}:
            return table["value"]
    try:
        return float(text)  # .5 and 1. are not TOML, but everyone means numbers by them
    except ValueError:
        return text


def read_toml(path: Path) -> dict:
    """The tables of a TOML file, which may begin with a byte order mark. Raises InputError, which names the file."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def resolve_files(data: dict, folder: Path) -> None:
    """Make the relative files of the user absolute, starting at a folder."""
    for name in WITH_FILES:
        section = data.get(name)
        if isinstance(section, dict) and isinstance(section.get("file"), str):
            try:
                section["file"] = str((folder / Path(section["file"]).expanduser()).resolve())
            except RuntimeError:
                raise InputError(f"{section['file']}: {name}.file: no home directory is known; write it out") from None


def _find(source: str | Path) -> Path:
    path, configs = Path(source), shipped_configs()
    if path.exists() and not path.is_dir():
        return path
    if str(source) in configs:
        return configs[str(source)]
    if path.is_dir():
        advice = "a run is continued with `nivp resume`" if (path / RECORD).is_file() else "name a TOML file in it"
        raise InputError(f"{source}: a directory, not a configuration; {advice}")
    close = nearest(path.stem, configs)
    advice = f"did you mean the shipped {close}?" if close else "`nivp problems` lists the shipped ones"
    raise InputError(f"{source}: no such configuration file; {advice}")


def _set(data: dict, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    table = data
    for section in parents:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"{COMMAND_LINE}: unknown key {key}: {section} is not a section")
    table[last] = value


def _leave_out_late_times(data: dict, note: Callable[[str], None]) -> None:
    """Drop the output times beyond integrator.t_end. Values of a wrong type stay, for validation to report."""
    output, t_end = data.get("output"), data["integrator"]["t_end"]
    if not isinstance(output, dict) or not isinstance(output.get("times"), list):
        return
    times = output["times"]
    if not all(_is_number(value) for value in (*times, t_end)):
        return
    if late := [t for t in times if t > t_end]:
        output["times"] = [t for t in times if t <= t_end]
        note(f"output times beyond integrator.t_end = {t_end:g} are left out: {', '.join(f'{t:g}' for t in late)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# ------------------------------------------------------------------------------------- writing, identity


def to_toml(config: Config, versions: dict[str, str] | None = None, sources: dict[str, str] | None = None) -> str:
    """The resolved configuration as TOML (every key, unset ones left out), with the tables that are not empty."""
    data = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    tables = {VERSIONS: versions, SOURCES: sources}
    return tomli_w.dumps(data | {name: table for name, table in tables.items() if table})


def config_hash(config: Config) -> str:
    """sha256 (hex) of ``fixed_settings``. Raises InputError if the problem file cannot be read."""
    canonical = json.dumps(fixed_settings(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def changed_keys(before: dict, now: dict, section: str = "") -> list[str]:
    """The dotted keys whose values differ between two trees of settings, as ``fixed_settings`` returns them."""
    names = []
    for key in dict.fromkeys([*before, *now]):
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            names += changed_keys(one, other, f"{section}{key}.")
        elif one != other:
            names.append(f"{section}{key}")
    return names


def value_of(settings: dict, key: str) -> str:
    """The value of a dotted key in a tree of settings, as a message shows it; 'none' where it is not set."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "none" if value is None else json.dumps(value)


def fixed_settings(config: Config) -> dict:
    """All that decides the result, as JSON takes it: ``all_settings`` without those of CHANGEABLE."""
    data = all_settings(config)
    for key in CHANGEABLE:
        section, _, last = key.rpartition(".")
        (data[section] if section else data).pop(last)
    return data


def all_settings(config: Config) -> dict:
    """Every key but output.directory, as JSON takes it.

    The user's files count by their contents, wherever they lie. Raises InputError if one that is used cannot be read.
    """
    data = config.model_dump(mode="json", by_alias=True)
    data["output"].pop("directory")
    for section in WITH_FILES:
        if (file := data[section]["file"]) is not None and (section != "callbacks" or config.callbacks.classes):
            try:
                data[section]["file"] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            except OSError as error:
                raise InputError(f"{file}: {section}.file cannot be read: {error.strerror}") from None
    return data
