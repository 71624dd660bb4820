"""Decide whether a job of a chain has something to do:  python -m nivp_dist.batch.chain DIR --chain NAME --job ID

The jobs of a chain run one after the other, each when the one before has ended in whatever way: where a site does not
allow a job to be queued again, they take its place. All have the same script, whose name is that of the chain.

Exit status 0: yes, and the run directory records it. 3: no, the run has come to its end. 1: no, it has failed, or two
jobs of the chain in a row have not advanced it, and one line says so. Imports no jax, calls no scheduler.
"""

import hashlib
import sys
import time
from pathlib import Path

import click

from nivp_dist.batch.requeue import is_from, progress
from nivp_dist.errors import InputError
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import Lines, read_lines

CHAIN = "chain.jsonl"  # the jobs of chains that have begun, one a line
GOES_ON, CANNOT, NOTHING_LEFT = 0, 1, 3


def decide(directory: Path, chain: str) -> tuple[int, str]:
    """GOES_ON, CANNOT or NOTHING_LEFT for the next job of a chain, and why, in words ('' if it goes on).

    The first job of a chain always goes on: the summary of the run is from before, and may be that of an end that the
    chain continues. So may it be for the others, if it has not changed since.

    Raises InputError if the directory holds no run, ValueError if chain.jsonl is damaged.
    """
    summary = run_directory.readable_summary(directory)
    begun = [line for line in read_lines(directory / CHAIN) if line["chain"] == chain]
    if not begun:
        return GOES_ON, ""
    status = None if is_from(begun[0]["before"], directory) else summary.get("status")
    if status == "finished":
        return NOTHING_LEFT, "the run has finished"
    if status == "event":
        return NOTHING_LEFT, "a callback has stopped the run"
    if status == "failed":
        return CANNOT, "the run has failed"
    if len(begun) > 1 and progress(directory) <= begun[-2]["transitions"]:
        why = f"two jobs of the chain have not advanced the run, t = {summary.get('t') or 0:g}"
        return CANNOT, f"{why}: `nivp submit --resume {directory}` with a longer --time"
    return GOES_ON, ""


def record(directory: Path, chain: str, job: str) -> None:
    """Add to chain.jsonl that a job of the chain begins. Raises OSError if it cannot be written."""
    path = directory / run_directory.SUMMARY
    before = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
    line = {"chain": chain, "job": job, "time": time.time(), "transitions": progress(directory), "before": before}
    Lines(directory / CHAIN).append(line)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--chain", required=True, help="The name of the chain, which is that of its script.")
@click.option("--job", default="", help="Id of this job.")
def main(directory, chain, job):
    """Decide whether a job of a chain has something to do for the run in DIRECTORY, and record it."""
    code, why = decide(directory, chain)
    if code != GOES_ON:
        click.echo(f"nivp: nothing to do for job {job}: {why}", err=True)
        return code
    record(directory, chain, job)
    return GOES_ON


if __name__ == "__main__":
    try:
        sys.exit(main(standalone_mode=False))
    except (InputError, click.ClickException, ValueError, OSError) as error:
        sys.stderr.write(f"nivp: the chain ends: {error}\n")
        sys.exit(CANNOT)
