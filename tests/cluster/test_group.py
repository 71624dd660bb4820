"""How a group of processes meets and ends: real processes and sockets, without jax."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from disks import require

import nivp_dist

ROOT = Path(nivp_dist.__file__).resolve().parent.parent
SECONDS = 5.0  # within which all processes of a group must have ended

MEMBER = """
import json, os, sys, time
from nivp_dist.cluster.group import Group
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.cluster.watchdog import Watchdog
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.settings.model import ClusterSettings

index, processes, ports, token, startup, silence = json.loads(sys.argv[1])
settings = ClusterSettings(startup_seconds=startup, silence_seconds=silence)
try:
    meeting = Meeting("localhost", tuple(ports), token)
    group = Group(Topology(processes, index, "test"), meeting, token.encode(), settings)
except (InputError, RunFailed) as error:
    sys.stderr.write(f"nivp: {error}\\n")
    sys.exit(2)
print("met", group.met.coordinator, flush=True)
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

    def start(self, index, processes, body="time.sleep(60)", token="one", startup=20.0, silence=30.0):
        arguments = json.dumps([index, processes, self.ports, token, startup, silence])
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
        lines = [member.stdout.readline().split() for member in members]
        assert [word for word, _ in lines] == ["met"] * len(members)
        assert len({address for _, address in lines}) == 1  # all know the same address of the coordinator
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
    """[(exit code, standard error)] of processes that must all end within so many seconds."""
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
    assert results[0] == (69, f"nivp: process {victim} on {socket.gethostname()} was killed\n")
    assert results[3 - victim] == (69, "")


def test_a_killed_process_0_ends_the_group_too(members):
    group = members.group(WAIT, WAIT, WAIT)
    os.kill(group[0].pid, signal.SIGKILL)
    results = ends(group)
    assert results[1] == (69, "nivp: process 0 on localhost was killed\n") and results[2] == (69, "")


SEND = "time.sleep(1); group.met.peers[2].connection.send({}); time.sleep(60)"
DEAF = """
import ctypes, socket
for peer in group.met.peers.values():
    # A filter of one instruction that drops every packet: this end of the connection acknowledges nothing any more.
    drop = ctypes.create_string_buffer(bytes([6, 0, 0, 0, 0, 0, 0, 0]))
    program = (1).to_bytes(8, "little") + ctypes.addressof(drop).to_bytes(8, "little")
    peer.connection.socket.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
    peer.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)  # it does not close its end either
time.sleep(60)
"""


@pytest.mark.parametrize("first", [WAIT, SEND], ids=["idle", "with data on its way"])
def test_a_host_that_does_not_answer_ends_the_group(members, first):
    """It is found within a second or two of the limit."""
    require(None if sys.platform == "linux" else "the filter of packets is one of Linux")
    results = ends(members.group(first, WAIT, DEAF, silence=2.0)[:2], seconds=4.0 + SECONDS)
    host = socket.gethostname()
    assert results[0] == (69, f"nivp: process 2 on {host}: its host has not answered for 2 s\n")
    assert results[1] == (69, "")


# The least limit on silence that a host with many busy processes keeps: its kernel may answer a second late.
LEAST_SILENCE = 3.0
BUSY = "import ctypes; ctypes.PyDLL(None).sleep({seconds})"  # meanwhile no other thread of the process runs Python


@pytest.mark.parametrize("busy", [0, 1])
def test_one_call_that_holds_the_interpreter_for_longer_than_the_limit_on_silence_ends_nothing(members, busy):
    bodies = ["time.sleep(5); group.leave(); time.sleep(0.2 * index)"] * 3
    bodies[busy] = BUSY.format(seconds=5) + "; group.leave(); time.sleep(0.2 * index)"
    assert ends(members.group(*bodies, silence=LEAST_SILENCE), seconds=15) == [(0, "")] * 3


def test_a_cause_is_not_lost_while_process_0_cannot_act(members):
    """Process 0 wakes up when the failed process has gone. It must not take that for the cause."""
    fails = "time.sleep(1); group.fail('no such file: x.toml', 2)"
    group = members.group(BUSY.format(seconds=10) + "; time.sleep(60)", fails, WAIT)
    results = ends(group, seconds=20)
    cause = f"nivp: process 1 on {socket.gethostname()}: no such file: x.toml\n"
    assert results == [(2, ""), (2, cause), (2, "")]


@pytest.mark.parametrize("culprit", [0, 2])
def test_the_cause_is_that_of_the_first_that_failed(members, culprit):
    bodies = ["time.sleep(0.1); group.fail('Gloo: connection reset by peer', 1, consequence=True)"] * 3
    bodies[culprit] = "time.sleep(0.3); group.fail('no such file: x.toml', 2)"
    results = ends(members.group(*bodies))
    who = "" if culprit == 0 else f"process {culprit} on {socket.gethostname()}: "
    assert results == [(2, f"nivp: {who}no such file: x.toml\n"), (2, ""), (2, "")]


def test_an_error_that_all_processes_have_in_common_is_reported_once_without_a_process(members):
    body = "time.sleep(0.1 * (3 - index)); group.fail('x.toml: unknown key', 2)"
    assert ends(members.group(body, body, body)) == [(2, "nivp: x.toml: unknown key\n"), (2, ""), (2, "")]


def test_a_signal_to_any_process_reaches_process_0(members):
    receive = "got = []; group.on_signal = got.append\nwhile not got: time.sleep(0.01)\ngroup.fail(got[0], 1)"
    group = members.group(receive, WAIT, "time.sleep(0.3); group.signal = 'SIGUSR1'; time.sleep(60)")
    assert ends(group)[0] == (1, "nivp: SIGUSR1\n")


STUCK = """
watchdog = Watchdog(group, 2.0)
for command in range(1000):
    watchdog.begin(f"command {command}")
    time.sleep(60 if (index == 2 and command == 3) or command == 4 else 0.1)
"""


def test_a_stuck_process_is_named_and_its_stack_shown(members):
    results = ends(members.group(STUCK, STUCK, STUCK), seconds=15)
    host = socket.gethostname()
    assert [code for code, _ in results] == [1, 1, 1]
    last = results[0][1].splitlines()[-1]
    assert last.startswith(f"nivp: process 2 on {host} stuck in 'command 3' while the others wait in 'command 4'")
    assert "<module>" in results[2][1] and "most recent call first" in results[2][1]


def test_a_stopped_process_is_found_by_the_deadline_and_writes_no_other_cause(members):
    """Its host answers for it. It is found within ANSWER_SECONDS of the deadline."""
    log = "group.on_end = lambda cause: sys.stderr.write(f'log: {cause}\\n')\nprint('ready', flush=True)\n"
    group = members.group(STUCK, STUCK, log + STUCK.replace("index == 2 and", "False and"), silence=LEAST_SILENCE)
    assert group[2].stdout.readline() == "ready\n"  # on a busy machine it would be stopped before it has its log
    os.kill(group[2].pid, signal.SIGSTOP)
    results = ends(group[:2], seconds=2.0 + 10.0 + SECONDS)
    cause = f"process 2 on {socket.gethostname()} did not answer after more than 2 s in 'command 4': it is suspended"
    assert results[0][0] == 69 and results[0][1].splitlines()[-1].startswith(f"nivp: {cause}"), results[0][1]
    assert results[1][0] == 69
    os.kill(group[2].pid, signal.SIGCONT)
    ((code, err),) = ends(group[2:])
    assert code == 69 and err.splitlines()[-1].startswith(f"log: the group ends: {cause}")


def test_a_stopped_process_0_is_found_by_the_others(members):
    group = members.group(STUCK, STUCK, STUCK)
    os.kill(group[0].pid, signal.SIGSTOP)
    results = ends(group[1:], seconds=2.0 + 25.0 + SECONDS)
    assert [code for code, _ in results] == [69, 69]
    cause = "nivp: process 0 on localhost did not answer after more than 2 s in 'command 4': it is suspended"
    assert results[0][1].splitlines()[-1].startswith(cause)
    os.kill(group[0].pid, signal.SIGCONT)
    ((code, err),) = ends(group[:1])
    assert code == 69 and "nivp: " not in err


HANGING = """
import threading
watchdog = Watchdog(group, 1.0)
log, _ = os.pipe()[::-1]
os.write(log, b"x" * 65536)  # the pipe is full: the next write never returns
watchdog.log = open(log, "w", buffering=1)
group.on_end = watchdog.log.write
threading.Thread(target=sys.stdout.write, args=("x" * 10**6,)).start()  # holds the lock of standard output
time.sleep(60)
"""


def test_a_group_ends_although_its_log_and_standard_output_hang(members):
    """As they do on a file system whose server is gone."""
    results = ends(members.group(HANGING, HANGING, WAIT), seconds=20)
    assert [code for code, _ in results] == [1, 1, 1]
    assert results[0][1].startswith("nivp: all processes are stuck in 'start' for more than 1 s: ")


def test_a_group_whose_scheduler_suspends_it_goes_on_afterwards(members):
    """All processes are stopped for longer than the limits on silence and on one command."""
    body = "watchdog = Watchdog(group, 1.5)\nfor i in range(20): watchdog.begin('x'); time.sleep(0.1)\ngroup.leave()"
    group = members.group(body, body, body, silence=LEAST_SILENCE)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for member in group:
            os.kill(member.pid, number)
        time.sleep(4.0 if number == signal.SIGSTOP else 0)
    assert ends(group, seconds=15) == [(0, "")] * 3


def test_a_process_that_does_not_come_is_named(members):
    (code, err), (_, other) = ends([members.start(i, 3, startup=4.0) for i in range(2)], 20)
    assert code == 2 and "processes 2 of 3 did not come to" in err
    assert "no process 0 at localhost" in other or other == ""


def test_a_missing_process_0_is_reported(members):
    ((code, err),) = ends([members.start(1, 2, startup=1.0)], 10)
    assert code == 2 and "no process 0 at localhost" in err and "within 1 s" in err


def test_a_host_name_without_an_address_is_reported_at_once(members):
    body = MEMBER.replace('"localhost"', '"no-such-host.invalid"')
    arguments = json.dumps([1, 2, members.ports, "one", 1.0, 30.0])
    done = subprocess.run(
        [sys.executable, "-c", body, arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no-such-host.invalid, has no address here" in done.stderr


def test_two_groups_on_the_same_ports_do_not_mix(members):
    """Two steps of one job start together, and another program has the first of their ports."""
    with socket.create_server(("", members.ports[0])):
        first = [members.start(i, 2, "group.leave()", token="first") for i in range(2)]
        second = [members.start(i, 2, "group.leave()", token="second") for i in range(2)]
        met = [process.communicate(timeout=30)[0].split() for process in [*first, *second]]
    assert met[0] == met[1] and met[2] == met[3] and met[0] != met[2]


def test_a_process_that_counts_other_processes_is_refused(members):
    group = [members.start(0, 2, startup=2.0), members.start(1, 3, startup=2.0)]
    results = ends(group, 10)
    assert results[1][0] == 2 and "it counts 3 processes, process 0 counts 2" in results[1][1]
