"""Python scripts that a launcher has started in several processes: `solve` and `resume` compute in all of them."""

import os
import signal
import sys

import pytest
from process_groups import GONE, local, members
from whole_runs import assert_same, wait_until

# Every process prints what it knows of the finished run. `rest`: what the script does after it.
SCRIPT = """
import sys

from nivp_dist import solve
from nivp_dist.settings.files import read_config

{before}
config = read_config("modes.toml", {{"devices": "0"}})
run = solve(config, directory=sys.argv[1], resume_if_present=True, quiet=True)
sys.stdout.write(f"{{run.summary['status']}} by {{run.summary['processes']}}\\n")
{after}
"""


@pytest.fixture
def script(processes):
    """A function that writes a script and gives (the words that start it in two processes, its run)."""

    def script(before="", after=""):
        path = processes.folder / "script.py"
        path.write_text(SCRIPT.format(before=before, after=after))
        return [*local(2), "--", sys.executable, str(path)], processes.Ran(processes.new())

    return script


def test_a_script_in_two_processes_is_one_run_and_goes_on_after_a_stop(processes, script, undisturbed):
    """The bits are those of `nivp run`, although a signal to the second process stops the first start of the script."""
    words, ran = script()
    process = processes.launch(words, ran.directory)
    wait_until(lambda: len(ran.metrics) >= 4, process)
    os.kill(members(ran.directory)[1], signal.SIGUSR2)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75 and "finished" not in out, err
    assert err.splitlines()[-1].endswith(f"to go on: nivp resume {ran.directory}")

    process = processes.launch(words, ran.directory)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("finished by 2\n") == 2 and "Traceback" not in err
    assert_same(ran, undisturbed)


def test_an_exception_of_one_process_ends_the_script_with_its_cause(processes, script):
    """It comes after the run, where the other process waits in the end of its script."""
    words, ran = script(after="import jax\nif jax.process_index() == 1:\n    raise LookupError('not in the table')")
    _, err = processes.finish(words, ran.directory, code=1)
    assert "in <module>" in err and "LookupError: not in the table" in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("nivp: process 1 on ") and ran.summary["status"] == "finished"


def test_jax_that_has_started_alone_is_refused(processes, script):
    words, ran = script(before="import jax.numpy\njax.numpy.zeros(1)")
    seconds, err = processes.finish(words, ran.directory, code=1)
    assert "jax was used before the run" in err and not ran.directory.exists() and seconds < 60 + GONE
