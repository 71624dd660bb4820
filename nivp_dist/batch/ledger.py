"""jobs.jsonl: the jobs of a run, or of a sweep, one a line."""

import time
from pathlib import Path

from nivp_dist.batch.sweeps import member
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.storage.metrics import Lines, read_tail

JOBS = "jobs.jsonl"


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


def last_jobs(directory: Path) -> list[dict]:
    """The lines of the last script of a run: of one job, or of those that have followed it. Raises InputError."""
    try:
        lines = read_tail(directory / JOBS)
    except OSError as error:
        raise InputError(f"{directory / JOBS}: cannot be read: {error.strerror}; check its file system") from None
    return [line for line in lines if line.get("script") == lines[-1].get("script")]
