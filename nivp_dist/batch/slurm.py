"""Slurm: sbatch, srun, squeue, scancel, job arrays."""

import itertools
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from nivp_dist.batch.resources import Resources
from nivp_dist.batch.scheduler import Scheduler
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError
from nivp_dist.storage.run_directory import LOGS

# Shell expressions for the run directory and the id of one task of a job array.
TASK_DIRECTORY = "$(printf '%s/%04d' {sweep} \"$SLURM_ARRAY_TASK_ID\")"
TASK_JOB = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"


class Slurm(Scheduler):
    """The one that has been tried with a real installation (tests/cluster/test_slurm.py)."""

    name, title = "slurm", "Slurm"
    command, cancel, suffix = "sbatch", "scancel", "sbatch"
    list_jobs = "squeue --me"
    own_variables, job_variable = r"SLURM_(?!CONF$|CLUSTERS$)|SLURMD_", "SLURM_JOB_ID"
    arrays = qos = finds = True
    launchers = ("srun",)

    def values(self, directory: Path, asked: Resources, site: SiteSettings, tasks: list[int] | None) -> dict[str, Any]:
        sweep, run = bool(tasks), shlex.quote(str(directory))
        limit = f"%{asked.array_limit}" if asked.array_limit else ""
        self.launcher(site)
        return {
            "SWEEP": "" if sweep else None,
            "NAME": shlex.quote(directory.name),
            "ARRAY": ranges(tasks) + limit if tasks else None,
            "NODES": asked.nodes,
            "TASKS": asked.ntasks_per_node,
            "GPUS": asked.gpus_per_node,
            "CPUS": asked.cpus_per_task,
            "TIME": asked.time,
            "PARTITION": _quoted(asked.partition),
            "ACCOUNT": _quoted(asked.account),
            "QOS": _quoted(asked.qos),
            "CONSTRAINT": _quoted(asked.constraint),
            "NOTICE": asked.notice_seconds,
            "LOG": _log(directory, sweep),
            "RUN": TASK_DIRECTORY.format(sweep=run) if sweep else run,
            "JOB": TASK_JOB if sweep else "$SLURM_JOB_ID",
            "SBATCH": site.sbatch,
            "SRUN": [shlex.quote(option) for option in site.srun],
            "NAMED": "",
        }

    def submission(self, script: Path, after: str | None) -> list[str]:
        return ["sbatch", "--parsable", *([f"--dependency=afterany:{after}"] if after else []), str(script)]

    def id_of(self, output: str) -> str:
        return output.strip().split(";")[0]

    def state(self, job: str) -> str:
        # squeue fails for a job that Slurm has forgotten.
        return self.asks("squeue", "--noheader", "--format=%T", f"--jobs={job}").partition("\n")[0].lower()

    def find(self, script: Path) -> list[str]:
        # The id of the job or array | its script.
        words = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F|%o"]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except OSError as error:
            raise InputError(f"squeue cannot be started: {error.strerror}") from None
        if done.returncode != 0:
            raise InputError(f"squeue does not answer: {' '.join(done.stderr.split()) or done.returncode}")
        pairs = (line.split("|", 1) for line in done.stdout.splitlines())
        return [pair[0] for pair in pairs if pair[-1] == str(script)]


def ranges(tasks: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    groups = itertools.groupby(enumerate(tasks), lambda pair: pair[1] - pair[0])
    runs = [[task for _, task in group] for _, group in groups]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _quoted(value: str | None) -> str | None:
    return None if value is None else shlex.quote(value)


def _log(directory: Path, sweep: bool) -> str:
    folder = str(directory).replace("%", "%%")
    return shlex.quote(f"{folder}/%4a/{LOGS}/slurm-%A_%a.out" if sweep else f"{folder}/{LOGS}/slurm-%j.out")
