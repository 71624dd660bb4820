"""Native code that aborts: the other threads get time to report a cause, and then the process dies of the abort."""

import subprocess
import sys
import time

import pytest

from nivp_dist.cluster.aborts import DELAY

PROGRAM = """
import ctypes, faulthandler, os, sys, threading, time
from nivp_dist.cluster import aborts
if "delayed" in sys.argv:
    aborts.delay_aborts()
if "stacks" in sys.argv:
    faulthandler.enable()
threading.Thread(target=ctypes.CDLL(None).abort, daemon=True).start()
time.sleep(1)
print("the cause", flush=True)
if "leaves" in sys.argv:
    os._exit(3)
time.sleep(60)
"""


def run(*options):
    """(exit code, whether the cause was printed, whether stacks were, seconds)"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *options], capture_output=True, text=True, timeout=50)
    return (
        done.returncode,
        "the cause" in done.stdout,
        "most recent call first" in done.stderr,
        time.monotonic() - started,
    )


@pytest.mark.parametrize("options", [(), ("stacks",)])
def test_without_the_delay_no_cause_is_reported(options):
    assert run(*options)[:3] == (-6, False, bool(options))


@pytest.mark.parametrize("options", [(), ("stacks",)])
def test_during_the_delay_other_threads_go_on_and_can_end_the_process(options):
    assert run("delayed", "leaves", *options)[:3] == (3, True, bool(options))


def test_after_the_delay_the_process_dies_of_the_abort():
    code, cause, _, seconds = run("delayed", "stacks")
    assert code == -6 and cause and seconds > DELAY - 1
