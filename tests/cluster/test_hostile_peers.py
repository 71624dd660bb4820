"""Strangers on the ports of a run: they learn nothing, change nothing and delay nothing.

All of it on loopback, with a bounded number of connections and a bounded time.
"""

import contextlib
import hmac
import math
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from process_groups import PATH, alive, local, mpirun, require_mpi
from whole_runs import ROOT, wait_until

import nivp_dist
from nivp_dist.cluster import connection, introduction, reception
from nivp_dist.cluster.channel import CoordinationChannel, MpiChannel, SingleProcess
from nivp_dist.cluster.connection import Connection, Forged
from nivp_dist.cluster.joining import join
from nivp_dist.cluster.reception import wait_for_all
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.errors import InputError, RunFailed

SECRET = b"the secret of the test"


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def meeting():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return Meeting("127.0.0.1", (port,), "test")


class Thread(threading.Thread):
    """A function whose result, or exception, is there after ``outcome``."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self.function, self.arguments, self.result = function, arguments, None
        self.start()

    def run(self):
        try:
            self.result = self.function(*self.arguments)
        except (InputError, RunFailed) as error:
            self.result = error

    def outcome(self, seconds):
        self.join(seconds)
        assert not self.is_alive()
        return self.result


def connect(meeting):
    """A connection to process 0, which may have to start first; and the random number that it sends."""
    deadline = time.monotonic() + 5
    while True:
        try:
            connected = socket.create_connection((meeting.host, meeting.ports[0]), timeout=5)
            return connected, connected.recv(introduction.NONCE_LENGTH, socket.MSG_WAITALL)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def frame(text, code=b"0" * 32):
    return struct.pack(">I32s", len(text), code) + text


def closed(connected, seconds=3.0):
    """Whether process 0 has closed a connection."""
    connected.settimeout(seconds)
    try:
        return connected.recv(1) == b""
    except ConnectionError:
        return True


def meet(meeting, seconds=20.0):
    """The real second process comes: both have met, and nobody else is a peer. Strangers that were counted."""
    host = meet.host
    guest = Thread(join, Topology(2, 1, "test"), meeting, SECRET, seconds)
    met, other = host.outcome(seconds), guest.outcome(seconds)
    assert list(met.peers) == [1] and other.coordinator == met.coordinator and other.run_key == met.run_key
    for one in (met.peers[1], other.peers[0]):
        one.connection.close()
    return met.strangers


@pytest.fixture
def host(meeting):
    meet.host = Thread(wait_for_all, 2, meeting, SECRET, 20.0)
    return meet.host


HOSTILE = {
    "a pickle": pickle.dumps(Bomb("/nowhere")),
    "300,000 brackets": b"[" * 300_000,
    "a line of JSON": b'{"token": "test", "process": 1, "processes": 2}\n',
    "an enormous frame": struct.pack(">I32s", 2**32 - 1, b"0" * 32),
    "a frame with a wrong code": frame(b'{"process": 1, "processes": 2, "host": "a"}'),
    "a nested frame": frame(b"[" * 60_000),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b" " * 60,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_data_of_a_stranger_closes_its_connection_and_nothing_else(meeting, host, data):
    connected, nonce = connect(meeting)
    with connected:
        assert len(nonce) == introduction.NONCE_LENGTH
        try:
            connected.sendall(b"n" * introduction.NONCE_LENGTH + data)
        except ConnectionError:
            pass
        else:
            assert closed(connected)
    assert meet(meeting) == 1


def test_the_introduction_of_a_process_cannot_be_repeated(meeting, host):
    """A stranger has seen a whole introduction; but the random number of process 0 is another one each time."""
    of_guest, text = b"g" * introduction.NONCE_LENGTH, b'{"process": 1, "processes": 2, "host": "a"}'
    key = introduction.connection_key(SECRET, b"h" * introduction.NONCE_LENGTH, of_guest)
    code = hmac.digest(key, b"1" + struct.pack(">Q", 0) + text, "sha256")
    connected, _ = connect(meeting)
    with connected:
        connected.sendall(of_guest + frame(text, code))
        assert closed(connected)
    assert meet(meeting) == 1


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"process": 77}, "its index 77 is not in 1..1"),
        ({"process": 0}, "its index 0 is not in 1..1"),
        ({"process": -1}, "its index -1 is not in 1..1"),
        ({"process": True}, "its index True is not in 1..1"),
        ({"process": None}, "its index None is not in 1..1"),
        ({"processes": 3}, "it counts 3 processes, process 0 counts 2"),
        ({"host": None}, "it does not name its host"),
    ],
)
def test_an_introduction_with_the_secret_and_without_sense_is_refused(meeting, host, changes, reason):
    with introduced(meeting, changes) as one:
        assert one.wait_for_message(3.0) == {"reason": reason}
    assert meet(meeting) == 0


def test_a_second_process_of_the_same_index_is_refused_while_the_first_is_there(meeting):
    meet.host = Thread(wait_for_all, 3, meeting, SECRET, 20.0)
    changes = {"processes": 3}
    with introduced(meeting, changes) as first, introduced(meeting, changes) as second:
        assert first.wait_for_message(3.0) == {"known": True}
        assert second.wait_for_message(3.0) == {"reason": "two processes have the index 1"}
    with introduced(meeting, changes) as third:  # the first has gone
        assert third.wait_for_message(3.0) == {"known": True}
        with introduced(meeting, changes | {"process": 2}):
            assert third.wait_for_message(3.0)["welcome"]
    assert isinstance(meet.host.outcome(5.0), introduction.Met)


@contextlib.contextmanager
def introduced(meeting, changes):
    """A connection that knows the secret and has sent an introduction."""
    connected, of_host = connect(meeting)
    with connected:
        of_guest = b"g" * introduction.NONCE_LENGTH
        connected.sendall(of_guest)
        one = Connection(connected, introduction.connection_key(SECRET, of_host, of_guest), False)
        one.send({"process": 1, "processes": 2, "host": "a"} | changes)
        yield one


def test_silent_connections_delay_no_process(meeting, host):
    with contextlib.ExitStack() as stack:
        for _ in range(41):
            stack.enter_context(connect(meeting)[0])
        started = time.monotonic()
        assert meet(meeting) == 41
        assert time.monotonic() - started < 3.0  # one after the other, with two seconds for each, it was 82


def test_more_silent_connections_than_process_0_keeps_shut_no_process_out(meeting, host, monkeypatch):
    monkeypatch.setattr(reception, "MOST_STRANGERS", 4)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(meeting)[0]) for _ in range(20)]
        assert closed(silent[0])
        assert meet(meeting) == 20


def trickle(connected, stop):
    with contextlib.suppress(OSError):
        while not stop.wait(0.1):
            connected.sendall(b"x")


def test_a_connection_that_sends_slowly_is_closed_in_time(meeting, host, monkeypatch):
    """Each byte comes before a time-out on single reads would end; the time is that of the whole introduction."""
    monkeypatch.setattr(reception, "ANSWER_SECONDS", 1.0)
    connected, _ = connect(meeting)
    stop, started = threading.Event(), time.monotonic()
    with connected:
        slow = Thread(trickle, connected, stop)
        assert closed(connected, 5.0)
        assert 0.8 < time.monotonic() - started < 4.0
        stop.set()
        slow.outcome(2.0)
    assert meet(meeting) == 1


def test_slow_connections_do_not_hold_process_0_past_its_time(meeting):
    host = Thread(wait_for_all, 2, meeting, SECRET, 1.0)
    connected, _ = connect(meeting)
    stop = threading.Event()
    with connected:
        slow = Thread(trickle, connected, stop)
        error = host.outcome(5.0)
        stop.set()
        slow.outcome(2.0)
    assert isinstance(error, RunFailed) and "processes 1 of 2 did not come to" in str(error)


def test_the_strangers_are_counted_in_the_error(meeting):
    host = Thread(wait_for_all, 2, meeting, SECRET, 1.5)
    connected, _ = connect(meeting)
    with connected:
        connected.sendall(b"x" * 100)
        assert "(1 connections did not know the secret of the run)" in str(host.outcome(5.0))


@pytest.mark.parametrize("answer", [b"", b"x" * 5, b"x" * 5000], ids=["silent", "short", "long"])
def test_another_program_in_the_place_of_process_0_is_given_up(answer, monkeypatch):
    monkeypatch.setattr("nivp_dist.cluster.joining.ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])
                    kept[-1].sendall(answer)

        kept: list[socket.socket] = []
        Thread(serve)
        place = Meeting("127.0.0.1", (server.getsockname()[1],), "test")
        error = Thread(join, Topology(2, 1, "test"), place, SECRET, 1.0).outcome(6.0)
        server.shutdown(socket.SHUT_RDWR)
    for one in kept:
        one.close()
    assert isinstance(error, RunFailed) and "does not know the secret of this run, see NIVP_SECRET" in str(error)


# Connections that have met ----------------------------------------------------------------------------


@pytest.fixture
def ends():
    """Both ends of a connection, and the socket of the first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        right, _ = server.accept()
    with left, right:
        yield Connection(left, b"key", True), Connection(right, b"key", False)


def test_messages_arrive_in_order_however_their_bytes_are_cut(ends):
    sender, receiver = ends
    messages = [{"number": number, "text": "x" * 10_000 * number} for number in range(4)]
    for message in messages:
        assert sender.send(message)
    got = []
    while len(got) < len(messages):
        arrived, good = receiver.read()
        assert good
        got += arrived
    assert got == messages
    sender.send({"a": 1}), sender.send({"b": 2})
    assert receiver.wait_for_message(1.0) == {"a": 1} and receiver.wait_for_message(1.0) == {"b": 2}


def test_a_message_that_is_repeated_or_sent_back_ends_the_connection(ends):
    sender, receiver = ends
    text = b'{"end": "now"}'
    right = struct.pack(">I32s", len(text), sender._code(b"0", 0, text)) + text
    assert receiver.feed(right) == [{"end": "now"}]
    with pytest.raises(Forged):
        receiver.feed(right)
    with pytest.raises(Forged):
        sender.feed(right)


def test_a_message_that_is_too_long_ends_the_connection_before_it_is_there(ends):
    with pytest.raises(Forged):
        ends[0].feed(struct.pack(">I32s", connection.MAX_LENGTH + 1, b""))


# Messages between host programs -----------------------------------------------------------------------


class Store:
    """The key-value store of JAX's coordination service, which everybody can write to."""

    def __init__(self):
        self.values = {}

    def key_value_set_bytes(self, key, value):
        self.values[key] = value

    def blocking_key_value_get_bytes(self, key, milliseconds):
        return self.values[key]


def test_a_pickle_in_the_store_of_the_coordination_service_is_not_opened(tmp_path):
    store = Store()
    store.values["nivp/1"] = pickle.dumps(Bomb(tmp_path / "exploded"))
    with pytest.raises(RunFailed, match="message nivp/1 does not come from a process of this run"):
        CoordinationChannel(store, 2, 1, b"key").broadcast(None)
    assert not (tmp_path / "exploded").exists()


def test_a_message_under_another_name_or_key_is_refused():
    store = Store()
    first, second = (CoordinationChannel(store, 2, index, b"key") for index in range(2))
    first.broadcast({"command": 2})
    store.values["nivp/2"] = store.values["nivp/1"]
    assert second.broadcast(None) == {"command": 2}
    with pytest.raises(RunFailed):
        second.broadcast(None)
    with pytest.raises(RunFailed):
        CoordinationChannel(store, 2, 1, b"another").broadcast(None)


class World:
    """An MPI of one process that offers the methods for buffers only: those for objects would unpickle."""

    size, rank = 1, 0

    def Dup(self):
        return self

    def Bcast(self, buffer, root):
        assert buffer.dtype in (np.uint8, np.int64) and root == 0

    def Allgather(self, mine, everyone):
        everyone[:] = mine

    def Allgatherv(self, mine, everyone):
        everyone[0][:] = mine


VALUES = [None, True, 3, -2.5, "text", [1, [2]], {"a": {"b": [None]}}, "x" * 100_000]


@pytest.mark.parametrize("messages", [SingleProcess(), MpiChannel(World())], ids=["alone", "MPI"])
def test_values_of_json_arrive_as_they_are_and_others_are_an_error(messages):
    for value in VALUES:
        assert messages.broadcast(value) == value and messages.gather(value) == [value]
    assert math.isnan(messages.broadcast(math.nan))
    assert messages.broadcast((1, "a")) == [1, "a"]
    for value in (b"bytes", {1}, Bomb("/nowhere")):
        with pytest.raises(TypeError):
            messages.broadcast(value)


def test_no_module_of_the_package_imports_pickle():
    package = Path(nivp_dist.__file__).parent
    for path in package.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) (pickle|marshal|shelve|dill|cloudpickle)\b", path.read_text(), re.M), (
            path
        )


# All of it together -----------------------------------------------------------------------------------

MEMBER = """
import os, sys, time
from nivp_dist.cluster import channel, session
from nivp_dist.settings.model import ClusterSettings

here = session.connect(ClusterSettings())
with open(f"starting-{os.getpid()}", "w") as file:
    file.write(here.group.met.coordinator)
os.rename(file.name, f"started-{os.getpid()}")
messages = channel.current()
while messages.broadcast(os.path.exists("stop") if messages.index == 0 else None) is False:
    time.sleep(0.05)
sys.exit(here.leave(0))
"""


def ports_of(pid: int) -> list[tuple[str, int]]:
    """The addresses of IPv4 on which a process listens, also those that are mapped into IPv6."""
    own = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd") if name.isdigit()}
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    found = []
    for words in map(str.split, lines):
        address, port = words[1].split(":")
        if words[3] == "0A" and f"socket:[{words[9]}]" in own:  # it listens
            found.append((socket.inet_ntoa(bytes.fromhex(address[-8:])[::-1]), int(port, 16)))
    return found


@pytest.mark.parametrize("words", [local(2), mpirun(2, [])], ids=["local", "mpirun"])
def test_garbage_on_every_port_of_a_running_group_does_not_keep_it_from_ending(words, tmp_path):
    """The port of mpirun itself is not ours: it waits until whoever holds it goes away; our processes do not."""
    require_mpi(words)
    (tmp_path / "member.py").write_text(MEMBER)
    words = [*words, *(["--"] if "mpirun" not in words else []), sys.executable, str(tmp_path / "member.py")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIVP_")}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": PATH}
    with contextlib.ExitStack() as stack:
        group = subprocess.Popen(
            words,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(group.wait)
        stack.enter_context(contextlib.suppress(ProcessLookupError))  # all have ended
        stack.callback(os.killpg, group.pid, signal.SIGKILL)
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2, group, seconds=90)
        pids = [int(path.name.partition("-")[2]) for path in tmp_path.glob("started-*")]
        (coordinator,) = {path.read_text() for path in tmp_path.glob("started-*")}
        places = {place for pid in pids for place in ports_of(pid)}
        assert (
            "127.0.0.1",
            int(coordinator.removeprefix("127.0.0.1:")),
        ) in places  # JAX's service: on loopback, and on nothing else
        for place in places:
            for data in (b"x" * 64, b"\0" * 4096, pickle.dumps(Bomb(tmp_path / "exploded"))):
                with contextlib.suppress(OSError):
                    stranger = stack.enter_context(socket.create_connection(place, timeout=2))
                    stranger.sendall(data)
        (tmp_path / "stop").touch()
        deadline = time.monotonic() + 40
        while alive(pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "mpirun" in words or group.wait(10) == 0
    assert not (tmp_path / "exploded").exists()
