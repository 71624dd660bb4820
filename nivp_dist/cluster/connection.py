"""Authenticated JSON messages between two processes over TCP, and ports to listen on.

Each message is a frame: its length (4 bytes), a code (32 bytes) and the JSON text. The code is an HMAC of the
direction, the number of the message and the text. Both processes derive its key from the secret of the run and two
random numbers. A frame that is too long or has a wrong code ends the connection; its text is never parsed.
"""

import errno
import hmac
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from nivp_dist.errors import RunFailed

SEND_SECONDS = 5.0  # a peer that takes no data for so long is as good as gone
MAX_LENGTH = 1 << 16  # bytes of a message; the longest one is the cause of a failure (``group.MAX_CAUSE``)
_HEADER = struct.Struct(">I32s")
_CHUNK = 1 << 16  # bytes of one read
PROBES = 15  # of the kernel within the time after which a host that does not answer is given up
_UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


class Forged(Exception):
    """Data that does not come from a process of this run, or was changed on its way."""


class Connection:
    """A TCP connection that carries JSON objects.

    key: of this connection, the same at both ends. first: whether this is the end that has accepted the connection;
    the two ends number and sign their messages differently, so that none can be sent back as the answer.

    host_is_lost: whether the connection has ended because the other host did not answer (``watch_host``), and not
    because the other process has closed it.
    """

    def __init__(self, connection: socket.socket, key: bytes, first: bool):
        connection.settimeout(SEND_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self._key = connection, key
        self._outgoing, self._incoming = (b"0", b"1") if first else (b"1", b"0")
        self.host_is_lost = False
        self._sent = self._received = 0  # messages
        self._buffer, self._sending = b"", threading.Lock()
        self._unread: list[dict] = []  # messages that came together with the one that was waited for

    def watch_host(self, seconds: float) -> None:
        """Let the kernel end this connection when the other host has not answered for so many seconds.

        The kernels of the two hosts exchange the signs of life (TCP keep-alive). No thread of a process takes part:
        a process may be suspended, or one call may hold its interpreter for long, without being given up. The kernel
        counts whole seconds and notices up to ``seconds / PROBES`` (at least one second) later.
        """
        options = {
            "TCP_KEEPIDLE": max(1, round(seconds / PROBES)),
            "TCP_KEEPINTVL": max(1, round(seconds / PROBES)),
            "TCP_KEEPCNT": PROBES,
            # Linux: the limit for data that is not acknowledged, and in place of TCP_KEEPCNT.
            "TCP_USER_TIMEOUT": round(1000 * seconds),
        }
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):
                self.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: dict) -> bool:
        """Send one object. Returns False if the other end is gone; the reading side notices that by itself."""
        text = json.dumps(message).encode()
        try:
            with self._sending:
                code = self._code(self._outgoing, self._sent, text)
                self._sent += 1
                self.socket.sendall(_HEADER.pack(len(text), code) + text)
        except OSError as error:
            self._note(error)
            return False
        return True

    def read(self) -> tuple[list[dict], bool]:
        """The messages that have arrived, and whether the connection is still good. Does not wait."""
        unread, self._unread = self._unread, []
        try:
            ready = select.poll()  # not select(), which fails for descriptors above 1023
            ready.register(self.socket, select.POLLIN)
            if not ready.poll(0):
                return unread, True
            data = self.socket.recv(_CHUNK)
            return unread + self.feed(data), bool(data)
        except OSError as error:
            self._note(error)
            return unread, False
        except (ValueError, Forged):
            return unread, False

    def feed(self, data: bytes) -> list[dict]:
        """The messages that are complete with these bytes. Raises Forged."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _HEADER.size:
            length, code = _HEADER.unpack_from(self._buffer)
            if length > MAX_LENGTH:
                raise Forged
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            text, self._buffer = self._buffer[_HEADER.size : end], self._buffer[end:]
            if not hmac.compare_digest(code, self._code(self._incoming, self._received, text)):
                raise Forged
            self._received += 1
            messages.append(json.loads(text))
        return messages

    def wait_for_message(self, seconds: float) -> dict | None:
        """The next message; None if none is complete within so many seconds, it is forged, or the connection ends."""
        deadline = time.monotonic() + seconds
        try:
            while not self._unread:
                data = receive(self.socket, _CHUNK, deadline)
                if not data:
                    return None
                self._unread = self.feed(data)
            return self._unread.pop(0)
        except (OSError, Forged):
            return None
        finally:
            self.socket.settimeout(SEND_SECONDS)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _note(self, error: OSError) -> None:
        """The system reports an error once: to the thread that sends, or to the one that reads."""
        self.host_is_lost = self.host_is_lost or error.errno in _UNREACHABLE

    def _code(self, direction: bytes, number: int, text: bytes) -> bytes:
        return hmac.digest(self._key, direction + struct.pack(">Q", number) + text, "sha256")


@dataclass
class Peer:
    """Another process of the group, as far as this process knows it.

    may_close: its connection may end from now on, because it leaves in an orderly way or has reported its failure.
    """

    connection: Connection
    host: str
    may_close: bool = False


def receive(connection: socket.socket, most: int, deadline: float) -> bytes:
    """Up to so many bytes, as soon as there are any; none if the connection ends. Raises OSError at the deadline."""
    connection.settimeout(max(1e-3, deadline - time.monotonic()))
    return connection.recv(most)


def listen(ports: Iterable[int], loopback: bool = False) -> tuple[socket.socket, int]:
    """A listening socket on the first of the ports that is free, and the port.

    loopback: only this host can reach it; otherwise it listens on all interfaces, for IPv4 and, where it exists, IPv6.
    Raises RunFailed if no port is free.
    """
    for port in ports:
        try:
            if loopback:
                listener = socket.create_server(("127.0.0.1", port), backlog=4096)
            else:
                dual = socket.has_dualstack_ipv6()
                family = socket.AF_INET6 if dual else socket.AF_INET
                listener = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=4096)
            return listener, listener.getsockname()[1]
        except OSError:
            continue
    raise RunFailed(f"none of the ports {', '.join(map(str, ports))} is free on {socket.gethostname()}")


def free_port() -> int:
    """A port that is free at the time of the call."""
    with listen((0,))[0] as probe:
        return probe.getsockname()[1]
