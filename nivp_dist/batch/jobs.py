"""The jobs of a run: what is checked before one waits in the queue, and its submission."""

import contextlib
import itertools
import logging
import math
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click

from nivp_dist.batch import ledger
from nivp_dist.batch.ledger import last_jobs
from nivp_dist.batch.resources import NOTICE, Resources
from nivp_dist.batch.scheduler import OF_A_GROUP, Scheduler
from nivp_dist.batch.schedulers import of_script
from nivp_dist.batch.sweeps import members
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.settings.job_environment import NOTICE_FACTOR, NOTICE_SECONDS
from nivp_dist.settings.model import Config
from nivp_dist.settings.sources import Source
from nivp_dist.storage import run_directory
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.lock import in_use
from nivp_dist.storage.metrics import METRICS, read_tail

# Messages of sbatch when it has lost the controller, which may have queued the job all the same; also of the others.
LOST_CONTROLLER = re.compile(r"timed? ?out|zero bytes|communication|contact|connect", re.IGNORECASE)
LOOK_AFTER = (0.0, 5.0, 10.0, 20.0)  # seconds between looks into the queue: a controller under load needs some time
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
        for problem, t_start, t_end in [_times(config) for config in configs]:
            if (key := (problem.model_dump_json(), t_start, t_end)) not in files:
                source = problem.file or f"problem {problem.name}"
                for warning in checks.check(registry.load(problem), source, t_start, t_end):
                    click.echo(f"nivp: warning: {warning}", err=True)
                files[key] = registry.files_of(problem)
        return [files[problem.model_dump_json(), *times] for problem, *times in map(_times, configs)]
    finally:
        os.environ.clear()  # sbatch hands it on to the job
        os.environ.update(before)


def _check_devices(devices: int, asked: Resources) -> None:
    total = asked.nodes * asked.gpus_per_node if asked.gpus_per_node else None
    if devices and asked.processes > 1 and devices != total:
        raise InputError(f"devices = {devices}: a job of several processes uses all that it has; set 0")
    if devices and total and devices > total:
        raise InputError(f"devices = {devices}, but the job has {total}: lower it, or 0 for all of them")


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
    recorded = last_jobs(directory)
    if recorded:
        script = Path(recorded[-1].get("script", ""))
        scheduler = of_script(script)
        # A job without an id is one of which it was not known whether it is queued.
        ids = [[line["job"]] if line.get("job") else scheduler.find(script) for line in recorded]
        states = {job: state for job in itertools.chain(*ids) if (state := scheduler.state(job))}
        if len(states) == 1:
            [(job, state)] = states.items()
            raise InputError(f"{directory}: its job {job} is {state}: `{scheduler.cancel} {job}` first")
        if states:
            waiting = " ".join(states)
            raise InputError(f"{directory}: its jobs {waiting} are in the queue: `{scheduler.cancel} {waiting}` first")
    if in_use(directory):
        raise InputError(f"{directory}: in use by another process: wait for its end, or stop it")


# ------------------------------------------------------------------------------------------------- queue


def script_path(directory: Path, scheduler: Scheduler) -> Path:
    """Where the next script of a run is going to be."""
    paths = (directory / f"job-{number:03d}.{scheduler.suffix}" for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def queue(scheduler: Scheduler, path: Path, text: str, asked: Resources, tasks: list[int] | None) -> Iterator[str]:
    """Store the script at the path and submit it, as often as a chain has jobs: the ids of the jobs, one by one.

    Only the user can read the script, because the variables of the site file may be secrets. If sbatch loses the
    controller, squeue is asked for the job.
    Raises InputError if the directory cannot be written, or the first job is refused; the script is then removed.
    Raises RunFailed if it is not known whether a job is queued, or if a later job of a chain is refused; all files are
    kept.
    """
    try:
        for run in members(path.parent, tasks):
            # Slurm makes no folder for a log: without it the job would fail, and nothing would say why.
            (run / run_directory.LOGS).mkdir(exist_ok=True)
        write_whole(path, text, mode=0o600)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written: {error.strerror}") from None
    queued, length = [], asked.chain or 1
    while len(queued) < length:
        try:
            queued.append(_submit(scheduler, path, asked, tasks, queued))
        except InputError as error:
            if not queued:
                path.unlink()
                raise
            raise RunFailed(f"{error}: {len(queued)} of the {length} jobs of the chain are queued, and stay") from None
        yield queued[-1]


def _submit(scheduler: Scheduler, path: Path, asked: Resources, tasks: list[int] | None, queued: list[str]) -> str:
    """The id of a job for the script, which begins when the last of those that are queued has ended.

    Raises InputError if it is refused, RunFailed if it is not known whether it is queued.
    """
    of_others = OF_A_GROUP
    if scheduler.job_variable in os.environ:
        of_others += f"|{scheduler.own_variables}"
    environment = {name: value for name, value in os.environ.items() if not re.match(of_others, name)}
    environment[NOTICE_SECONDS] = str(asked.notice_seconds)  # the scheduler hands it on to the run (cluster/notice.py)
    command, words = scheduler.command, scheduler.submission(path, queued[-1] if queued else None)
    with open(path) if scheduler.reads_script else contextlib.nullcontext() as script:
        done = subprocess.run(words, env=environment, stdin=script, capture_output=True, text=True)
    message = " ".join(done.stderr.split())
    if done.returncode < 0 or (done.returncode and LOST_CONTROLLER.search(message)):
        return _look_for(scheduler, path, tasks, queued, message or f"{command}: killed by signal {-done.returncode}")
    if done.returncode != 0:
        raise InputError(f"{command} refuses: {message or f'exit status {done.returncode}'}")
    if not (job := scheduler.id_of(done.stdout)):
        said = " ".join(done.stdout.split())
        return _look_for(scheduler, path, tasks, queued, f"{command} names no job: {said or message or 'no output'}")
    if message:
        logging.getLogger(__name__).warning("%s: %s", command, message)
    return job


def _look_for(scheduler: Scheduler, path: Path, tasks: list[int] | None, queued: list[str], message: str) -> str:
    """The id of a job of a script, other than those queued, that may be there all the same, after the message.

    Raises RunFailed if it is not found.
    """
    why = f"{scheduler.list_jobs.split()[0]} {'does not show it' if scheduler.finds else 'was not asked'}"
    for pause in LOOK_AFTER if scheduler.finds else ():
        time.sleep(pause)
        try:
            job = next((job for job in scheduler.find(path) if job not in queued), None)
        except InputError as error:
            why = str(error)
            continue
        if job is not None:
            click.echo(f"nivp: warning: {message}: the job is queued all the same", err=True)
            return job
    with contextlib.suppress(RunFailed):
        ledger.record(None, path, tasks)
    raise RunFailed(
        f"{message}: the job may be queued, and {why}: {path.parent} is kept; if `{scheduler.list_jobs}` does not show "
        f"a job {path.parent.name} later: nivp submit --resume {shlex.quote(str(path.parent))}"
    )


def _times(config: Config) -> tuple:
    return config.problem, config.integrator.t_start, config.integrator.t_end
