"""The status of a run, read from its directory alone. Imports no jax, and writes nothing."""

import time
from collections import deque
from pathlib import Path
from typing import Any

from nivp_dist.batch.ledger import JOBS
from nivp_dist.batch.requeue import REQUEUES, standing
from nivp_dist.errors import InputError
from nivp_dist.report.rate import WINDOW_SAMPLES, settled_rate
from nivp_dist.storage import heartbeat, run_directory
from nivp_dist.storage.lock import LOCK, in_use
from nivp_dist.storage.metrics import EVENTS, METRICS, plain, read_tail, search

RATE_SECONDS = 600.0  # of wall time over which the rate is taken, and at least WINDOW_SAMPLES steps
SHOWN_EVENTS = 3  # the number of last events and of last warnings that are shown
ENDED = ("finished", "stopped", "event", "failed", "interrupted")


def read_status(directory: str | Path) -> dict[str, Any]:
    """The facts about a run, ready for JSON. Unknown ones are None.

    Keys: status (not started, queued, starting, running, interrupted, stopped, failed, finished), summary (the content
    of summary.json), last_step (the last line of metrics.jsonl), last_spectrum (the last line with a measurement of the
    spectrum, if it is among the last thousands), t, rate_per_hour (advance of t), seconds_left, ends_at
    (seconds since 1970), checkpoint, resumes, refits, job (its id), requeues, heartbeat, events, warnings.

    Raises InputError if the directory holds no run, or cannot be read.
    """
    directory = Path(directory)
    try:
        facts = plain(_read_status(directory, time.time()))
    except OSError as error:
        raise InputError(f"{directory}: cannot be read: {error.strerror}; check its file system") from None
    assert isinstance(facts, dict)
    return facts


def _read_status(directory: Path, now: float) -> dict[str, Any]:
    summary = run_directory.read_summary(directory) or {}
    steps, events = read_tail(directory / METRICS), read_tail(directory / EVENTS)
    resumes, warnings = _resumes_and_warnings(directory)
    beat, jobs = heartbeat.read(directory), read_tail(directory / JOBS)
    last = steps[-1] if steps else {}
    spectrum = next((step for step in reversed(steps) if step.get("spectrum_seconds") is not None), None)
    job = beat.job if beat is not None and beat.job else jobs[-1].get("job") if jobs else None
    status, t = _state(directory, summary, bool(jobs)), last.get("t", summary.get("t"))
    rate, settled = _rate(steps)
    ends_at = None
    if status == "running" and settled and rate and t is not None and summary.get("t_end") is not None:
        reached_at = (directory / METRICS).stat().st_mtime
        ends_at = max(now, reached_at + max(summary["t_end"] - t, 0.0) / rate)
    return {
        "status": status,
        "summary": summary,
        "last_step": last,
        "last_spectrum": spectrum,
        "t": t,
        "rate_per_hour": None if rate is None else 3600 * rate,
        "seconds_left": None if ends_at is None else ends_at - now,
        "ends_at": ends_at,
        "checkpoint": _newest_checkpoint(directory, summary, now),
        "resumes": resumes,
        "refits": summary.get("refits", 0),
        "job": job,
        "requeues": len(standing(read_tail(directory / REQUEUES))),
        "heartbeat": None if beat is None else beat._asdict() | {"holder": str(beat), "age_seconds": beat.age},
        "events": events[-SHOWN_EVENTS:],
        "warnings": warnings,
    }


def _resumes_and_warnings(directory: Path) -> tuple[int, list[dict]]:
    """How often the run was resumed, and its last warnings and failures, which may be older than its last events."""
    resumes, warnings = 0, deque(maxlen=SHOWN_EVENTS)
    for event in search(directory / EVENTS, ("resume", "warning", "fail")):
        resumes += event.get("kind") == "resume"
        if event.get("kind") in ("warning", "fail"):
            warnings.append(event)
    return resumes, list(warnings)


def _state(directory: Path, summary: dict, queued: bool) -> str:
    """The status in one word. The lock says whether a process holds the directory now; the summary may be older."""
    status, held = summary.get("status"), in_use(directory)
    if status is None:
        return "starting" if held else "queued" if queued else "not started"
    if status == "running":
        return "running" if held else "interrupted"
    # The process that wrote the end of the run keeps its lock until it exits. A lock that is newer than that summary
    # belongs to another process, which resumes the run.
    lock, written = directory / LOCK, directory / run_directory.SUMMARY
    resumed = held and status != "finished" and lock.exists() and lock.stat().st_mtime > written.stat().st_mtime
    return "starting" if resumed else status


def _rate(steps: list[dict]) -> tuple[float | None, bool]:
    """The advance of t per second over the recent steps, and whether it is steady enough to extrapolate."""
    samples = [(step["wall_seconds"], step["t"]) for step in steps if step.get("wall_seconds") is not None]
    recent = [sample for sample in samples if samples[-1][0] - sample[0] <= RATE_SECONDS]
    recent = recent if len(recent) >= WINDOW_SAMPLES else samples[-WINDOW_SAMPLES:]
    if len(recent) < WINDOW_SAMPLES or recent[-1][0] <= recent[0][0]:
        return None, False
    mean = (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])
    return mean, mean > 0 and settled_rate(recent) is not None


def _newest_checkpoint(directory: Path, summary: dict, now: float) -> dict | None:
    folder = directory / run_directory.CHECKPOINTS
    numbers = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    if not numbers:
        return None
    newest = max(numbers)
    known = summary.get("transitions") == newest  # the summary is written shortly after the checkpoint
    age = now - (folder / str(newest)).stat().st_mtime
    return {
        "transitions": newest,
        "step": summary.get("steps") if known else None,
        "t": summary.get("t") if known else None,
        "age_seconds": max(age, 0.0),
    }
