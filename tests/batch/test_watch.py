"""The program that ends an srun which outlives its run, on made-up heartbeats and in a process of its own."""

import itertools
import json
import signal
import subprocess
import sys
import time

from nivp_dist.batch.watch import outlived
from nivp_dist.storage import heartbeat


def follow(beats, grace=60.0, lives=10**6):
    """(what ``outlived`` says, seconds it has slept) for beats one by one, the last of which stays."""
    slept, left = [], itertools.count()
    beats = iter(beats)
    last = None

    def beat():
        nonlocal last
        last = next(beats, last)
        return last

    return outlived(beat, lambda: next(left) < lives, grace, slept.append), sum(slept)


def test_a_run_whose_heartbeat_stops_is_outlived_after_the_grace():
    ended, slept = follow([0, 1, 2, 3])
    assert ended and slept == 3 * 15.0 + 60.0


def test_the_grace_begins_anew_with_every_beat_and_not_before_the_first():
    """A run that waits for its directory has not ended. A beat of an earlier job is none."""
    pauses = [0] * 500 + [1] + [2, 2, 2, 3, 3, 3, 4, 4, 4] + [5]
    ended, slept = follow(pauses)
    assert ended and slept == (len(pauses) - 1) * 15.0 + 60.0


def test_it_ends_with_srun():
    assert follow([0, 1, 2], lives=2) == (False, 45.0)


def test_srun_is_killed_and_a_line_says_so(tmp_path):
    """Signals that are for the run do not end the program."""
    srun = subprocess.Popen(["sleep", "60"])
    command = [sys.executable, "-m", "nivp_dist.batch.watch", str(tmp_path), "--pid", str(srun.pid), "--grace", "0.4"]
    watch = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    for number in itertools.count():
        (tmp_path / heartbeat.FILE).write_text(json.dumps(heartbeat.Beat("h", 1, None, float(number))._asdict()))
        time.sleep(0.2)
        if number == 15:
            break
    watch.send_signal(signal.SIGTERM)
    assert srun.wait(timeout=deadline - time.monotonic()) == -signal.SIGKILL
    assert watch.wait(timeout=10) == 0
    assert watch.stderr.read() == "nivp: srun is ended: it has outlived its run by 0.4 s\n"
