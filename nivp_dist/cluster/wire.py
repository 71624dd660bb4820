"""JSON lines over TCP, and ports to listen on."""

import json
import select
import socket
import threading
import time

from nivp_dist.errors import RunFailed


class Line:
    """JSON objects, one a line, over a socket."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(5.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.host = connection, "?"
        self.heard, self.parted, self.position = time.monotonic(), False, (0, "start")
        self._rest, self._writing = b"", threading.Lock()

    def send(self, message: dict) -> None:
        """One object. Raises OSError if the other end is gone."""
        with self._writing:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> tuple[list[dict], bool]:
        """What has arrived, and whether more can. Does not wait."""
        try:
            ready = select.poll()  # not select: its descriptors end at 1024
            ready.register(self.socket, select.POLLIN)
            if not ready.poll(0):
                return [], True
            data = self.socket.recv(1 << 16)
        except (OSError, ValueError):
            return [], False
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines], bool(data)

    def wait(self, seconds: float) -> dict | None:
        """The next object; None if none comes, or nonsense does."""
        self.socket.settimeout(seconds)
        try:
            while b"\n" not in self._rest:
                data = self.socket.recv(1 << 16)
                if not data:
                    return None
                self._rest += data
            line, self._rest = self._rest.split(b"\n", 1)
            message = json.loads(line)
            return message if isinstance(message, dict) else None
        except (OSError, ValueError):
            return None
        finally:
            self.socket.settimeout(5.0)

    def close(self) -> None:
        """Give it up."""
        self.socket.close()


def listen(ports) -> tuple[socket.socket, int]:
    """On the first of the ports that is free, for IPv4 and, where there is, IPv6."""
    for port in ports:
        try:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            listener = socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=4096)
            return listener, listener.getsockname()[1]
        except OSError:
            continue
    raise RunFailed(f"none of the ports {', '.join(map(str, ports))} is free on {socket.gethostname()}")


def free_port() -> int:
    """One that was free a moment ago."""
    with listen((0,))[0] as probe:
        return probe.getsockname()[1]
