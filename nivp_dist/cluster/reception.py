"""Process 0 at the meeting of a group: it waits until all other processes have connected and introduced themselves.

Connections that do not know the secret of the run are closed and counted, and change nothing.
"""

import resource
import secrets
import selectors
import socket
import sys
import time
from dataclasses import dataclass

from nivp_dist.cluster.connection import SEND_SECONDS, Connection, Forged, Peer, free_port, listen
from nivp_dist.cluster.introduction import (
    ANSWER_SECONDS,
    MAX_HOST,
    NONCE_LENGTH,
    Met,
    connection_key,
    other_address,
    own_address,
    run_key,
    service_address,
    with_port,
)
from nivp_dist.cluster.topology import Meeting
from nivp_dist.errors import RunFailed

FIRST_NOTICE, LATER_NOTICES = 10.0, 30.0  # seconds after which process 0 names the processes it waits for
MOST_STRANGERS = 64  # connections at a time that have not introduced themselves, besides one for each process


def wait_for_all(processes: int, meeting: Meeting, secret: bytes, startup_seconds: float) -> Met:
    """Wait for the other processes of a group, within so many seconds. Raises RunFailed if some do not come."""
    return _Reception(processes, meeting, secret, startup_seconds).wait_for_all()


@dataclass
class _Stranger:
    """A connection that has not introduced itself yet."""

    socket: socket.socket
    nonce: bytes  # sent to it
    deadline: float
    received: bytes = b""
    connection: Connection | None = None  # when its own random number is there


class _Reception:
    """All connections are served at once by one loop, so that none can delay another."""

    def __init__(self, processes: int, meeting: Meeting, secret: bytes, startup_seconds: float):
        self.processes, self.meeting, self.secret, self.startup_seconds = processes, meeting, secret, startup_seconds
        self.host = socket.gethostname()
        self.peers: dict[int, Peer] = {}
        self.refused = 0
        self.strangers: dict[int, _Stranger] = {}  # by descriptor, the oldest first
        self.selector = selectors.DefaultSelector()

    def wait_for_all(self) -> Met:
        _allow_open_files(2 * self.processes + 256)
        listener, port = listen(self.meeting.ports, _is_loopback(self.meeting.host))
        listener.setblocking(False)
        with self.selector, listener:
            self.selector.register(listener, selectors.EVENT_READ)
            started = time.monotonic()
            notice = started + FIRST_NOTICE
            while len(self.peers) < self.processes - 1:
                now = time.monotonic()
                if now > started + self.startup_seconds:
                    raise RunFailed(self._who_did_not_come(port))
                if now > notice:
                    sys.stderr.write(f"nivp: waiting for processes {self._absent()} at {self.host}:{port}\n")
                    notice = now + LATER_NOTICES
                for key, _ in self.selector.select(0.2):
                    self._accept(listener) if key.fileobj is listener else self._read(key.fd, key.data)
                self._drop_late_strangers()
            for stranger in list(self.strangers.values()):
                self._refuse(stranger)
        return self._welcome()

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            nonce = secrets.token_bytes(NONCE_LENGTH)
            accepted.send(nonce)  # it fits into the buffer of a new connection
        except OSError:
            return
        stranger = _Stranger(accepted, nonce, time.monotonic() + ANSWER_SECONDS)
        self.strangers[accepted.fileno()] = stranger
        self.selector.register(accepted, selectors.EVENT_READ, None)
        if len(self.strangers) > self.processes + MOST_STRANGERS:
            self._refuse(next(iter(self.strangers.values())))

    def _read(self, descriptor: int, index: int | None) -> None:
        if index is not None:  # a process that has been admitted says nothing more: it has ended, or tries once more
            self._forget(index)
        elif (stranger := self.strangers.get(descriptor)) is not None:
            try:
                hello = self._introduction(stranger)
            except (OSError, Forged):
                self._refuse(stranger)
                return
            if hello is not None and stranger.connection is not None:
                self._admit(stranger, stranger.connection, hello)

    def _introduction(self, stranger: _Stranger) -> dict | None:
        """The first message of a connection; None if more of it has to come. Raises Forged or OSError."""
        data = stranger.socket.recv(4096)
        if not data:
            raise Forged
        if stranger.connection is None:
            stranger.received += data
            if len(stranger.received) < NONCE_LENGTH:
                return None
            of_guest, data = stranger.received[:NONCE_LENGTH], stranger.received[NONCE_LENGTH:]
            key = connection_key(self.secret, stranger.nonce, of_guest)
            stranger.connection = Connection(stranger.socket, key, first=True)
            stranger.socket.setblocking(False)
        messages = stranger.connection.feed(data)
        return messages[0] if messages else None

    def _admit(self, stranger: _Stranger, connection: Connection, hello: dict) -> None:
        """Add a process that knows the secret to the peers, or tell it why it cannot belong to the group."""
        del self.strangers[stranger.socket.fileno()]
        self.selector.unregister(stranger.socket)
        stranger.socket.settimeout(SEND_SECONDS)
        index, host, count = hello.get("process"), hello.get("host"), hello.get("processes")
        reason = None
        if count != self.processes:
            reason = f"it counts {count} processes, process 0 counts {self.processes}"
        elif type(index) is not int or not 0 < index < self.processes:
            reason = f"its index {index} is not in 1..{self.processes - 1}"
        elif index in self.peers:
            reason = f"two processes have the index {index}"
        if reason is not None or type(index) is not int or not isinstance(host, str):
            connection.send({"reason": reason or "it does not name its host"})
            connection.close()
            return
        connection.send({"known": True})
        self.peers[index] = Peer(connection, host[:MAX_HOST])
        self.selector.register(stranger.socket, selectors.EVENT_READ, index)

    def _forget(self, index: int) -> None:
        peer = self.peers.pop(index)
        self.selector.unregister(peer.connection.socket)
        peer.connection.close()

    def _refuse(self, stranger: _Stranger) -> None:
        self.refused += 1
        del self.strangers[stranger.socket.fileno()]
        self.selector.unregister(stranger.socket)
        stranger.socket.close()

    def _drop_late_strangers(self) -> None:
        now = time.monotonic()
        for stranger in [stranger for stranger in self.strangers.values() if stranger.deadline < now]:
            self._refuse(stranger)

    def _welcome(self) -> Met:
        """Tell all where the coordination service will be, now that they are there."""
        port, nonce = free_port(), secrets.token_hex(NONCE_LENGTH)
        sockets = [peer.connection.socket for peer in self.peers.values()]
        address = service_address([(own_address(connected), other_address(connected)) for connected in sockets])
        for peer in self.peers.values():
            peer.connection.send({"welcome": True, "address": address, "port": port, "nonce": nonce})
        coordinator, bind = with_port(address or "127.0.0.1", port), with_port(address or "::", port)
        return Met(self.peers, coordinator, bind, run_key(self.secret, nonce), strangers=self.refused)

    def _who_did_not_come(self, port: int) -> str:
        others = f" ({self.refused} connections did not know the secret of the run)" if self.refused else ""
        return (
            f"processes {self._absent()} of {self.processes} did not come to {self.host}:{port} within "
            f"{self.startup_seconds:g} s{others}: see their logs, and `nivp doctor` under the same launcher"
        )

    def _absent(self) -> str:
        absent = [str(index) for index in range(1, self.processes) if index not in self.peers]
        return ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


def _allow_open_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, needed)), hard))
