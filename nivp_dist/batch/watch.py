"""End an srun that outlives its run:  python -m nivp_dist.batch.watch DIR --pid PID

A job script waits for srun, and srun for a node that was lost and came back, or for a task manager that was killed. It
would wait until the allocation ends, long after the run itself has. This program runs beside srun and kills it when the
run's heartbeat has stopped. It does the same for the launchers of other schedulers. Imports no jax, calls no scheduler.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

import click

from nivp_dist.storage import heartbeat

GRACE = 300.0  # seconds without a beat, of which there are four a minute; a slow disk may delay some


def outlived(beat: Callable[[], object], alive: Callable[[], bool], grace: float, sleep=time.sleep) -> bool:
    """Wait until srun has ended (False), or has outlived its run by the grace (True).

    beat: what the run has last written as its heartbeat; alive: whether srun lives. The time is counted in intervals
    that this program has slept, and not read from a clock: in a job that Slurm has suspended, nothing is late.
    """
    interval, silent = min(heartbeat.EVERY, grace / 4), 0.0
    last, started = beat(), False
    while silent < grace:
        sleep(interval)
        if not alive():
            return False
        now = beat()
        started, silent = started or now != last, 0.0 if now != last or not started else silent + interval
        last = now
    return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@click.command()
@click.argument("directory")
@click.option("--pid", type=int, required=True, help="The process id of srun.")
@click.option("--grace", type=click.FloatRange(min=0, min_open=True), default=GRACE, help="Seconds without a beat.")
@click.option("--launcher", default="srun", help="Its name.")
def main(directory, pid, grace, launcher):
    """Kill srun, or another launcher, when the run in DIR has ended and it has not."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # they are for the run; the job script ends this
        signal.signal(number, signal.SIG_IGN)
    if outlived(lambda: heartbeat.read(directory), lambda: _exists(pid), grace):
        sys.stderr.write(f"nivp: {launcher} is ended: it has outlived its run by {grace:g} s\n")
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
