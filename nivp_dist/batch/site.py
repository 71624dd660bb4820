"""The site file, ~/.config/nivp/site.toml: what a user's cluster wants of every job."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator
from pydantic_core import ErrorDetails

from nivp_dist.errors import InputError
from nivp_dist.settings.files import read_toml
from nivp_dist.settings.keys import describe, nearest
from nivp_dist.settings.model import Section
from nivp_dist.settings.validation import and_others

# A line break in a text would end its line of the job script, and the rest would be run as a command of its own.
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# days-hours[:minutes[:seconds]], [hours:]minutes:seconds, minutes
_TIME = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(?:(\d+):)?(\d+):(\d+)|(\d+)", re.ASCII)


class SiteSettings(Section):
    """Defaults for `nivp submit`; its options take precedence. Nothing is asked of Slurm where a key is not set."""

    # The batch system; default: the one whose command is found if there is only one, else Slurm.
    scheduler: Literal["slurm", "pbs", "lsf", "flux"] | None = None
    # Options of sbatch of the same names. With other schedulers the partition is a queue, and the account a project.
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    # Time limit of one job, such as "24:00:00".
    time: str | None = None
    # Seconds before the time limit at which the run saves and stops. Default: 120, or for a run that is continued three
    # times its longest step with the save after it, where that is more.
    notice: int | None = Field(default=None, ge=1, le=65535)
    # How often a job is queued again at most.
    requeues: int = Field(default=20, ge=0)
    # Number of jobs that follow each other, where jobs may not be queued again.
    chain: int | None = Field(default=None, ge=1, le=1000)
    # Cores of a process.
    cpus_per_task: PositiveInt | None = None
    # Modules that the job loads first.
    modules: list[str] = []
    # Variables that it exports next, exactly as they stand; a value that uses $NAMES belongs into setup.
    environment: dict[str, str] = {}
    # Lines of bash that it runs next, such as "source ~/venv/bin/activate".
    setup: list[str] = []
    # Words of bash before python, such as "apptainer exec --nv ~/nivp.sif".
    container: str | None = None
    # Python interpreter; default: "python" in a container, otherwise the one that runs `nivp submit`.
    python: str | None = None
    # Further options of srun, such as "--mpi=pmi2".
    srun: list[str] = []
    # Further options of sbatch, such as "--exclusive".
    sbatch: list[str] = []
    # What starts the processes with PBS or LSF, and further options of it; also those of `flux run`.
    launcher: Literal["srun", "mpiexec", "mpirun", "jsrun", "flux run"] | None = None
    launch: list[str] = []
    # Further directives of qsub, bsub or `flux batch`, such as "-l filesystems=home".
    submit: list[str] = []

    @field_validator("time")
    @classmethod
    def _time_is_one_of_slurms_forms(cls, value):
        if value is not None:
            seconds(value, "time")
        return value

    @field_validator("environment")
    @classmethod
    def _variables_have_names(cls, value):
        for name in value:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                raise ValueError(f"environment.{name}: not the name of a variable; letters, digits and _ make one")
        return value

    @field_validator("srun", "sbatch", "launch", "submit")
    @classmethod
    def _options_begin_with_a_dash(cls, value, info):
        for option in value:
            if not option.startswith("-"):
                raise ValueError(f"{info.field_name} lists options, got {json.dumps(option)}; write --name=value")
        return value

    @field_validator("container")
    @classmethod
    def _container_is_words(cls, value):
        try:
            shlex.split(value or "")
        except ValueError as error:
            raise ValueError(f"container must be words of bash, got {json.dumps(value)}: {error}") from None
        return value

    @field_validator("*")
    @classmethod
    def _texts_are_one_line(cls, value, info):
        """Tabs may indent a line of setup, and a variable may be empty."""
        texts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        for text in (text for text in texts if isinstance(text, str)):
            code = text.replace("\t", " ") if info.field_name == "setup" else text
            if CONTROL_CHARACTER.search(code) or not (text.strip() or isinstance(value, dict)):
                raise ValueError(f"{info.field_name}: every text is one line and not empty, got {json.dumps(text)}")
        return value


def path() -> Path:
    """Where the site file is: at NIVP_SITE, or else nivp/site.toml in the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    wanted = Path(os.environ.get("NIVP_SITE") or Path(base) / "nivp" / "site.toml")
    try:
        return wanted.expanduser()
    except RuntimeError:  # there is no HOME, and the system knows no home directory of this user
        return wanted


def read() -> SiteSettings:
    """The user's settings, or the defaults if there is no file. Raises InputError, one line that names file and key."""
    file = path()
    if not file.exists():
        if os.environ.get("NIVP_SITE"):
            raise InputError(f"{file}: no such file; NIVP_SITE names it: correct or unset it")
        return SiteSettings()
    data = read_toml(file)
    schema = SiteSettings.model_json_schema()["properties"]
    mistakes = [f"unknown key {key}; {_suggestion(key, schema)}" for key in data if key not in schema]
    try:
        # JSON mode is strict about types: no "3" for 3, no true for 1.
        known = {key: value for key, value in data.items() if key in schema}
        settings = SiteSettings.model_validate_json(json.dumps(known, default=str), strict=True)
    except ValidationError as error:
        mistakes += [_explain(detail, data, schema) for detail in error.errors()]
    if mistakes:
        raise InputError(f"{file}: {mistakes[0]}{and_others(mistakes)}")
    return settings


def seconds(time: str, key: str) -> int:
    """The seconds of a time limit in one of Slurm's forms. key: its name in messages. Raises ValueError, one line."""
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError(f"{key} must be a time such as 30 (minutes), 4:00:00 or 2-12:00:00, got {json.dumps(time)}")
    days, *clock, minutes_alone = (int(number or 0) for number in match.groups())
    # One of the two forms with colons is absent, and zero.
    hours, minutes, seconds_ = (with_days + without for with_days, without in zip(clock[:3], clock[3:]))
    return ((24 * days + hours) * 60 + minutes + minutes_alone) * 60 + seconds_


def _suggestion(key: str, schema: dict) -> str:
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
