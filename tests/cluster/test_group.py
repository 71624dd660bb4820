"""Real processes on real sockets, without jax: how a group meets, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nivp_dist

ROOT = Path(nivp_dist.__file__).resolve().parent.parent
SECONDS = 5.0  # within which a group must be gone

MEMBER = """
import json, os, sys, time
from nivp_dist.cluster import group as module
from nivp_dist.cluster.group import Group
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.cluster.watchdog import Watchdog
from nivp_dist.errors import InputError, RunFailed

index, processes, role, ports, token, startup, silence = json.loads(sys.argv[1])
module.SILENCE, module.BEAT = silence, silence / 10
try:
    group = Group(Topology(processes, index, "test"), Meeting("localhost", tuple(ports), token), startup)
except (InputError, RunFailed) as error:
    sys.stderr.write(f"nivp: {error}\\n")
    sys.exit(2)
print("met", group.port, flush=True)
"""


@pytest.fixture
def ports():
    found = []
    for _ in range(4):
        with socket.socket() as probe:
            probe.bind(("", 0))
            found.append(probe.getsockname()[1])
    return found


class Members:
    def __init__(self, ports):
        self.ports, self.started = ports, []

    def start(self, index, processes, body="time.sleep(60)", token="one", startup=20.0, silence=30.0, ports=None):
        arguments = json.dumps([index, processes, "", ports or self.ports, token, startup, silence])
        process = subprocess.Popen(
            [sys.executable, "-c", MEMBER + body, arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def group(self, *bodies, **keywords):
        members = [self.start(i, len(bodies), body, **keywords) for i, body in enumerate(bodies)]
        words = [member.stdout.readline().split() for member in members]
        assert [word[0] for word in words] == ["met"] * len(members)
        assert len({word[1] for word in words}) == 1  # one port of the coordinator, known to all
        return members

    def stop(self):
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def members(ports):
    members = Members(ports)
    yield members
    members.stop()


def ends(members, seconds=SECONDS):
    """[(exit code, stderr)] of processes that must all end soon."""
    deadline = time.monotonic() + seconds
    results = []
    for member in members:
        _, err = member.communicate(timeout=max(0.1, deadline - time.monotonic()))
        results.append((member.returncode, err))
    return results


WAIT = "time.sleep(60)"


def test_an_orderly_end_leaves_the_exit_code_to_process_0(members):
    late = "group.leave(); time.sleep(0.2)"
    results = ends(members.group("group.leave(); sys.exit(75)", late, late))
    assert results == [(75, ""), (0, ""), (0, "")]


@pytest.mark.parametrize("victim", [1, 2])
def test_a_killed_process_ends_the_group_and_is_named(members, victim):
    group = members.group(WAIT, WAIT, WAIT)
    os.kill(group[victim].pid, signal.SIGKILL)
    results = ends(group)
    assert results[victim][0] == -signal.SIGKILL
    assert results[0] == (1, f"nivp: process {victim} on {socket.gethostname()} was killed\n")
    assert results[3 - victim] == (1, "")


def test_a_killed_process_0_ends_the_group_too(members):
    group = members.group(WAIT, WAIT, WAIT)
    os.kill(group[0].pid, signal.SIGKILL)
    results = ends(group)
    assert results[1] == (1, "nivp: process 0 on localhost was killed\n") and results[2] == (1, "")


def test_a_host_without_a_sign_of_life_is_given_up(members):
    group = members.group(WAIT, WAIT, WAIT, silence=1.0)
    os.kill(group[2].pid, signal.SIGSTOP)
    results = ends(group[:2])
    assert results[0] == (1, f"nivp: process 2 on {socket.gethostname()}: no sign of life for 1 s\n")


@pytest.mark.parametrize("culprit", [0, 2])
def test_the_cause_is_that_of_the_first_that_failed(members, culprit):
    bodies = ["time.sleep(0.1); group.fail('Gloo: connection reset by peer', 1, echo=True)"] * 3
    bodies[culprit] = "time.sleep(0.3); group.fail('no such file: x.toml', 2)"
    results = ends(members.group(*bodies))
    who = "" if culprit == 0 else f"process {culprit} on {socket.gethostname()}: "
    assert results == [(2, f"nivp: {who}no such file: x.toml\n"), (2, ""), (2, "")]


def test_the_same_mistake_of_all_is_said_once_and_plainly(members):
    body = "time.sleep(0.1 * (3 - index)); group.fail('x.toml: unknown key', 2)"
    assert ends(members.group(body, body, body)) == [(2, "nivp: x.toml: unknown key\n"), (2, ""), (2, "")]


def test_a_signal_to_any_process_reaches_process_0(members):
    hear = "heard = []; group.on_signal = heard.append\nwhile not heard: time.sleep(0.01)\ngroup.fail(heard[0], 1)"
    group = members.group(hear, WAIT, "time.sleep(0.3); group.signal = 'SIGUSR1'; time.sleep(60)")
    assert ends(group)[0] == (1, "nivp: SIGUSR1\n")


STUCK = """
watch = Watchdog(group, 2.0)
for command in range(1000):
    watch.command(f"command {command}")
    time.sleep(60 if (index == 2 and command == 3) or command == 4 else 0.1)
"""


def test_a_stuck_process_is_named_and_its_stack_shown(members):
    results = ends(members.group(STUCK, STUCK, STUCK), seconds=15)
    host = socket.gethostname()
    assert [code for code, _ in results] == [1, 1, 1]
    last = results[0][1].splitlines()[-1]
    assert last.startswith(f"nivp: process 2 on {host} stuck in 'command 3' while the others wait in 'command 4'")
    assert "<module>" in results[2][1] and "most recent call first" in results[2][1]


MUTE = """
import threading
watch = Watchdog(group, 1.0)
log, _ = os.pipe()[::-1]
os.write(log, b"x" * 65536)  # full: whoever writes more waits for ever
watch.log = open(log, "w", buffering=1)
group.on_end = watch.log.write
threading.Thread(target=sys.stdout.write, args=("x" * 10**6,)).start()  # holds the lock of standard output
time.sleep(60)
"""


def test_a_log_and_an_output_that_hang_keep_nobody_from_ending(members):
    """As on a file system whose server is gone: that is what processes get stuck in."""
    results = ends(members.group(MUTE, MUTE, WAIT), seconds=20)
    assert [code for code, _ in results] == [1, 1, 1]
    assert results[0][1].startswith("nivp: all processes are stuck in 'start' for more than 1 s: ")


def test_a_group_that_is_suspended_goes_on(members):
    """By its scheduler, all of it, for longer than anybody may be silent or over one command."""
    body = "watch = Watchdog(group, 1.5)\nfor i in range(20): watch.command('x'); time.sleep(0.1)\ngroup.leave()"
    group = members.group(body, body, body, silence=1.0)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for member in group:
            os.kill(member.pid, number)
        time.sleep(3.0 if number == signal.SIGSTOP else 0)
    assert ends(group, seconds=15) == [(0, "")] * 3


def test_a_process_that_does_not_come(members):
    (code, err), (_, other) = ends([members.start(0, 3, startup=1.0), members.start(1, 3, startup=1.0)], 10)
    assert code == 2 and "processes 2 of 3 did not come to" in err
    assert "no process 0 at localhost" in other or other == ""


def test_no_process_0(members):
    ((code, err),) = ends([members.start(1, 2, startup=1.0)], 10)
    assert code == 2 and "no process 0 at localhost" in err and "within 1 s" in err


def test_a_host_without_an_address(members):
    body = MEMBER.replace('"localhost"', '"no-such-host.invalid"')
    arguments = json.dumps([1, 2, "", members.ports, "one", 1.0, 30.0])
    done = subprocess.run(
        [sys.executable, "-c", body, arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no-such-host.invalid, has no address here" in done.stderr


def test_two_groups_on_the_same_ports_do_not_mix(members):
    """Two steps of one job that start together, one of them on a port that is taken already."""
    with socket.create_server(("", members.ports[0])):
        first = [members.start(i, 2, "group.leave()", token="first") for i in range(2)]
        second = [members.start(i, 2, "group.leave()", token="second") for i in range(2)]
        said = [process.communicate(timeout=30)[0].split() for process in [*first, *second]]
    assert said[0] == said[1] and said[2] == said[3] and said[0] != said[2]


def test_a_wrong_count_is_refused(members):
    group = [members.start(0, 2, startup=2.0), members.start(1, 3, startup=2.0)]
    results = ends(group, 10)
    assert results[1][0] == 2 and "it counts 3 processes, process 0 counts 2" in results[1][1]
