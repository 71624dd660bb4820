"""The batch script of a run or of a sweep: a template of slurm/ with the options filled in."""

import itertools
import json
import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from nivp_dist.batch.site import SiteSettings, seconds
from nivp_dist.errors import InputError
from nivp_dist.settings.files import COMMAND_LINE, shipped
from nivp_dist.storage.run_directory import LOGS


class Resources(NamedTuple):
    """What is asked of Slurm. None: its own default."""

    nodes: int = 1
    gpus_per_node: int | None = None
    ntasks_per_node: int = 1
    cpus_per_task: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    notice: int = 120
    requeues: int = 20
    array_limit: int | None = None  # tasks of a sweep at the same time

    @property
    def processes(self) -> int:
        return self.nodes * self.ntasks_per_node


def resources(options: dict, site: SiteSettings) -> Resources:
    """The options of the command line where they are not None, else the site's, else defaults.

    Raises InputError if they cannot go together.
    """
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        if isinstance(value, str) and (not value.strip() or "\n" in value):
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
    if asked.time is not None:
        try:
            limit = 60 * math.ceil(seconds(asked.time, "--time") / 60)  # Slurm counts in minutes; 0 is no limit
        except ValueError as error:
            raise InputError(f"{COMMAND_LINE}: {error}") from None
        if 0 < limit <= asked.notice:
            raise InputError(
                f"a notice of {asked.notice} s is not shorter than the time limit, {asked.time}: "
                "lower --notice or raise --time"
            )
    return asked


def render(
    directory: Path, asked: Resources, site: SiteSettings, keys: dict | None = None, tasks: list[int] | None = None
) -> str:
    """The script that goes on with the run in a directory; with tasks, with those of the sweep in it.

    keys: settings that `nivp resume` is to change.
    """
    text = lambda value: None if value is None else shlex.quote(str(value))  # noqa: E731
    values = {
        "NAME": text(directory.name),
        "ARRAY": _ranges(tasks or []) + (f"%{asked.array_limit}" if asked.array_limit else ""),
        "NODES": asked.nodes,
        "TASKS": asked.ntasks_per_node,
        "GPUS": asked.gpus_per_node,
        "CPUS": asked.cpus_per_task,
        "TIME": asked.time,
        "PARTITION": text(asked.partition),
        "ACCOUNT": text(asked.account),
        "QOS": text(asked.qos),
        "CONSTRAINT": text(asked.constraint),
        "SBATCH": site.sbatch,
        "NOTICE": asked.notice,
        "LOG": _log(directory, sweep=bool(tasks)),
        "RUN": text(directory),
        "MODULE": list(map(text, site.modules)),
        "EXPORT": [f"{name}={text(value)}" for name, value in site.environment.items()],
        "SETUP": site.setup,
        "PYTHON": _python(site),
        "SRUN": list(map(text, site.srun)),
        "KEYS": [f"--{key} {text(value)}" for key, value in (keys or {}).items()],
        "REQUEUES": asked.requeues,
    }
    template = shipped("slurm") / ("array.sbatch" if tasks else "job.sbatch")
    return fill(template.read_text(), values)


def fill(template: str, values: dict) -> str:
    """@NAME@ replaced; a line whose value is None left out; a line whose value is a list repeated for each of it."""
    lines = []
    for line in template.splitlines():
        name = re.search(r"@([A-Z]+)@", line)
        value = values[name[1]] if name else ""
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                lines.append(line.replace(f"@{name[1]}@", str(one)) if name else line)
    return "\n".join(lines) + "\n"


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
