"""Decide whether the job of a run that stopped early is queued again:  python -m nivp_dist.batch.requeue DIR --cap N

Exit status 0: yes, and the run directory records it. 1: no, and one line says why. If a process was lost (--lost), it
prints the hosts that the job is to run without, if that is not what Slurm knows already. With --outcome it prints the
exit code of the run instead, with --withdraw it records that the scheduler did not queue the job, with --queued that a
job that has submitted its script again has got another id. Imports no jax, calls no scheduler.

A job may lose its process 0 before that has written a summary. The summary in the directory is then that of an earlier
job, and says nothing of this one. So the job script takes the sha256 of the summary before it starts the run
(--before), and a summary that is still the same counts as none.
"""

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from nivp_dist.batch import ledger, lost_hosts
from nivp_dist.batch.schedulers import of_script
from nivp_dist.errors import FAILED, FINISHED, PROCESS_LOST, STOPPED_EARLY, InputError, RunFailed
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import Lines, read_lines

REQUEUES = "requeues.jsonl"  # the times that jobs of the run were queued again, one a line
NOTICE = ("SIGUSR1", "SIGUSR2")  # signals that announce a time limit; TERM may come from anybody


def refusal(
    directory: str | Path, cap: int, job: str = "", facts: str = "", lost: bool = False, before: str = ""
) -> str | None:
    """Why the job is not queued again, in one line; None if it is.

    cap: how often it is at most. job: its id, or the name of its script where a job that is queued again gets another
    id; the cap, and the progress since the last time, are counted for each, so that a run that is submitted again
    starts with a new count. facts: what `scontrol -o show job` prints; other schedulers have none. lost: the
    run has not stopped, but a process of it was lost, with its host or by the kernel for want of memory. before: as for
    ``outcome``.

    A damaged summary, which a resume does without, leaves it open why the run has stopped: it counts as lost.
    Raises InputError if the directory holds no run, ValueError if requeues.jsonl is damaged.
    """
    directory = Path(directory)
    summary = run_directory.readable_summary(directory)
    status = None if is_from(before, directory) else summary.get("status")
    lost = lost or (not summary and (directory / run_directory.SUMMARY).exists())
    if lost and status in ("finished", "failed"):
        return f"the run has {status}"
    if status == "event":
        return "a callback has stopped the run"
    if not lost and status != "stopped":
        return f"the run has not stopped with a checkpoint, its status is '{status or 'not started'}'"
    if not run_directory.has_checkpoint(directory):
        return "the run has no checkpoint"
    if (why := _unwanted(NOTICE[0] if lost else summary.get("signal"), _pairs(facts))) is not None:
        return why
    earlier = _of_job(directory, job)
    if len(earlier) >= cap:
        allowed = f"{cap} times are allowed and used up"
        return f"{allowed}; `nivp submit --resume {directory}` counts anew, --requeues allows more"
    if earlier and progress(directory) <= earlier[-1]["transitions"]:
        why = f"the run has not advanced since the last time, t = {summary.get('t') or 0:g}"
        return f"{why}: `nivp submit --resume {directory}` with a longer --time"
    return None


def outcome(directory: str | Path, before: str = "") -> int:
    """The exit code of a run whose process 0, or srun, was killed before it could give it (srun gives 137).

    before: sha256 of the summary when the job started, as `sha256sum` prints it ('' if unknown). A run that has
    finished and is resumed with a later integrator.t_end has the summary of its first end until it writes another.
    """
    if is_from(before, directory):
        return PROCESS_LOST
    codes = {"finished": FINISHED, "event": FINISHED, "stopped": STOPPED_EARLY, "failed": FAILED}
    return codes.get(str(run_directory.readable_summary(directory).get("status")), PROCESS_LOST)


def progress(directory: str | Path) -> int:
    """Transitions of the run (steps, rounds of a fit, outputs) up to its newest checkpoint, 0 without one."""
    folder = Path(directory) / run_directory.CHECKPOINTS
    entries = folder.iterdir() if folder.is_dir() else ()
    return max((int(entry.name) for entry in entries if entry.name.isdigit()), default=0)


def record(directory: str | Path, job: str = "", lost: Sequence[str] = ()) -> dict:
    """Add to requeues.jsonl that the job is queued again. Returns the line. Raises OSError if it cannot be written.

    lost: the hosts on which a process was lost.
    """
    directory = Path(directory)
    summary = run_directory.readable_summary(directory)
    line = {"job": job, "number": len(_of_job(directory, job)) + 1, "time": time.time()}
    line |= {"transitions": progress(directory), "t": summary.get("t") or 0.0, "signal": summary.get("signal")}
    line |= {"lost": list(lost)} if lost else {}
    Lines(directory / REQUEUES).append(line)
    return line


def withdraw(directory: str | Path, job: str = "") -> None:
    """Record that the last line does not hold, because the scheduler did not queue the job. Raises OSError."""
    Lines(Path(directory) / REQUEUES).append({"job": job, "withdrawn": True, "time": time.time()})


def is_from(before: str, directory: str | Path) -> bool:
    """Whether the summary in the directory is still the one with the sha256 `before`."""
    try:
        content = (Path(directory) / run_directory.SUMMARY).read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(content).hexdigest() in before


def _pairs(facts: str) -> dict[str, str]:
    """The words KEY=VALUE of a text."""
    words = (word.partition("=") for word in facts.split())
    return {key: value for key, _, value in words}


def _unwanted(signal: str | None, facts: dict[str, str]) -> str | None:
    """Why the job should not continue, or why Slurm itself continues it; None if it should."""
    state = facts.get("JobState", "RUNNING")
    if facts.get("Reason") == "TimeLimit":
        return None  # the notice was too short, but the checkpoint was written within Slurm's KillWait
    if state != "RUNNING":
        return f"the job is {state}: cancelled, or Slurm itself queues it again"
    if signal in NOTICE or facts.get("PreemptTime", "None") != "None":
        return None
    return f"the run was stopped by {signal}, and not for a time limit or a preemption"


def _exclude_hosts(directory: Path, job: str, facts: str, lost: list[str]) -> None:
    """Print Slurm's list of excluded hosts with those that have lost a process of the job, `lost` of them now."""
    earlier = [host for line in _of_job(directory, job) for host in line.get("lost", [])]
    excluded = _pairs(facts).get("ExcNodeList", "(null)")
    hosts, why = lost_hosts.to_exclude(lost, earlier, excluded)
    if hosts:
        click.echo(hosts)
    if why:
        click.echo(f"nivp: {why}", err=True)


def _of_job(directory: Path, job: str) -> list[dict]:
    return [line for line in standing(read_lines(Path(directory) / REQUEUES)) if line["job"] == job]


def standing(lines: list[dict]) -> list[dict]:
    """Lines of requeues.jsonl without those that were withdrawn, each by a later line of its job."""
    kept: list[dict] = []
    for line in lines:
        if line.get("withdrawn"):
            last = max((n for n, entry in enumerate(kept) if entry["job"] == line["job"]), default=None)
            kept = [entry for n, entry in enumerate(kept) if n != last]
        else:
            kept.append(line)
    return kept


@click.command()
@click.argument("directory")
@click.option("--cap", type=click.IntRange(0), default=0, help="How often the job is queued again at most.")
@click.option("--job", default="", help="Id of the job.")
@click.option("--facts", default="", help="Output of `scontrol -o show job`.")
@click.option("--lost", is_flag=True, help="The run has not stopped: a process of it was lost.")
@click.option("--before", default="", help="The sha256 of the summary when the job started.")
@click.option("--outcome", "wants_outcome", is_flag=True, help="Print the exit code of the run, and do nothing else.")
@click.option("--withdraw", "withdraws", is_flag=True, help="Record that the scheduler did not queue the job again.")
@click.option("--by", default="Slurm", help="The scheduler, for --withdraw.")
@click.option("--queued", metavar="TEXT", help="Record that the script is queued again; what its submission said.")
@click.option("--script", default="", help="The script, for --queued.")
def main(directory, cap, job, facts, lost, before, wants_outcome, withdraws, by, queued, script):
    """Decide whether the job of the run in DIR is queued again, and record it."""
    if wants_outcome:
        click.echo(outcome(directory, before))
        return 0
    if withdraws:
        withdraw(directory, job)
        click.echo(f"nivp: not queued again: {by} refused four times", err=True)
        return 0
    if queued is not None:
        path = Path(script)
        ledger.record(of_script(path).id_of(queued) or queued, path, None)
        return 0
    why = refusal(directory, cap, job, facts, lost, before)
    if why is not None:
        click.echo(f"nivp: not queued again: {why}", err=True)
        return 1
    hosts = lost_hosts.find(Path(directory)) if lost else []
    if lost:
        _exclude_hosts(Path(directory), job, facts, hosts)
    line = record(directory, job, hosts)
    click.echo(f"nivp: queued again at t = {line['t']:g}, time {line['number']} of {cap}", err=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(standalone_mode=False))
    except (InputError, RunFailed, click.ClickException, ValueError, OSError) as error:
        sys.stderr.write(f"nivp: not queued again: {error}\n")
        sys.exit(1)
