"""Faults of Slurm jobs, in a Slurm whose nodes are all this machine: only there can the processes be reached."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from nivp_dist.bench.faults.children import (
    LIMIT,
    LOCAL,
    NIVP,
    Children,
    Ended,
    command_line,
    count_lines,
    is_alive,
    kill,
    marked,
)
from nivp_dist.bench.faults.outcome import HANG, LOST, Outcome
from nivp_dist.bench.faults.process_faults import Disturbed, conclude, random_moment
from nivp_dist.errors import FAILED, FINISHED
from nivp_dist.storage.metrics import EVENTS, METRICS

LAST_STATES = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
GRACE = "20"  # NIVP_SRUN_GRACE_SECONDS of these jobs
PROGRAMS = ("sbatch", "scontrol", "scancel")


class Job:
    """A submitted run of two nodes."""

    def __init__(self, children: Children, directory: Path):
        self.directory = directory
        environment = children.environment(directory) | {"NIVP_SRUN_GRACE_SECONDS": GRACE}
        words = [*NIVP, "submit", str(children.config), "--output", str(directory), "--nodes", "2"]
        done = subprocess.run(words, env=environment, cwd=children.folder, capture_output=True, text=True, check=False)
        self.id, self.error = done.stdout.strip(), done.stderr.strip()

    @property
    def state(self) -> str:
        match = re.search(r"JobState=(\w+)", _call("scontrol", "-o", "show", "job", self.id))
        return match[1] if match else "UNKNOWN"

    def wait(self, condition: Callable[[], bool], seconds: float = 2 * LIMIT) -> bool:
        """Poll until the condition holds; False if it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def lines(self) -> int:
        return sum(count_lines(self.directory / name) for name in (METRICS, EVENTS))

    def ranks(self) -> list[int]:
        return self._processes(lambda words: "nivp_dist.cli" in words and Path(words[0]).name.startswith("python"))

    def runners(self) -> list[int]:
        """The srun of the job, and its helper."""
        return self._processes(lambda words: Path(words[0]).name == "srun")

    def managers(self) -> list[int]:
        """The slurmstepd of each node for the step of the job."""
        title = f"slurmstepd: [{self.id}.0]"
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        return sorted(pid for pid in pids if command_line(pid)[0].startswith(title) and is_alive(pid))

    def _processes(self, wanted: Callable[[list[str]], bool]) -> list[int]:
        return sorted(pid for pid in marked(self.directory) if wanted(command_line(pid)))


def _one(pids: list[int], random: Random) -> list[int]:
    return [random.choice(pids)] if pids else []


def rank_killed(job: Job, random: Random) -> str:
    kill(_one(job.ranks(), random), signal.SIGKILL)
    return "a process killed"


def manager_killed(job: Job, random: Random) -> str:
    kill(_one(job.managers(), random), signal.SIGKILL)
    return "a slurmstepd killed"


def runner_killed(job: Job, random: Random) -> str:
    kill(job.runners(), signal.SIGKILL)
    return "srun killed"


def requeued(job: Job, random: Random) -> str:
    _call("scontrol", "requeue", job.id)
    return "scontrol requeue"


def cancelled(job: Job, random: Random) -> str:
    _call("scancel", job.id)
    return "scancel"


def inject(fault: Callable[[Job, Random], str], children: Children, directory: Path, random: Random) -> Outcome:
    """Submit a run and disturb its job at a random moment. A run that has not finished is continued without Slurm.

    fault: disturbs the job, and returns in words how.
    """
    moment = random_moment(children, LOCAL, random, first=1)
    began = time.monotonic()
    job = Job(children, directory)
    if not job.id:
        return Outcome(LOST, "nivp submit", job.error)
    try:
        if not job.wait(lambda: job.lines() >= moment.lines or job.state in LAST_STATES):
            return Outcome(HANG, f"job {job.id}", f"no line {moment.lines}: the job is {job.state}")
        time.sleep(moment.seconds)
        what = f"{moment}: {fault(job, random)}"
        ended = job.wait(lambda: job.state in LAST_STATES)
        what = f"{what}; the job {job.state}"
        if not ended:
            return Outcome(HANG, what)
        output = "\n".join(path.read_text("utf-8", "replace") for path in (directory / "logs").glob("slurm-*.out"))
        code = FINISHED if job.state == "COMPLETED" else FAILED
        run = Disturbed(LOCAL, directory, Ended(code, output, time.monotonic() - began), what)
        return conclude(children, run, silent=True)
    finally:
        _call("scancel", job.id)


def no_slurm() -> str | None:
    """Why there can be no such fault here; None if there can."""
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{absent[0]} is not on the path"
    addresses = set(re.findall(r"NodeAddr=(\S+)", _call("scontrol", "-o", "show", "nodes")))
    here = {"127.0.0.1", "localhost", socket.gethostname()}
    if not addresses:
        return "no Slurm answers"
    return None if addresses <= here and os.geteuid() == 0 else "its nodes are not all this machine"


def _call(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""
