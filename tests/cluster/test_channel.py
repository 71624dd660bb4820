"""Messages between real processes: over MPI and over JAX's coordination service, by the same script."""

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
line = channel.current()
said = [type(line).__name__, line.processes]
said.append([line.broadcast({"value": (line.index, i)}) == {"value": (0, i)} for i in range(200)] == [True] * 200)
said.append(line.gather("abc"[line.index]))
said.append([line.gather(line.index + i) for i in range(20)] == [[i, i + 1, i + 2] for i in range(20)])
if isinstance(line, channel.OverCoordination):
    line.gather(None)
    said.append(len(line._client.key_value_dir_get_bytes("nivp/")) < 70)
if line.index == 1:
    print(said)
here.leave(0)
"""


def launched(tmp_path, words, control):
    require_mpi(words)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [*words, sys.executable, str(script), control],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("[") and "Gloo" not in line]


def test_alone():
    line = channel.Alone()
    assert line.broadcast("x") == "x" and line.gather(3) == [3]


def test_over_mpi(tmp_path):
    assert launched(tmp_path, mpirun(3, []), "auto") == ["['OverMpi', 3, True, ['a', 'b', 'c'], True]"]


@pytest.mark.parametrize(
    "words, control",
    [([sys.executable, str(local_launcher()), "3", "--"], "auto"), (mpirun(3, []), "coordination")],
    ids=["local", "mpirun"],
)
def test_over_the_coordination_service(tmp_path, words, control):
    """Under mpirun too, if that is asked for: MPI then tells where to meet, and no more."""
    assert launched(tmp_path, words, control) == ["['OverCoordination', 3, True, ['a', 'b', 'c'], True, True]"]


def test_mpi_that_is_asked_for_and_not_there(tmp_path):
    with pytest.raises(AssertionError, match="mpi4py sees 1"):
        launched(tmp_path, [sys.executable, str(local_launcher()), "2", "--"], "mpi")


@pytest.mark.parametrize(
    "error, echo",
    [
        (channel.ChannelError("gone"), True),
        (type("XlaRuntimeError", (RuntimeError,), {})("UNKNOWN: Gloo all-reduce failed"), True),
        (type("JaxRuntimeError", (RuntimeError,), {})("RESOURCE_EXHAUSTED: out of memory"), False),
        (ValueError("x"), False),
    ],
)
def test_what_may_be_the_echo_of_another_failure(error, echo):
    assert channel.is_echo(error) is echo
