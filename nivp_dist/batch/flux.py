"""Flux: flux batch, flux run, flux jobs, flux cancel. Never run on such a site."""

import re
import shlex
from pathlib import Path
from typing import Any

from nivp_dist.batch.resources import Resources
from nivp_dist.batch.scheduler import DirectiveScheduler
from nivp_dist.batch.site import SiteSettings

ACTIVE = ("PENDING", "RUNNING")  # states of `flux jobs` of jobs that have not ended


class Flux(DirectiveScheduler):
    """A job is a Flux of its own. It cannot queue itself again: its script is submitted anew, to the Flux around it."""

    name, title = "flux", "Flux"
    command, cancel, suffix = "flux batch", "flux cancel", "flux"
    list_jobs = "flux jobs"
    own_variables, job_variable = r"FLUX_(?:JOB|TASK)_", "FLUX_JOB_ID"
    launchers = ("flux run",)

    def values(self, directory: Path, asked: Resources, site: SiteSettings, tasks: list[int] | None) -> dict[str, Any]:
        self.launcher(site)
        # Without a number of cores a job has whole nodes; a slot of `flux batch` is then a node, else a process.
        whole = asked.cpus_per_task is None
        gpus = asked.gpus_per_node
        own = {
            "WHOLE": "" if whole else None,
            "SLOTS": None if whole else asked.processes,
            "CPUS": asked.cpus_per_task,
            "GPUS": gpus if whole or not gpus else gpus // asked.ntasks_per_node,
            "LIMIT": asked.limit_seconds and f"{asked.limit_seconds}s",
            "CONSTRAINT": asked.constraint and shlex.quote(asked.constraint),
            "NOTICE": f"{asked.notice_seconds}s",
            "LAUNCH": _flux_run(asked),
            "RESUBMIT": "flux --parent batch",
        }
        return self.common(directory, asked, site) | own

    def submission(self, script: Path, after: str | None) -> list[str]:
        return ["flux", "batch", *([f"--dependency=afterany:{after}"] if after else []), str(script)]

    def id_of(self, output: str) -> str:
        """In Flux's notation, which begins with a letter f or ƒ."""
        found = re.findall(r"^[fƒ]\w+$", output.strip(), re.MULTILINE)
        return found[-1] if found else ""

    def state(self, job: str) -> str:
        word = self.asks("flux", "jobs", "-n", "-o", "{status}", job)
        return word.lower() if word in ACTIVE else ""


def _flux_run(asked: Resources) -> str:
    words = f"flux run -o exit-timeout=none --nodes={asked.nodes}"
    if asked.cpus_per_task is None:
        gpus = f" --gpus-per-node={asked.gpus_per_node}" if asked.gpus_per_node else ""
        return f"{words} --exclusive --tasks-per-node={asked.ntasks_per_node}{gpus}"
    gpus = f" --gpus-per-task={asked.gpus_per_node // asked.ntasks_per_node}" if asked.gpus_per_node else ""
    return f"{words} --ntasks={asked.processes} --cores-per-task={asked.cpus_per_task}{gpus}"
