"""Native code that aborts leaves the other threads time for a last word, and the process dies of it all the same."""

import subprocess
import sys
import time

import pytest

from nivp_dist.cluster.aborts import SECONDS

PROGRAM = """
import ctypes, faulthandler, os, sys, threading, time
from nivp_dist.cluster import aborts
if "held" in sys.argv:
    aborts.hold_up()
if "stacks" in sys.argv:
    faulthandler.enable()
threading.Thread(target=ctypes.CDLL(None).abort, daemon=True).start()
time.sleep(1)
print("a last word", flush=True)
if "leaves" in sys.argv:
    os._exit(3)
time.sleep(60)
"""


def ended(*how):
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *how], capture_output=True, text=True, timeout=50)
    return done.returncode, "a last word" in done.stdout, "most recent call first" in done.stderr, started


@pytest.mark.parametrize("how", [(), ("stacks",)])
def test_without_it_there_is_no_last_word(how):
    code, word, stacks, _ = ended(*how)
    assert code == -6 and not word and stacks == bool(how)


@pytest.mark.parametrize("how", [(), ("stacks",)])
def test_held_up_the_others_go_on_and_may_leave(how):
    assert ended("held", "leaves", *how)[:3] == (3, True, bool(how))


def test_in_the_end_the_process_dies_of_it():
    code, word, _, started = ended("held", "stacks")
    assert code == -6 and word and time.monotonic() - started > SECONDS - 1
