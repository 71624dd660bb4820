"""What a job asks of its batch system: the options of `nivp submit`, and the site file where they are absent."""

import json
import math
from typing import Any, NamedTuple

from nivp_dist.batch.site import CONTROL_CHARACTER, SiteSettings, seconds
from nivp_dist.errors import InputError
from nivp_dist.settings.files import COMMAND_LINE

NOTICE = 120  # seconds, for a run of which nothing has been measured yet


class Resources(NamedTuple):
    """What a job asks of its scheduler. None: the scheduler's own default."""

    nodes: int = 1
    gpus_per_node: int | None = None
    ntasks_per_node: int = 1
    cpus_per_task: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    notice: int | None = None  # seconds before the time limit at which the run is signalled; None: NOTICE
    requeues: int = 20  # how often the job is queued again at most
    chain: int | None = None  # number of jobs that follow each other; None: one, which is queued again
    array_limit: int | None = None  # tasks of a sweep that run at the same time

    @property
    def processes(self) -> int:
        return self.nodes * self.ntasks_per_node

    @property
    def cores_per_node(self) -> int:
        """Cores of the processes of a node; of one each where nothing is asked for."""
        return self.ntasks_per_node * (self.cpus_per_task or 1)

    @property
    def notice_seconds(self) -> int:
        return self.notice or NOTICE

    @property
    def limit_seconds(self) -> int | None:
        """The time limit in seconds, rounded up to minutes as Slurm and LSF do; None if there is none."""
        limit = 60 * math.ceil(seconds(self.time, "--time") / 60) if self.time else 0
        return limit or None


def resources(options: dict[str, Any], site: SiteSettings) -> Resources:
    """The options of the command line where they are not None, else the site's, else defaults.

    Raises InputError if they contradict each other.
    """
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        if isinstance(value, str) and (not value.strip() or CONTROL_CHARACTER.search(value)):
            option = name.replace("_", "-")
            raise InputError(f"{COMMAND_LINE}: --{option} must be one line and not empty, got {json.dumps(value)}")
    if "chain" in options and "requeues" in options:
        raise InputError(f"{COMMAND_LINE}: jobs of a --chain are not queued again: leave --requeues away")
    defaults = {name: value for name, value in site.model_dump().items() if name in Resources._fields}
    if "requeues" in options:
        defaults["chain"] = None
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
    try:
        limit = asked.limit_seconds
    except ValueError as error:
        raise InputError(f"{COMMAND_LINE}: {error}") from None
    if limit is not None and limit <= asked.notice_seconds:
        raise InputError(
            f"a notice of {asked.notice_seconds} s is not shorter than the time limit, {asked.time}: lower --notice or "
            "raise --time"
        )
