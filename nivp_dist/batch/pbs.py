"""PBS Professional and OpenPBS: qsub, mpiexec, qstat, qdel. Never run on such a site."""

import os
import re
from pathlib import Path
from typing import Any

from nivp_dist.batch.resources import Resources
from nivp_dist.batch.scheduler import DirectiveScheduler, mpi_launch, until_notice
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError

# Letters of qstat for jobs that have not ended.
STATES = {"B": "running", "E": "exiting", "H": "held", "M": "moved", "Q": "queued", "R": "running"}
STATES |= {"S": "suspended", "T": "moving", "U": "suspended", "W": "waiting"}


class Pbs(DirectiveScheduler):
    """A job cannot queue itself again, and gets no signal before its limit: it submits its script anew, by a timer."""

    name, title = "pbs", "PBS"
    command, cancel, suffix = "qsub", "qdel", "pbs"
    list_jobs = "qstat -u $USER"
    own_variables, job_variable = r"PBS_(?!CONF_FILE$|EXEC$|SERVER$|DEFAULT$)", "PBS_JOBID"
    launchers = ("mpiexec", "mpirun")

    def require_possible(self, directory: Path, asked: Resources) -> None:
        super().require_possible(directory, asked)
        if asked.constraint is not None and not re.fullmatch(r"[\w.-]+=[\w./+@:=-]+", asked.constraint, re.ASCII):
            wanted = "a resource of the nodes, such as gpu_type=a100"
            raise InputError(f"constraint: for PBS it is {wanted}, got {asked.constraint!r}")

    def values(self, directory: Path, asked: Resources, site: SiteSettings, tasks: list[int] | None) -> dict[str, Any]:
        launcher, limit = self.launcher(site), asked.limit_seconds or 0
        notice = until_notice(asked, self.title)
        node = [f"ncpus={asked.cores_per_node}", f"mpiprocs={asked.ntasks_per_node}"]
        node += [f"ngpus={asked.gpus_per_node}"] if asked.gpus_per_node else []
        node += [asked.constraint] if asked.constraint else []
        return self.common(directory, asked, site) | {
            "SELECT": ":".join([str(asked.nodes), *node]),
            "WALLTIME": f"{limit // 3600:02d}:{limit // 60 % 60:02d}:00",
            "UNTILNOTICE": notice,
            "LAUNCH": mpi_launch(launcher, asked, site, "NIVP_NOTICE_AT"),
            "RESUBMIT": "qsub",
        }

    def submission(self, script: Path, after: str | None) -> list[str]:
        return ["qsub", *(["-W", f"depend=afterany:{after}"] if after else []), str(script)]

    def id_of(self, output: str) -> str:
        """The last line, because a site may greet its users before."""
        found = re.findall(r"^\d+(?:\[\])?(?:\.[\w.-]+)?$", output.strip(), re.MULTILINE)
        return found[-1] if found else ""

    def state(self, job: str) -> str:
        # qstat fails for a job that has ended.
        letter = re.search(r"^\s*job_state = (\w)$", self.asks("qstat", "-f", job), re.MULTILINE)
        return STATES.get(letter[1], "") if letter else ""

    def is_here(self) -> bool:
        """Grid Engine has a qsub of its own, which reads no #PBS line."""
        return super().is_here() and "SGE_ROOT" not in os.environ
