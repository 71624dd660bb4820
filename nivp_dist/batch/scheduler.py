"""What `nivp submit` has to know of a batch system; slurm.py, pbs.py, lsf.py and flux.py say it for one each."""

import abc
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from nivp_dist.batch.resources import Resources
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError
from nivp_dist.storage.run_directory import LOGS

# Variables by which a shell in a process group knows its place there. The command that submits a job would hand them
# on, and the new job would take them for its own. Each scheduler has more, by which a shell in a job knows its place.
OF_A_GROUP = r"PMIX?_|OMPI_COMM_WORLD_|MV[2P]_COMM_WORLD_|JSM_|FLUX_(?:JOB|TASK)_|PALS_|MPI_LOCAL"
OF_A_GROUP += r"|NIVP_PROCESS|NIVP_MEETING|NIVP_NOTICE"
# Names and paths that need no quoting in the directives of any scheduler.
PLAIN = r"[\w./+@=-]+"


class Scheduler(abc.ABC):
    """A batch system.

    name: in the site file and after --scheduler. title: for messages. command: what submits a job, in words; the first
    is its program. cancel: the words before the id of a job that cancel it. suffix: of job scripts. own_variables: what
    the variables of its jobs begin with, a regular expression; job_variable: the one with the id of the job. arrays:
    whether a sweep is one job. launchers: what starts the processes of a job, the default first; for messages, and
    keys of the site file. qos: whether it knows that word. reads_script: whether the script is its standard input.
    finds: whether ``find`` can find jobs. list_jobs: a command that lists the jobs of the user.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    command: ClassVar[str]
    cancel: ClassVar[str]
    list_jobs: ClassVar[str]
    suffix: ClassVar[str]
    own_variables: ClassVar[str]
    job_variable: ClassVar[str]
    launchers: ClassVar[tuple[str, ...]]
    arrays: ClassVar[bool] = False
    qos: ClassVar[bool] = False
    reads_script: ClassVar[bool] = False
    finds: ClassVar[bool] = False

    @abc.abstractmethod
    def values(self, directory: Path, asked: Resources, site: SiteSettings, tasks: list[int] | None) -> dict[str, Any]:
        """The values of its template that are not the same for every scheduler: name -> text, list of texts, or None
        (``script.fill``). tasks: of a sweep that is one job.
        """

    @abc.abstractmethod
    def submission(self, script: Path, after: str | None) -> list[str]:
        """The words that submit a script. after: the id of a job that has to end first, in whatever way."""

    @abc.abstractmethod
    def id_of(self, output: str) -> str:
        """The id of the job from the output of a submission; '' if it is not there."""

    @abc.abstractmethod
    def state(self, job: str) -> str:
        """The state of a job in one word for a message, '' if it has ended or is not known."""

    def find(self, script: Path) -> list[str]:
        """The ids of the jobs of a script in the queue; [] also if the scheduler cannot be asked this way (``finds``).

        Raises InputError if it does not answer.
        """
        return []

    def is_here(self) -> bool:
        """Whether jobs can be submitted on this host."""
        return shutil.which(self.command.split()[0]) is not None

    def require_here(self) -> None:
        """Raises InputError where jobs cannot be submitted."""
        if not self.is_here():
            program = self.command.split()[0]
            where = f"submit from a login node of a {self.title} cluster, or use launch/local, mpirun"
            raise InputError(f"{program} is not here: {where}")

    def launcher(self, site: SiteSettings) -> str:
        """What starts the processes of the job. Raises InputError if the site file names another scheduler's."""
        if site.launcher is not None and site.launcher not in self.launchers:
            known = ", ".join(self.launchers)
            raise InputError(f"site file: launcher = {site.launcher!r} is not for {self.title}, which has {known}")
        return site.launcher or self.launchers[0]

    def require_possible(self, directory: Path, asked: Resources) -> None:
        """Raises InputError if something is asked for that this scheduler, or its directives, cannot express."""
        if asked.qos is not None and not self.qos:
            raise InputError(f"qos: {self.title} has none: use --partition for its queue, or `submit` in the site file")
        if asked.array_limit is not None and not self.arrays:
            raise InputError(f"--array-limit: a sweep is a job for each run with {self.title}: leave it away")

    def asks(self, *words: str) -> str:
        """The output of one of its commands, '' if the command fails. Raises InputError if it cannot be started."""
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except OSError as error:
            raise InputError(f"{words[0]} cannot be started: {error.strerror}") from None
        return done.stdout.strip() if done.returncode == 0 else ""


class DirectiveScheduler(Scheduler):
    """A scheduler whose directives are not quoted as in a shell, so that only plain names and paths go into them."""

    def require_possible(self, directory: Path, asked: Resources) -> None:
        super().require_possible(directory, asked)
        texts = {"the run directory": str(directory), "--partition": asked.partition, "--account": asked.account}
        for what, text in texts.items():
            if text is not None and not re.fullmatch(PLAIN, text, re.ASCII):
                allowed = f"a directive of {self.title} takes letters, digits and ./+@=_- only"
                raise InputError(f"{what}: {json.dumps(text)}: {allowed}: choose another")

    def common(self, directory: Path, asked: Resources, site: SiteSettings) -> dict[str, Any]:
        """Values that are spelled alike for all of these schedulers."""
        return {
            "NAME": re.sub(r"^[^A-Za-z0-9]|[^\w.-]", "_", directory.name, flags=re.ASCII),
            "NODES": asked.nodes,
            "GPUS": asked.gpus_per_node,
            "PARTITION": asked.partition,
            "ACCOUNT": asked.account,
            "SUBMIT": site.submit,
            "LOGS": directory / LOGS,
            "RUN": directory,
            "OPTION": [shlex.quote(option) for option in site.launch],
            "NAMED": f" --launcher {shlex.quote(self.launcher(site))}",
        }


def until_notice(asked: Resources, title: str) -> int:
    """Seconds from the start of a job to its notice, for jobs whose processes no signal reaches.

    Raises InputError if the time limit is not known.
    """
    if asked.limit_seconds is None:
        raise InputError(f"time: {title} tells a run nothing of its limit: give --time, or set it in the site file")
    return asked.limit_seconds - asked.notice_seconds


def mpi_launch(launcher: str, asked: Resources, site: SiteSettings, *exported: str) -> str:
    """The words that start the processes with a launcher of MPI, "mpiexec" or "mpirun".

    exported: variables of the script beside those of the site file. mpiexec is that of MPICH, Intel MPI, and PALS on
    Cray machines. mpirun is that of Open MPI, which binds processes to cores unless it is told not to, and hands no
    variables of the environment on to other hosts by itself.
    """
    if launcher == "mpiexec":
        return f"mpiexec -n {asked.processes} --ppn {asked.ntasks_per_node}"
    names = "".join(f" -x {name}" for name in ("NIVP_SECRET", *exported, *site.environment))
    return f"mpirun -n {asked.processes} --map-by ppr:{asked.ntasks_per_node}:node --bind-to none{names}"
