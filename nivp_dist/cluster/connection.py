"""JSON messages between two processes over TCP, and ports to listen on."""

import json
import select
import socket
import threading
import time
from dataclasses import dataclass, field

from nivp_dist.errors import RunFailed

SEND_SECONDS = 5.0  # a peer that takes no data for so long is as good as gone
_CHUNK = 1 << 16  # bytes of one read


class Connection:
    """A TCP connection that carries JSON objects, one a line."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(SEND_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._received, self._sending = b"", threading.Lock()

    def send(self, message: dict) -> bool:
        """Send one object. Returns False if the other end is gone; the reading side notices that by itself."""
        try:
            with self._sending:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def read(self) -> tuple[list[dict], bool]:
        """The messages that have arrived, and whether the connection is still open. Does not wait."""
        try:
            ready = select.poll()  # not select(), which fails for descriptors above 1023
            ready.register(self.socket, select.POLLIN)
            if not ready.poll(0):
                return [], True
            data = self.socket.recv(_CHUNK)
        except (OSError, ValueError):
            return [], False
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines], bool(data)

    def wait_for_message(self, seconds: float) -> dict | None:
        """The next message; None if it does not come in time, is no JSON object, or the connection ends."""
        self.socket.settimeout(seconds)
        try:
            while b"\n" not in self._received:
                data = self.socket.recv(_CHUNK)
                if not data:
                    return None
                self._received += data
            line, self._received = self._received.split(b"\n", 1)
            message = json.loads(line)
            return message if isinstance(message, dict) else None
        except (OSError, ValueError):
            return None
        finally:
            self.socket.settimeout(SEND_SECONDS)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


@dataclass
class Peer:
    """Another process of the group, as far as this process knows it.

    position: how many commands it has begun, and the label of the last one. has_left: it ends in an orderly way.
    """

    connection: Connection
    host: str
    last_message: float = field(default_factory=time.monotonic)
    has_left: bool = False
    position: tuple[int, str] = (0, "start")


def listen(ports) -> tuple[socket.socket, int]:
    """A listening socket on the first of the ports that is free, for IPv4 and, where it exists, IPv6; and the port.

    Raises RunFailed if none is free.
    """
    for port in ports:
        try:
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
