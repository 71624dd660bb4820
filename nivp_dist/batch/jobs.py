"""What `nivp submit` is made of: checks before a job waits for days, directories of sweeps, sbatch and its records."""

import itertools
import logging
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from nivp_dist.batch.script import Resources
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.settings.files import COMMAND_LINE, read_config
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import Lines, read_lines, read_tail

JOBS, SWEEP = "jobs.jsonl", "sweep.jsonl"
# What a shell in a job, a step or a group knows of itself: a job that it submits would take it for its own.
OF_A_GROUP = r"PMIX?_|OMPI_COMM_WORLD_|MPI_LOCAL|NIVP_PROCESS|NIVP_MEETING"
OF_A_JOB = r"SLURM_(?!CONF$|CLUSTERS$)|SLURMD_|" + OF_A_GROUP


# ------------------------------------------------------------------------------------------------ checks


def check(configs: list[Config], asked: Resources) -> None:
    """All that can be found wrong without a device of the job, which may start in a week. Raises InputError."""
    for config in configs:
        total = asked.nodes * asked.gpus_per_node if asked.gpus_per_node else None
        if config.devices and asked.processes > 1 and config.devices != total:
            raise InputError(f"devices = {config.devices}: a job of several processes uses all that it has; set 0")
        if config.devices and total and config.devices > total:
            raise InputError(f"devices = {config.devices}, but the job has {total}: lower it, or 0 for all of them")
    if asked.gpus_per_node and os.environ.get("JAX_PLATFORMS") == "cpu":
        raise InputError("environment: JAX_PLATFORMS=cpu would be handed on to a job with GPUs: unset it")
    before = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"  # a GPU of the login node is not ours to take
    try:
        from nivp_dist.problems import checks, registry

        for problem in {config.problem.model_dump_json(): config.problem for config in configs}.values():
            checks.check(registry.load(problem), problem.file or f"problem {problem.name}")
    finally:
        os.environ.clear()  # sbatch hands it on to the job
        os.environ.update(before)


def require_sbatch() -> None:
    """Raises InputError where there is no Slurm."""
    if shutil.which("sbatch") is None:
        raise InputError("sbatch is not here: submit from a login node of a Slurm cluster, or use launch/local, mpirun")


def require_idle(directory: Path) -> None:
    """Raises InputError if a job of the run, or a process, is there already, or if that cannot be found out."""
    try:
        queued = read_tail(directory / JOBS)
    except OSError as error:
        raise InputError(f"{directory / JOBS}: cannot be read: {error.strerror}; see to its file system") from None
    if queued:
        job = queued[-1].get("job")
        # squeue fails for a job that Slurm has forgotten.
        words = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
        state = subprocess.run(words, capture_output=True, text=True).stdout.strip()
        if state:
            raise InputError(f"{directory}: its job {job} is {state.splitlines()[0].lower()}: `scancel {job}` first")
    if run_directory.in_use(directory):
        raise InputError(f"{directory}: in use by another process: wait for its end, or stop it")


# ------------------------------------------------------------------------------------------------ sweeps


def combinations(source: str, overrides: dict[str, str], axes: tuple[str, ...]) -> list[tuple[dict[str, str], Config]]:
    """Every combination of `key=v1,v2,...`: (its values, its configuration). Raises InputError."""
    values = {}
    for axis in axes:
        key, equals, text = axis.partition("=")
        # A comma within brackets or quotes belongs to a value.
        values_of_key = re.findall(r"""(?:\[[^]]*\]|"[^"]*"|'[^']*'|[^,])+""", text)
        if not key or not equals or not values_of_key:
            raise InputError(f"{COMMAND_LINE}: --sweep {axis}: write it as key=value,value")
        if key in values or key in overrides:
            raise InputError(f"{COMMAND_LINE}: {key} is given twice")
        values[key] = values_of_key
    chosen = [dict(zip(values, combination)) for combination in itertools.product(*values.values())]
    return [(own, read_config(source, overrides | own)) for own in chosen]


def make_sweep(runs: list[tuple[dict[str, str], Config]], parent: str | Path | None, name: str) -> Path:
    """The directory of a sweep: a run directory for each combination, numbered as the tasks, and the list of them.

    Raises InputError if it is taken, or cannot be made; nothing is left behind then.
    """
    parent = run_directory.make_folder(parent, f"{name}-sweep")
    try:
        for number, (own, config) in enumerate(runs):
            directory = run_directory.create(config, member(parent, number), name)
            Lines(parent / SWEEP).append({"task": number, "directory": directory.name} | own)
    except InputError:
        shutil.rmtree(parent)
        raise
    except OSError as error:
        shutil.rmtree(parent, ignore_errors=True)
        raise InputError(f"{parent}: cannot be written: {error.strerror}; choose another with --output") from None
    return parent


def is_sweep(directory: Path) -> bool:
    return (directory / SWEEP).is_file()


def tasks(directory: Path, finished: bool) -> list[int]:
    """The tasks of a sweep; those whose runs have finished only if asked for."""
    listed = [line["task"] for line in read_lines(directory / SWEEP)]
    return [task for task in listed if finished or not has_finished(member(directory, task))]


def members(directory: Path, tasks: list[int] | None) -> list[Path]:
    """The run directories of a job: those of the tasks, or the directory itself."""
    return [directory] if tasks is None else [member(directory, task) for task in tasks]


def member(directory: Path, task: int) -> Path:
    """As slurm/array.sbatch has it."""
    return directory / f"{task:04d}"


def has_finished(directory: Path) -> bool:
    """Raises InputError if it is not the directory of a run."""
    return (run_directory.read_summary(directory) or {}).get("status") == "finished"


# ------------------------------------------------------------------------------------------------- queue


def queue(directory: Path, text: str, tasks: list[int] | None) -> tuple[str, Path]:
    """Store the script in the directory and hand it to sbatch: (id of the job, path of the script).

    Raises InputError if the directory cannot be written, or sbatch refuses; the script is then removed.
    """
    try:
        for run in members(directory, tasks):
            (run / run_directory.LOGS).mkdir(exist_ok=True)  # Slurm makes none for a log: the job would fail unseen
        path = next(path for path in _scripts(directory) if not path.exists())
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{directory}: cannot be written: {error.strerror}") from None
    others = OF_A_JOB if "SLURM_JOB_ID" in os.environ else OF_A_GROUP
    environment = {name: value for name, value in os.environ.items() if not re.match(others, name)}
    done = subprocess.run(["sbatch", "--parsable", str(path)], env=environment, capture_output=True, text=True)
    said = " ".join(done.stderr.split())
    if done.returncode != 0:
        path.unlink()
        raise InputError(f"sbatch refuses: {said or f'exit status {done.returncode}'}")
    if said:
        logging.getLogger(__name__).warning("sbatch: %s", said)
    return done.stdout.strip().split(";")[0], path


def write_down(job: str, path: Path, tasks: list[int] | None) -> None:
    """The job, in jobs.jsonl beside its script, and in that of each run of a sweep. Raises RunFailed if that fails."""
    line = {"job": job, "time": time.time(), "script": str(path)}
    try:
        Lines(path.parent / JOBS).append(line)
        for task in tasks or []:
            Lines(member(path.parent, task) / JOBS).append(line | {"job": f"{job}_{task}"})
    except OSError as error:
        raise RunFailed(f"job {job} is queued, but {path.parent} cannot be written: {error.strerror}") from None


def _scripts(directory: Path):
    return (directory / f"job-{number:03d}.sbatch" for number in itertools.count(1))
