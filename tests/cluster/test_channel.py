"""Messages between real processes, over MPI and over JAX's coordination service, by the same script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_groups import mpirun, require_mpi
from whole_runs import local_launcher

import nivp_dist
from nivp_dist.cluster import channel

ROOT = Path(nivp_dist.__file__).resolve().parent.parent

SCRIPT = """
import sys
from nivp_dist.cluster import channel, session
from nivp_dist.settings.model import ClusterSettings

here = session.connect(ClusterSettings(control=sys.argv[1]))
messages = channel.current()
results = [type(messages).__name__, messages.processes]
got = [messages.broadcast({"value": [messages.index, i]}) for i in range(200)]
results.append(got == [{"value": [0, i]} for i in range(200)])
results.append(messages.gather("abc"[messages.index]))
results.append([messages.gather(messages.index + i) for i in range(20)] == [[i, i + 1, i + 2] for i in range(20)])
if isinstance(messages, channel.CoordinationChannel):
    messages.gather(None)
    results.append(len(messages._client.key_value_dir_get_bytes("nivp/")) < 70)  # old keys are deleted
if messages.index == 1:
    print(results)
here.leave(0)
"""


def run_script(tmp_path, words, text, *arguments):
    require_mpi(words)
    script = tmp_path / "script.py"
    script.write_text(text)
    return subprocess.run(
        [*words, sys.executable, str(script), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def launch(tmp_path, words, control):
    done = run_script(tmp_path, words, SCRIPT, control)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("[") and "Gloo" not in line]


def test_one_process_gets_its_own_values():
    messages = channel.SingleProcess()
    assert messages.broadcast("x") == "x" and messages.gather(3) == [3]


def test_messages_over_mpi(tmp_path):
    assert launch(tmp_path, mpirun(3, []), "auto") == ["['MpiChannel', 3, True, ['a', 'b', 'c'], True]"]


@pytest.mark.parametrize(
    "words, control",
    [([sys.executable, str(local_launcher()), "3", "--"], "auto"), (mpirun(3, []), "coordination")],
    ids=["local", "mpirun"],
)
def test_messages_over_the_coordination_service(tmp_path, words, control):
    """Under mpirun too, if the settings ask for it: MPI then serves only to agree on the place of the meeting."""
    assert launch(tmp_path, words, control) == ["['CoordinationChannel', 3, True, ['a', 'b', 'c'], True, True]"]


def test_mpi_that_the_settings_ask_for_and_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(AssertionError, match="mpi4py sees 1"):
        launch(tmp_path, [sys.executable, str(local_launcher()), "2", "--"], "mpi")


ENDLESS = """
import os, sys, time
from nivp_dist.cluster import channel, session
from nivp_dist.settings.model import ClusterSettings

channel.FINALIZE_SECONDS = 1.0
here = session.connect(ClusterSettings())
if here.topology.index == 1:
    import jax

    jax.distributed.shutdown()
    here.group.leave()
    here.group.met.peers[0].connection.close()
    time.sleep(60)  # it does not end MPI, which the other process waits for
sys.exit(here.leave(75, "the last line"))
"""


def test_the_end_of_a_run_does_not_wait_for_mpi_without_limit(tmp_path):
    """As it would where mpirun hangs, or a process is gone. The exit code and the last line are those of the run."""
    done = run_script(tmp_path, mpirun(2, []), ENDLESS)
    assert done.returncode == 75 and done.stderr.splitlines()[-1] == "nivp: the last line"
    assert "most recent call" not in done.stderr


@pytest.mark.parametrize(
    "error, consequence",
    [
        (channel.ChannelError("gone"), True),
        (type("XlaRuntimeError", (RuntimeError,), {})("UNKNOWN: Gloo all-reduce failed"), True),
        (type("JaxRuntimeError", (RuntimeError,), {})("RESOURCE_EXHAUSTED: out of memory"), False),
        (ValueError("x"), False),
    ],
)
def test_which_errors_may_be_the_consequence_of_another_failure(error, consequence):
    assert channel.may_be_consequence(error) is consequence
