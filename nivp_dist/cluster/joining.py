"""The other processes at the meeting of a group: each looks for process 0 and introduces itself."""

import secrets
import socket
import time

from nivp_dist.cluster.connection import Connection, Peer, receive
from nivp_dist.cluster.introduction import (
    ANSWER_SECONDS,
    MAX_HOST,
    NONCE_LENGTH,
    Met,
    connection_key,
    other_address,
    run_key,
    with_port,
)
from nivp_dist.cluster.secret import VARIABLE
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.errors import InputError, RunFailed


def join(topology: Topology, meeting: Meeting, secret: bytes, startup_seconds: float) -> Met:
    """Connect with process 0 and wait until all processes are there, within so many seconds.

    Raises RunFailed if process 0 is not found, InputError if it refuses this process.
    """
    return _Newcomer(topology, meeting, secret, startup_seconds).join()


class _Newcomer:
    """It tries the candidate ports of process 0 until one answers as it should."""

    def __init__(self, topology: Topology, meeting: Meeting, secret: bytes, startup_seconds: float):
        self.topology, self.meeting, self.secret, self.startup_seconds = topology, meeting, secret, startup_seconds
        self.host = socket.gethostname()
        self.deadline = time.monotonic() + startup_seconds

    def join(self) -> Met:
        self._require_address()
        last_error, unknown = "no answer", ""
        while time.monotonic() < self.deadline:
            for port in self.meeting.ports:
                try:
                    connected = socket.create_connection((self.meeting.host, port), timeout=ANSWER_SECONDS)
                except OSError as error:
                    last_error = error.strerror or str(error)
                    continue
                met = self._introduce(connected)
                if met is not None:
                    return met
                connected.close()
                unknown = f"; a program there does not know the secret of this run, see {VARIABLE} in the guide"
            time.sleep(0.1)
        raise RunFailed(
            f"process {self.topology.index} on {self.host}: no process 0 at {self.meeting.host}, ports "
            f"{self.meeting.ports[0]}.. within {self.startup_seconds:g} s ({last_error}{unknown}): see its log, and "
            "whether a firewall lies between"
        )

    def _introduce(self, connected: socket.socket) -> Met | None:
        """Say who this process is; None if the other end is not the process 0 of its group."""
        asked = time.monotonic()
        connection = self._exchange_nonces(connected, asked + ANSWER_SECONDS)
        if connection is None:
            return None
        hello = {"process": self.topology.index, "processes": self.topology.processes, "host": self.host[:MAX_HOST]}
        connection.send(hello)
        answer = connection.wait_for_message(asked + ANSWER_SECONDS - time.monotonic()) or {}
        latency = time.monotonic() - asked
        if answer.get("known"):
            # The next message comes when all processes are there; process 0 is the first to give up waiting for them.
            answer = connection.wait_for_message(self.startup_seconds + ANSWER_SECONDS) or {}
        if answer.get("welcome"):
            coordinator = with_port(answer["address"] or other_address(connected), answer["port"])
            key = run_key(self.secret, answer["nonce"])
            return Met({0: Peer(connection, self.meeting.host)}, coordinator, "", key, latency)
        if answer.get("reason"):
            raise InputError(f"process {self.topology.index} on {self.host}: {answer['reason']}")
        return None

    def _exchange_nonces(self, connected: socket.socket, deadline: float) -> Connection | None:
        of_host, of_guest = b"", secrets.token_bytes(NONCE_LENGTH)
        try:
            while len(of_host) < NONCE_LENGTH:
                data = receive(connected, NONCE_LENGTH - len(of_host), deadline)
                if not data:
                    return None
                of_host += data
            connected.sendall(of_guest)
        except OSError:
            return None
        return Connection(connected, connection_key(self.secret, of_host, of_guest), first=False)

    def _require_address(self) -> None:
        try:
            socket.getaddrinfo(self.meeting.host, None)
        except OSError as error:
            raise InputError(
                f"{self.host}: the host of process 0, {self.meeting.host}, has no address here ({error.strerror}): "
                "mend the name service, or name a host that resolves in NIVP_MEETING"
            ) from None
