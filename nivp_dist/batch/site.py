"""What a user's cluster wants of every job: ~/.config/nivp/site.toml."""

import json
import os
import re
import shlex
from pathlib import Path

from pydantic import Field, PositiveInt, ValidationError, field_validator
from pydantic_core import ErrorDetails

from nivp_dist.errors import InputError
from nivp_dist.settings.files import read_toml
from nivp_dist.settings.keys import describe, nearest
from nivp_dist.settings.model import Section

# days-hours[:minutes[:seconds]], [hours:]minutes:seconds, minutes
_TIME = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(?:(\d+):)?(\d+):(\d+)|(\d+)", re.ASCII)


class SiteSettings(Section):
    """Defaults of `nivp submit`; its options win."""

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None  # of one job, such as "24:00:00"; default: the partition's
    notice: int = Field(default=120, ge=1, le=65535)  # seconds before the time limit at which a run saves and stops
    requeues: int = Field(default=20, ge=0)  # of a job, at most
    cpus_per_task: PositiveInt | None = None
    modules: list[str] = []  # to be loaded
    environment: dict[str, str] = {}  # exported after that, as it stands: a value with $NAMES is a line of setup
    setup: list[str] = []  # lines of bash after that, such as "source ~/venv/bin/activate"
    container: str | None = None  # words of bash before python, such as "apptainer exec --nv ~/nivp.sif"
    python: str | None = None  # default: in a container "python", else the one that runs `nivp submit`
    srun: list[str] = []  # further options, such as "--mpi=pmi2"
    sbatch: list[str] = []  # further options, such as "--exclusive"

    @field_validator("time")
    @classmethod
    def _is_time(cls, value):
        if value is not None:
            seconds(value, "time")
        return value

    @field_validator("environment")
    @classmethod
    def _has_names(cls, value):
        for name in value:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                raise ValueError(f"environment.{name}: not the name of a variable; letters, digits and _ make one")
        return value

    @field_validator("srun", "sbatch")
    @classmethod
    def _are_options(cls, value, info):
        for option in value:
            if not option.startswith("-"):
                raise ValueError(f"{info.field_name} lists options, got {json.dumps(option)}; write --name=value")
        return value

    @field_validator("container")
    @classmethod
    def _is_words(cls, value):
        try:
            shlex.split(value or "")
        except ValueError as error:
            raise ValueError(f"container must be words of bash, got {json.dumps(value)}: {error}") from None
        return value

    @field_validator("*")
    @classmethod
    def _is_one_line(cls, value, info):
        texts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        for text in texts:
            if isinstance(text, str) and ("\n" in text or (not text.strip() and not isinstance(value, dict))):
                raise ValueError(f"{info.field_name}: every text is one line and not empty, got {json.dumps(text)}")
        return value


def path() -> Path:
    """Of the file: NIVP_SITE, or nivp/site.toml in the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(os.environ.get("NIVP_SITE") or Path(base) / "nivp" / "site.toml").expanduser()


def read() -> SiteSettings:
    """The user's settings, or the defaults if there is no file. Raises InputError, one line that names file and key."""
    file = path()
    if not file.exists():
        if os.environ.get("NIVP_SITE"):
            raise InputError(f"{file}: no such file; NIVP_SITE names it: correct or unset it")
        return SiteSettings()
    data = read_toml(file)
    schema = SiteSettings.model_json_schema()["properties"]
    mistakes = [f"unknown key {key}; {_mend(key, schema)}" for key in data if key not in schema]
    try:
        # JSON mode is strict about types: no "3" for 3, no true for 1.
        known = {key: value for key, value in data.items() if key in schema}
        settings = SiteSettings.model_validate_json(json.dumps(known, default=str), strict=True)
    except ValidationError as error:
        mistakes += [_explain(detail, data, schema) for detail in error.errors()]
    if mistakes:
        others = len(mistakes) - 1
        more = f" (and {others} more mistake{'s' if others > 1 else ''})" if others else ""
        raise InputError(f"{file}: {mistakes[0]}{more}")
    return settings


def seconds(time: str, key: str) -> int:
    """Of a time limit in one of Slurm's forms. Raises ValueError, one line that names the key."""
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError(f"{key} must be a time such as 30 (minutes), 4:00:00 or 2-12:00:00, got {json.dumps(time)}")
    days, *rest = (int(number or 0) for number in match.groups())
    hours, minutes, rest_of_it = (a + b for a, b in zip(rest[:3], rest[3:6]))
    return ((24 * days + hours) * 60 + minutes + rest[6]) * 60 + rest_of_it


def _mend(key: str, schema: dict) -> str:
    close = nearest(key, schema)
    return f"the nearest is {close}" if close else f"the keys are {', '.join(schema)}"


def _explain(detail: ErrorDetails, data: dict, schema: dict) -> str:
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    key, *inside = detail["loc"]
    allowed, value = schema[key], data[key]
    if inside and isinstance(value, dict):
        key, allowed, value = f"{key}.{inside[0]}", allowed["additionalProperties"], value[inside[0]]
    return f"{key} must be {describe(allowed)}, got {json.dumps(value, default=str)}"
