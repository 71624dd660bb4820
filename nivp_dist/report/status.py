"""Where a run stands, from its directory alone: what `nivp status` shows. Imports no jax, and writes nothing."""

import json
import time
from pathlib import Path
from typing import Callable, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nivp_dist.batch.jobs import JOBS
from nivp_dist.batch.requeue import REQUEUES
from nivp_dist.errors import InputError
from nivp_dist.formatting import count, duration, number, scientific
from nivp_dist.report.rate import WINDOW_SAMPLES, settled_rate
from nivp_dist.report.tables import has_errors
from nivp_dist.storage import heartbeat, run_directory
from nivp_dist.storage.lock import LOCK, in_use
from nivp_dist.storage.metrics import EVENTS, METRICS, plain, read_tail

RECENT = 600.0  # seconds of wall time over which the rate is taken, and at least some steps
ALL = 1 << 26  # bytes of events.jsonl looked at: resumes are counted
SHOWN = 3  # of the last events, and of the last warnings
ENDED = ("finished", "stopped", "failed", "interrupted")


def look(directory: str | Path) -> dict:
    """All there is to say, ready for JSON. Raises InputError if the directory holds no run, or cannot be read."""
    directory = Path(directory)
    try:
        return plain(_look(directory, time.time()))
    except OSError as error:
        raise InputError(f"{directory}: cannot be read: {error.strerror}; check its file system") from None


def text(directory: str | Path, as_json: bool = False) -> str:
    """What ``look`` finds, for a reader or as JSON, with the command that goes on from there."""
    facts = look(directory)
    if as_json:
        return json.dumps(facts, indent=2)
    go_on = facts["status"] in ("interrupted", "stopped", "failed") and facts["checkpoint"]
    return "\n".join(lines(facts) + ([f"to go on: nivp resume {directory}"] if go_on else []))


def lines(facts: dict) -> list[str]:
    """The facts of ``look`` as aligned plain text, one line a fact."""
    summary, last = facts["summary"], facts["last_step"]
    rows = [("status", facts["status"] + (f": {summary['message']}" if summary.get("message") else ""))]

    def add(name: str, value, form: Callable = number):
        if value is not None:
            rows.append((name, form(value)))

    if facts["status"] in ("starting", "running", "interrupted") and (beat := facts["heartbeat"]):
        rows.append(("where", f"{beat['holder']}, heard of {_ago(beat)}"))
    add("problem", summary.get("problem"))
    if facts["status"] != "finished":
        add("phase", summary.get("phase"))
    add("t", facts["t"], lambda t: f"{number(t)} of {number(summary.get('t_end'))}")
    add("rate", facts["rate_per_hour"], lambda rate: f"{number(rate)} per hour")
    add("left", facts["seconds_left"], lambda left: f"{duration(left)}, until {_clock(facts['ends_at'])}")
    add("checkpoint", facts["checkpoint"], _checkpoint)
    if summary:
        rows.append(("restarts", f"{count(facts['resumes'], 'resume')}, {count(facts['refits'], 'refit')}"))
    again = f", queued again {count(facts['requeues'], 'time')}" if facts["requeues"] else ""
    add("Slurm job", facts["job"], lambda job: f"{job}{again}")
    add("step size h", last.get("h"))
    add("residual", last.get("residual"), scientific)
    add("residual, fresh points", last.get("residual_fresh"), scientific)
    add("CG iterations, last step", last.get("cg_iterations"))
    add("accepted steps", last.get("step", summary.get("steps")))
    for name in ("rejected steps", "parameters", "points", "devices", "processes"):
        add(name, summary.get(name.split()[0]))
    add("wall time", last.get("wall_seconds", summary.get("wall_seconds")), duration)
    for entry in summary.get("errors") or []:
        known, estimated = entry.get("relative_l2"), entry.get("estimate")
        if known is not None:
            more = f", estimated {scientific(estimated)}" if estimated is not None else ""
            rows.append((f"error at t = {number(entry['t'])}", scientific(known) + more))
    if summary.get("errors") and not has_errors(summary):
        add("estimated error", last.get("estimate"), scientific)
    rows += [_event(event) for event in facts["events"]]
    rows += [_event(event) for event in facts["warnings"] if event not in facts["events"]]
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {text}" for name, text in rows]


def watch(directory: str | Path, stream: TextIO, every: float = 2.0, as_json: bool = False, sleep=time.sleep) -> None:
    """Follow a run until it ends, or until Ctrl-C: a live screen on a terminal, else a line for every change.

    Raises InputError as ``look``.
    """
    try:
        if stream.isatty() and not as_json:
            _watch_live(directory, Console(file=stream, highlight=False), every, sleep)
        else:
            _watch_plain(directory, stream, every, as_json, sleep)
    except KeyboardInterrupt:
        pass


# ---------------------------------------------------------------------------------------------- facts


def _look(directory: Path, now: float) -> dict:
    summary = run_directory.read_summary(directory) or {}
    steps, events = read_tail(directory / METRICS), read_tail(directory / EVENTS, ALL)
    beat, jobs = heartbeat.read(directory), read_tail(directory / JOBS)
    last = steps[-1] if steps else {}
    job = beat.job if beat is not None and beat.job else jobs[-1].get("job") if jobs else None
    status = _status(directory, summary, bool(jobs))
    rate, settled = _rate(steps)
    t, t_end = last.get("t", summary.get("t")), summary.get("t_end")
    left = ends_at = None
    if status == "running" and settled and t is not None and t_end is not None:
        reached = (directory / METRICS).stat().st_mtime
        ends_at = max(now, reached + max(t_end - t, 0.0) / rate)
        left = ends_at - now
    return {
        "status": status,
        "summary": summary,
        "last_step": last,
        "t": t,
        "rate_per_hour": None if rate is None else 3600 * rate,
        "seconds_left": left,
        "ends_at": ends_at,
        "checkpoint": _newest(directory, summary, now),
        "resumes": sum(event.get("kind") == "resume" for event in events),
        "refits": summary.get("refits", 0),
        "job": job,
        "requeues": len(read_tail(directory / REQUEUES)),
        "heartbeat": None if beat is None else beat._asdict() | {"holder": str(beat), "age_seconds": beat.age},
        "events": events[-SHOWN:],
        "warnings": [event for event in events if event.get("kind") in ("warning", "fail")][-SHOWN:],
    }


def _status(directory: Path, summary: dict, queued: bool) -> str:
    status, held = summary.get("status"), in_use(directory)
    if status is None:
        return "starting" if held else "queued" if queued else "not started"
    if status == "running":
        return "running" if held else "interrupted"
    lock, written = directory / LOCK, directory / run_directory.SUMMARY
    # Taken by another process after the end of the last one, and not by that one until it is gone.
    resumed = held and status != "finished" and lock.exists() and lock.stat().st_mtime > written.stat().st_mtime
    return "starting" if resumed else status


def _rate(steps: list[dict]) -> tuple[float | None, bool]:
    """Advance of t a second over the recent steps, and whether it is one to foretell with."""
    samples = [(step["wall_seconds"], step["t"]) for step in steps if step.get("wall_seconds") is not None]
    recent = [sample for sample in samples if samples[-1][0] - sample[0] <= RECENT]
    recent = recent if len(recent) >= WINDOW_SAMPLES else samples[-WINDOW_SAMPLES:]
    if len(recent) < WINDOW_SAMPLES or recent[-1][0] <= recent[0][0]:
        return None, False
    mean = (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])
    return mean, mean > 0 and settled_rate(recent) is not None


def _newest(directory: Path, summary: dict, now: float) -> dict | None:
    folder = directory / run_directory.CHECKPOINTS
    found = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []
    if not found:
        return None
    transitions = max(found)
    known = summary.get("transitions") == transitions  # the summary is written right after
    age = now - (folder / str(transitions)).stat().st_mtime
    return {
        "transitions": transitions,
        "step": summary.get("steps") if known else None,
        "t": summary.get("t") if known else None,
        "age_seconds": max(age, 0.0),
    }


# ---------------------------------------------------------------------------------------------- text


def _ago(facts: dict) -> str:
    return f"{duration(max(facts['age_seconds'], 0.0))} ago"


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _checkpoint(checkpoint: dict) -> str:
    where = ""
    if checkpoint["step"] is not None:
        where = f" (step {checkpoint['step']}, t = {number(checkpoint['t'])})"
    return f"number {checkpoint['transitions']}{where}, {_ago(checkpoint)}"


def _event(event: dict) -> tuple[str, str]:
    place = f"step {event['step']}: " if event.get("step") is not None else ""
    return str(event.get("kind", "event")), f"{place}{event.get('message', '')}"


def _one_line(facts: dict) -> str:
    summary, last = facts["summary"], facts["last_step"]
    parts = [facts["status"]] + ([summary["phase"]] if facts["status"] == "running" else [])
    if facts["t"] is not None:
        parts.append(f"t {number(facts['t'])} of {number(summary.get('t_end'))}")
    parts += [f"step {last['step']}"] if "step" in last else []
    parts += [f"{number(facts['rate_per_hour'])} per hour"] if facts["rate_per_hour"] is not None else []
    parts += [f"until {_clock(facts['ends_at'])}"] if facts["ends_at"] is not None else []
    parts += [f"checkpoint {facts['checkpoint']['transitions']}"] if facts["checkpoint"] else []
    return "  ".join(parts)


# ---------------------------------------------------------------------------------------------- following


def _watch_live(directory, console: Console, every: float, sleep) -> None:
    facts = look(directory)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text("\n".join(lines(facts)), no_wrap=True, overflow="ellipsis"), refresh=True)
            if facts["status"] in ENDED:
                break
            sleep(every)
            facts = look(directory)
    console.print(Text("\n".join(lines(facts))), soft_wrap=True)


def _watch_plain(directory, stream: TextIO, every: float, as_json: bool, sleep) -> None:
    said, events = None, []
    while True:
        facts = look(directory)
        line = _one_line(facts)
        new = [event for event in facts["events"] if event not in events]
        if line != said or new:
            if as_json:
                stream.write(json.dumps(facts) + "\n")
            else:
                rows = [": ".join(_event(event)) for event in new] + [line]
                stream.write("".join(f"{time.strftime('%H:%M:%S')} {row}\n" for row in rows))
            stream.flush()
        said, events = line, facts["events"]
        if facts["status"] in ENDED:
            return
        sleep(every)
