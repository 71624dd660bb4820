"""The job script of a run or of a sweep: the template slurm/job.sbatch with the options filled in."""

import itertools
import json
import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from nivp_dist.batch.site import CONTROL_CHARACTER, SiteSettings, seconds
from nivp_dist.errors import InputError
from nivp_dist.settings.files import COMMAND_LINE, shipped
from nivp_dist.storage.run_directory import LOGS

# Shell expressions for the run directory and the id of one task of a job array.
TASK_DIRECTORY = "$(printf '%s/%04d' {sweep} \"$SLURM_ARRAY_TASK_ID\")"
TASK_JOB = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"


NOTICE = 120  # seconds, for a run of which nothing has been measured yet


class Resources(NamedTuple):
    """What a job asks of Slurm. None: Slurm's own default."""

    nodes: int = 1
    gpus_per_node: int | None = None
    ntasks_per_node: int = 1
    cpus_per_task: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    notice: int | None = None  # seconds before the time limit at which Slurm signals the run; None: NOTICE
    requeues: int = 20  # how often the job is queued again at most
    array_limit: int | None = None  # tasks of a sweep that run at the same time

    @property
    def processes(self) -> int:
        return self.nodes * self.ntasks_per_node


def resources(options: dict[str, Any], site: SiteSettings) -> Resources:
    """The options of the command line where they are not None, else the site's, else defaults.

    Raises InputError if they contradict each other.
    """
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        if isinstance(value, str) and (not value.strip() or CONTROL_CHARACTER.search(value)):
            option = name.replace("_", "-")
            raise InputError(f"{COMMAND_LINE}: --{option} must be one line and not empty, got {json.dumps(value)}")
    defaults = {name: value for name, value in site.model_dump().items() if name in Resources._fields}
    gpus = options.get("gpus_per_node")
    chosen: dict[str, Any] = defaults | {"ntasks_per_node": gpus or 1} | options
    asked = Resources(**chosen)
    if gpus is not None and gpus % asked.ntasks_per_node:
        raise InputError(
            f"{COMMAND_LINE}: {asked.ntasks_per_node} processes of a node cannot share its {gpus} GPUs evenly: "
            f"--ntasks-per-node {gpus} starts one a GPU"
        )
    require_notice_within_limit(asked)
    return asked


def require_notice_within_limit(asked: Resources) -> None:
    """Raises InputError if a job would be signalled before it has begun."""
    time, notice = asked.time, asked.notice or NOTICE
    if time is None:
        return
    try:
        limit = 60 * math.ceil(seconds(time, "--time") / 60)  # Slurm counts in minutes; 0 means no limit
    except ValueError as error:
        raise InputError(f"{COMMAND_LINE}: {error}") from None
    if 0 < limit <= notice:
        raise InputError(
            f"a notice of {notice} s is not shorter than the time limit, {time}: lower --notice or raise --time"
        )


def render(
    directory: Path,
    asked: Resources,
    site: SiteSettings,
    keys: dict[str, str] | None = None,
    tasks: list[int] | None = None,
) -> str:
    """The script that continues the run in a directory, or the given tasks of the sweep in it.

    keys: settings that `nivp resume` changes, dotted key -> value as text.
    Raises InputError if the directory or a setting holds a control character, which could end a line of the script.
    """
    _refuse_control_characters("the run directory", str(directory), "choose another with --output")
    for key, value in (keys or {}).items():
        _refuse_control_characters(f"--{key}", value, "remove it")
    values = _of_slurm(directory, asked, tasks) | {
        "SBATCH": site.sbatch,
        "MODULE": [shlex.quote(module) for module in site.modules],
        "EXPORT": [f"{name}={shlex.quote(value)}" for name, value in site.environment.items()],
        "SETUP": site.setup,
        "PYTHON": _python(site),
        "SRUN": [shlex.quote(option) for option in site.srun],
        "KEYS": [f"--{key} {shlex.quote(value)}" for key, value in (keys or {}).items()],
        "REQUEUES": asked.requeues,
    }
    return fill((shipped("slurm") / "job.sbatch").read_text("utf-8"), values)


def _of_slurm(directory: Path, asked: Resources, tasks: list[int] | None) -> dict[str, Any]:
    """The values of the template that Slurm reads, and the run and the job that it starts."""
    sweep, run = bool(tasks), shlex.quote(str(directory))
    limit = f"%{asked.array_limit}" if asked.array_limit else ""
    return {
        "TEMPLATE": None,
        "SWEEP": "" if sweep else None,
        "NAME": shlex.quote(directory.name),
        "ARRAY": _ranges(tasks) + limit if tasks else None,
        "NODES": asked.nodes,
        "TASKS": asked.ntasks_per_node,
        "GPUS": asked.gpus_per_node,
        "CPUS": asked.cpus_per_task,
        "TIME": asked.time,
        "PARTITION": _quoted(asked.partition),
        "ACCOUNT": _quoted(asked.account),
        "QOS": _quoted(asked.qos),
        "CONSTRAINT": _quoted(asked.constraint),
        "NOTICE": asked.notice or NOTICE,
        "LOG": _log(directory, sweep),
        "RUN": TASK_DIRECTORY.format(sweep=run) if sweep else run,
        "JOB": TASK_JOB if sweep else "$SLURM_JOB_ID",
    }


def fill(template: str, values: dict[str, Any]) -> str:
    """The template with @NAME@ replaced, at most one in a line.

    A line whose value is None is left out; a line whose value is a list is repeated for each of its entries.
    """
    lines = []
    for line in template.splitlines():
        name = re.search(r"@([A-Z]+)@", line)
        value = values[name[1]] if name else ""
        entries = value if isinstance(value, list) else [value]
        placeholder = name[0] if name else "@"
        lines += [line.replace(placeholder, str(entry)) if name else line for entry in entries if entry is not None]
    return "\n".join(lines) + "\n"


def _refuse_control_characters(what: str, text: str, advice: str) -> None:
    if CONTROL_CHARACTER.search(text):
        raise InputError(f"{what} holds a line break or another control character, {json.dumps(text)}: {advice}")


def _quoted(value: str | None) -> str | None:
    return None if value is None else shlex.quote(value)


def _log(directory: Path, sweep: bool) -> str:
    folder = str(directory).replace("%", "%%")
    return shlex.quote(f"{folder}/%4a/{LOGS}/slurm-%A_%a.out" if sweep else f"{folder}/{LOGS}/slurm-%j.out")


def _ranges(tasks: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    groups = itertools.groupby(enumerate(tasks), lambda pair: pair[1] - pair[0])
    runs = [[task for _, task in group] for _, group in groups]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _python(site: SiteSettings) -> str:
    if site.container is None:
        return shlex.quote(site.python or sys.executable)
    return f"{site.container} {shlex.quote(site.python or 'python')}"
