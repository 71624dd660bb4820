"""How two processes of a run introduce themselves to each other over a connection that anybody could have made.

The port of the meeting can be reached by everybody, so that neither side trusts the other at first. Each sends a random
number (16 bytes); from both and the secret of the run follows the key of the connection (``connection.Connection``).
Nothing that has no code of that key is parsed. The first message is then that of the process that has connected.
"""

import ipaddress
import socket
from typing import NamedTuple

from nivp_dist.cluster.connection import Peer
from nivp_dist.cluster.secret import derive

ANSWER_SECONDS = 5.0  # for the whole introduction; on the port may be a program that has nothing to do with the run
NONCE_LENGTH = 16  # bytes of the random number of each side
MAX_HOST = 255  # characters of a host name


class Met(NamedTuple):
    """What a process knows after the meeting.

    peers: process 0 has all others here, by index, and each of the others has process 0.
    coordinator: "address:port" of the coordination service of JAX, which process 0 starts. bind: the address and port
    on which it listens there; only process 0 knows it. run_key: a secret of this start of the run, the same on all
    processes.
    latency: seconds until process 0 answered. strangers: connections that did not know the secret.
    """

    peers: dict[int, Peer]
    coordinator: str
    bind: str
    run_key: bytes
    latency: float = 0.0
    strangers: int = 0


def connection_key(secret: bytes, of_process_0: bytes, of_other: bytes) -> bytes:
    """The key of a connection, from the random numbers of both sides."""
    return derive(secret, b"connection" + of_process_0 + of_other)


def run_key(secret: bytes, nonce: str) -> bytes:
    """The secret of one start of a run; process 0 draws the random number."""
    return derive(secret, b"run" + nonce.encode())


def service_address(pairs: list[tuple[str, str]]) -> str | None:
    """The address on which JAX's coordination service must listen; None: on all.

    pairs: of each connection of the meeting, the address of process 0 and that of the other process. Loopback is enough
    if all processes are on the host of process 0: then both addresses are the same, or loopback ones. Otherwise it is
    the address that the others have reached, if it is the same for all.
    """
    remote = {own for own, other in pairs if own != other and not ipaddress.ip_address(own).is_loopback}
    if not remote:
        return "127.0.0.1"
    return remote.pop() if len(remote) == 1 else None


def own_address(connected: socket.socket) -> str:
    """The address of this end of a connection."""
    return _numeric(connected.getsockname()[0])


def other_address(connected: socket.socket) -> str:
    """The address of the other end."""
    return _numeric(connected.getpeername()[0])


def with_port(address: str, port: int) -> str:
    """address:port, in brackets for IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _numeric(name: str) -> str:
    """Without the scope of IPv6; an IPv4 address that is mapped into IPv6 in the form of IPv4."""
    address = ipaddress.ip_address(name.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)
