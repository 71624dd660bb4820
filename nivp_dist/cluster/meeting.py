"""How the processes of a group find each other: all others connect to process 0, which waits until all have come."""

import resource
import socket
import sys
import time
from typing import NamedTuple

from nivp_dist.cluster.connection import Connection, Peer, free_port, listen
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.errors import InputError, RunFailed

ANSWER_SECONDS = 2.0  # for whoever is connected to answer; on a port of ours there may be a program of somebody else
FIRST_NOTICE, LATER_NOTICES = 10.0, 30.0  # seconds after which process 0 names the processes it waits for


class Met(NamedTuple):
    """What a process knows after the meeting.

    peers: process 0 has all others here, by index, and each of the others has process 0. port: where process 0 runs
    the coordination service of JAX. latency: seconds until process 0 answered.
    """

    peers: dict[int, Peer]
    port: int
    latency: float


def meet(topology: Topology, meeting: Meeting, startup_seconds: float) -> Met:
    """Connect this process with the others of its group, within so many seconds.

    Raises RunFailed if processes do not come, InputError if the processes disagree about the group.
    """
    if topology.index == 0:
        return _wait_for_all(topology.processes, meeting, startup_seconds)
    return _join(topology, meeting, startup_seconds)


# Process 0 -----------------------------------------------------------------------------------------


def _wait_for_all(processes: int, meeting: Meeting, startup_seconds: float) -> Met:
    _allow_open_files(2 * processes + 256)
    listener, port = listen(meeting.ports)
    with listener:
        listener.settimeout(0.5)
        peers: dict[int, Peer] = {}
        started = time.monotonic()
        notice = started + FIRST_NOTICE
        while len(peers) < processes - 1:
            now = time.monotonic()
            if now > started + startup_seconds:
                raise RunFailed(
                    f"processes {_absent(peers, processes)} of {processes} did not come to "
                    f"{socket.gethostname()}:{port} within {startup_seconds:g} s: see their logs, and `nivp doctor` "
                    "under the same launcher"
                )
            if now > notice:
                names = _absent(peers, processes)
                sys.stderr.write(f"nivp: waiting for processes {names} at {socket.gethostname()}:{port}\n")
                notice = now + LATER_NOTICES
            try:
                connection, _ = listener.accept()
            except OSError:
                continue
            _admit(Connection(connection), peers, processes, meeting.token)
    coordinator_port = free_port()
    for peer in peers.values():
        peer.connection.send({"welcome": True, "port": coordinator_port})
    return Met(peers, coordinator_port, 0.0)


def _admit(connection: Connection, peers: dict[int, Peer], processes: int, token: str) -> None:
    """Add the process at the other end to the peers, or refuse it and say why."""
    hello = connection.wait_for_message(ANSWER_SECONDS) or {}
    index, reason = hello.get("process", -1), None
    if hello.get("token") != token:
        reason = ""  # it belongs to another group, and goes on looking for its own
    elif index in peers:
        reason = f"two processes have the index {index}"
    elif hello.get("processes") != processes:
        reason = f"it counts {hello.get('processes')} processes, process 0 counts {processes}"
    if reason is not None:
        connection.send({"welcome": False, "reason": reason})
        connection.close()
        return
    connection.send({"known": True})
    peers[index] = Peer(connection, hello["host"])


def _absent(peers: dict[int, Peer], processes: int) -> str:
    absent = [str(index) for index in range(1, processes) if index not in peers]
    return ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")


def _allow_open_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, needed)), hard))


# The other processes -------------------------------------------------------------------------------


def _join(topology: Topology, meeting: Meeting, startup_seconds: float) -> Met:
    _require_address(meeting.host)
    deadline, last_error = time.monotonic() + startup_seconds, "no answer"
    while time.monotonic() < deadline:
        for port in meeting.ports:
            try:
                connection = Connection(socket.create_connection((meeting.host, port), timeout=ANSWER_SECONDS))
            except OSError as error:
                last_error = error.strerror or str(error)
                continue
            met = _introduce(connection, topology, meeting, startup_seconds)
            if met is not None:
                return met
            connection.close()
            last_error = "no answer"
        time.sleep(0.1)
    raise RunFailed(
        f"process {topology.index} on {socket.gethostname()}: no process 0 at {meeting.host}, ports "
        f"{meeting.ports[0]}.. within {startup_seconds:g} s ({last_error}): see its log, and whether a firewall lies "
        "between"
    )


def _introduce(connection: Connection, topology: Topology, meeting: Meeting, startup_seconds: float) -> Met | None:
    """Say who this process is; None if the other end is not the process 0 of its group."""
    asked = time.monotonic()
    host = socket.gethostname()
    hello = {"token": meeting.token, "process": topology.index, "processes": topology.processes, "host": host}
    connection.send(hello)
    answer = connection.wait_for_message(ANSWER_SECONDS) or {}
    latency = time.monotonic() - asked
    if answer.get("known"):
        answer = connection.wait_for_message(startup_seconds) or {}  # it comes when all processes are there
    if answer.get("welcome"):
        return Met({0: Peer(connection, meeting.host)}, answer["port"], latency)
    if answer.get("reason"):
        raise InputError(f"process {topology.index} on {host}: {answer['reason']}")
    return None


def _require_address(host: str) -> None:
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise InputError(
            f"{socket.gethostname()}: the host of process 0, {host}, has no address here ({error.strerror}): mend the "
            "name service, or name a host that resolves in NIVP_MEETING"
        ) from None
