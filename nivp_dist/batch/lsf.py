"""LSF: bsub, mpirun or jsrun, bjobs, bkill. Never run on such a site."""

import math
import re
import shlex
from pathlib import Path
from typing import Any

from nivp_dist.batch.resources import Resources
from nivp_dist.batch.scheduler import DirectiveScheduler, mpi_launch, until_notice
from nivp_dist.batch.site import SiteSettings

ENDED = ("DONE", "EXIT")  # states of bjobs of jobs that have ended


class Lsf(DirectiveScheduler):
    """LSF queues a job again that ends with the exit code 99, under the same id.

    Its signal before the limit reaches every process of the job on the first host. mpirun of Open MPI and jsrun hand it
    on; mpiexec of MPICH ends by it, and its jobs have a timer instead.
    """

    name, title = "lsf", "LSF"
    command, cancel, suffix = "bsub", "bkill", "lsf"
    list_jobs = "bjobs"
    own_variables, job_variable = r"LSB_(?!DEFAULT)|LS_(JOBPID|SUBCWD)$", "LSB_JOBID"
    launchers = ("mpirun", "jsrun", "mpiexec")
    reads_script = True

    def values(self, directory: Path, asked: Resources, site: SiteSettings, tasks: list[int] | None) -> dict[str, Any]:
        launcher = self.launcher(site)
        # With jsrun (IBM's Cluster Systems Manager) a job asks for whole nodes.
        whole, timer = launcher == "jsrun", launcher == "mpiexec"
        own = {
            "NODES": asked.nodes if whole else None,
            "SLOTS": None if whole else asked.nodes * asked.cores_per_node,
            "PTILE": None if whole else asked.cores_per_node,
            "GPUS": None if whole else asked.gpus_per_node,
            "MINUTES": asked.limit_seconds and asked.limit_seconds // 60,
            "CONSTRAINT": asked.constraint and shlex.quote(f"select[{asked.constraint}]"),
            "WARNING": math.ceil(asked.notice_seconds / 60),
            "SIGNAL": None if timer else "",
            "TIMER": "" if timer else None,
            "UNTILNOTICE": until_notice(asked, "mpiexec") if timer else None,
            "LAUNCH": _jsrun(asked) if whole else mpi_launch(launcher, asked, site),
        }
        return self.common(directory, asked, site) | own

    def submission(self, script: Path, after: str | None) -> list[str]:
        return ["bsub", *(["-w", f"ended({after})"] if after else [])]

    def id_of(self, output: str) -> str:
        found = re.search(r"Job <(\d+)> is submitted", output)
        return found[1] if found else ""

    def state(self, job: str) -> str:
        word = self.asks("bjobs", "-noheader", "-o", "stat", job)
        return word.lower() if re.fullmatch("[A-Z]+", word) and word not in ENDED else ""


def _jsrun(asked: Resources) -> str:
    """One resource set a node, so that every process sees all GPUs of its node, as with other launchers."""
    cores = asked.cores_per_node if asked.cpus_per_task else "ALL_CPUS"
    words = f"jsrun --nrs {asked.nodes} --rs_per_host 1 --tasks_per_rs {asked.ntasks_per_node} --cpu_per_rs {cores}"
    return f"{words} --gpu_per_rs {asked.gpus_per_node or 0} --bind none"
