"""The jobs of a run: what is checked before one waits in the queue, its submission with sbatch, and its record."""

import contextlib
import itertools
import logging
import math
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click

from nivp_dist.batch.script import NOTICE, Resources
from nivp_dist.batch.sweeps import member, members
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.settings.model import Config
from nivp_dist.settings.sources import Source
from nivp_dist.storage import run_directory
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.lock import in_use
from nivp_dist.storage.metrics import METRICS, Lines, read_tail

JOBS = "jobs.jsonl"  # the jobs of a run, one a line
# Messages of sbatch when it has lost the controller, which may have queued the job all the same.
LOST_CONTROLLER = re.compile(r"timed? ?out|zero bytes|communication|contact|connect", re.IGNORECASE)
LOOK_AFTER = (0.0, 5.0, 10.0, 20.0)  # seconds between looks into the queue: a controller under load needs some time
# Variables by which a shell in a process group, or in a job, knows its place there. sbatch would hand them on, and the
# new job would take them for its own.
OF_A_GROUP = r"PMIX?_|OMPI_COMM_WORLD_|MV[2P]_COMM_WORLD_|FLUX_|PALS_|MPI_LOCAL|NIVP_PROCESS|NIVP_MEETING"
OF_A_JOB = r"SLURM_(?!CONF$|CLUSTERS$)|SLURMD_|" + OF_A_GROUP
NOTICE_FACTOR = 3  # times the longest step and save that were seen: the next may take longer on a busy file system
LONGEST_NOTICE = 65535  # seconds, of Slurm


# ------------------------------------------------------------------------------------------------ checks


def check(configs: list[Config], asked: Resources) -> list[list[Source]]:
    """Find every mistake that can be found without the job's devices: it may start in a week. Raises InputError.

    Returns the files that the problem of each configuration needs (``problems.registry.files_of``).
    """
    for config in configs:
        _check_devices(config.devices, asked)
    if asked.gpus_per_node and os.environ.get("JAX_PLATFORMS") == "cpu":
        raise InputError("environment: JAX_PLATFORMS=cpu would be handed on to a job with GPUs: unset it")
    return check_problems(configs)


def check_problems(configs: list[Config]) -> list[list[Source]]:
    """Load and check problem, network and callbacks of each configuration, and return the files that the problem needs.

    Raises InputError. Warnings about a problem are printed to standard error, once.
    """
    before = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"  # the GPU of the login node stays free for others
    try:
        from nivp_dist.callbacks import loading
        from nivp_dist.problems import checks, registry, user_networks

        for config in configs:
            if config.network.file is not None:
                user_networks.find(config.network, {})
            if callbacks := loading.load(config.callbacks):
                loading.check(callbacks, registry.load(config.problem))
        files = {}
        for problem, t_start in [(config.problem, config.integrator.t_start) for config in configs]:
            if (key := (problem.model_dump_json(), t_start)) not in files:
                source = problem.file or f"problem {problem.name}"
                for warning in checks.check(registry.load(problem), source, t_start):
                    click.echo(f"nivp: warning: {warning}", err=True)
                files[key] = registry.files_of(problem)
        return [files[config.problem.model_dump_json(), config.integrator.t_start] for config in configs]
    finally:
        os.environ.clear()  # sbatch hands it on to the job
        os.environ.update(before)


def _check_devices(devices: int, asked: Resources) -> None:
    total = asked.nodes * asked.gpus_per_node if asked.gpus_per_node else None
    if devices and asked.processes > 1 and devices != total:
        raise InputError(f"devices = {devices}: a job of several processes uses all that it has; set 0")
    if devices and total and devices > total:
        raise InputError(f"devices = {devices}, but the job has {total}: lower it, or 0 for all of them")


def require_sbatch() -> None:
    """Raises InputError where there is no Slurm."""
    if shutil.which("sbatch") is None:
        raise InputError("sbatch is not here: submit from a login node of a Slurm cluster, or use launch/local, mpirun")


def notice(directory: Path) -> int:
    """Seconds before the time limit at which a run should be signalled: NOTICE, or three times the longest time between
    two of the last lines of metrics.jsonl, which is a step with the save after it, if that is more.

    At the signal a run gives up the step in progress between two of its stages, and saves.
    """
    lines = read_tail(directory / METRICS)
    times = [line["wall_seconds"] for line in lines if isinstance(line.get("wall_seconds"), (int, float))]
    longest = max((after - before for before, after in itertools.pairwise(times)), default=0.0)
    return min(max(NOTICE, math.ceil(NOTICE_FACTOR * longest)), LONGEST_NOTICE)


def require_idle(directory: Path) -> None:
    """Raises InputError if the run is in a queue or in use already, or if that cannot be found out."""
    try:
        recorded = read_tail(directory / JOBS)
    except OSError as error:
        raise InputError(f"{directory / JOBS}: cannot be read: {error.strerror}; check its file system") from None
    if recorded:
        # A job without an id is one of which sbatch could not say whether it is queued.
        job = recorded[-1].get("job") or _find(Path(recorded[-1]["script"]))
        # squeue fails for a job that Slurm has forgotten.
        words = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
        state = subprocess.run(words, capture_output=True, text=True).stdout.strip() if job else ""
        if state:
            raise InputError(f"{directory}: its job {job} is {state.splitlines()[0].lower()}: `scancel {job}` first")
    if in_use(directory):
        raise InputError(f"{directory}: in use by another process: wait for its end, or stop it")


# ------------------------------------------------------------------------------------------------- queue


def queue(directory: Path, text: str, tasks: list[int] | None) -> tuple[str, Path]:
    """Store the script in the directory and hand it to sbatch: (id of the job, path of the script).

    Only the user can read the script, because the variables of the site file may be secrets. If sbatch loses the
    controller, squeue is asked for the job.
    Raises InputError if the directory cannot be written, or sbatch refuses; the script is then removed. Raises
    RunFailed if it is not known whether the job is queued; all files are kept.
    """
    try:
        for run in members(directory, tasks):
            # Slurm makes no folder for a log: without it the job would fail, and nothing would say why.
            (run / run_directory.LOGS).mkdir(exist_ok=True)
        path = next(path for path in _script_paths(directory) if not path.exists())
        write_whole(path, text, mode=0o600)
    except OSError as error:
        raise InputError(f"{directory}: cannot be written: {error.strerror}") from None
    of_others = OF_A_JOB if "SLURM_JOB_ID" in os.environ else OF_A_GROUP
    environment = {name: value for name, value in os.environ.items() if not re.match(of_others, name)}
    done = subprocess.run(["sbatch", "--parsable", str(path)], env=environment, capture_output=True, text=True)
    message = " ".join(done.stderr.split())
    if done.returncode < 0 or (done.returncode and LOST_CONTROLLER.search(message)):
        return _look_for(path, tasks, message or f"sbatch: killed by signal {-done.returncode}"), path
    if done.returncode != 0:
        path.unlink()
        raise InputError(f"sbatch refuses: {message or f'exit status {done.returncode}'}")
    if message:
        logging.getLogger(__name__).warning("sbatch: %s", message)
    return done.stdout.strip().split(";")[0], path


def _look_for(path: Path, tasks: list[int] | None, message: str) -> str:
    """The id of the job of a script that sbatch may have queued before it failed with the message. Raises RunFailed."""
    why = "squeue does not show it"
    for pause in LOOK_AFTER:
        time.sleep(pause)
        try:
            job = _find(path)
        except InputError as error:
            why = str(error)
            continue
        if job is not None:
            click.echo(f"nivp: warning: {message}: the job is queued all the same", err=True)
            return job
    with contextlib.suppress(RunFailed):
        record(None, path, tasks)
    raise RunFailed(
        f"{message}: the job may be queued, and {why}: {path.parent} is kept; if `squeue --me` does not show a job "
        f"{path.parent.name} later: nivp submit --resume {shlex.quote(str(path.parent))}"
    )


def _find(path: Path) -> str | None:
    """The id of the job of a script if it is in the queue, else None. Raises InputError if squeue does not answer."""
    words = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F|%o"]  # id of the job or array | its script
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"squeue cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        raise InputError(f"squeue does not answer: {' '.join(done.stderr.split()) or done.returncode}")
    pairs = (line.split("|", 1) for line in done.stdout.splitlines())
    return next((pair[0] for pair in pairs if pair[-1] == str(path)), None)


def record(job: str | None, path: Path, tasks: list[int] | None) -> None:
    """Add the job to jobs.jsonl beside its script, and to that of each run of a sweep. Raises RunFailed.

    job: its id; None if it is not known whether the job is queued.
    """
    line = {"job": job, "time": time.time(), "script": str(path)}
    try:
        Lines(path.parent / JOBS).append(line)
        for task in tasks or []:
            Lines(member(path.parent, task) / JOBS).append(line | {"job": job and f"{job}_{task}"})
    except OSError as error:
        raise RunFailed(f"job {job} is queued, but {path.parent} cannot be written: {error.strerror}") from None


def _script_paths(directory: Path) -> Iterator[Path]:
    return (directory / f"job-{number:03d}.sbatch" for number in itertools.count(1))
