"""Small messages between the host programs of the processes of a run: over MPI, or over JAX's coordination service.

No device takes part, so that a message which does not come can time out. Messages are JSON: None, booleans, numbers
(also NaN), strings, lists, and dictionaries with strings as keys; a tuple arrives as a list. Nothing is ever unpickled.
"""

import ctypes
import faulthandler
import hmac
import json
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from nivp_dist.cluster.secret import shared_secret
from nivp_dist.errors import RunFailed

TIMEOUT_SECONDS = 1800.0  # of a message, without settings (cluster.deadline_minutes)
WATCHDOG_FIRST = 60.0  # seconds that a message may take longer than a command: the watchdog can say who is late
FINALIZE_SECONDS = 60.0  # for MPI to end; all processes begin that within seconds of each other
_CODE_LENGTH = 32  # bytes of an HMAC


class Channel(Protocol):
    """Every process calls the same methods in the same order.

    name: for messages to the user. processes: their number. index: of this process.
    """

    name: str
    processes: int
    index: int

    def broadcast(self, value: Any) -> Any:
        """Return process 0's value on every process. Raises ChannelError if a process does not take part in time."""

    def gather(self, value: Any) -> list:
        """Return the values of all processes, in order, on every process. Raises ChannelError as above."""
        ...

    def close(self, give_up: Callable[[], object]) -> None:
        """The last call on each process. If it does not return in time, another thread calls give_up()."""


class ChannelError(RuntimeError):
    """Another process did not take part in time."""


def may_be_consequence(error: BaseException) -> bool:
    """Whether an error is likely the consequence of another process's end: a collective or a message that failed."""
    collective = isinstance(error, ChannelError) or type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError")
    return collective and "RESOURCE_EXHAUSTED" not in str(error)  # memory runs out on each process by itself


class SingleProcess:
    """The channel of a run in one process."""

    name, processes, index = "nothing", 1, 0

    def broadcast(self, value):
        return _decode(_encode(value))

    def gather(self, value):
        return [_decode(_encode(value))]

    def close(self, give_up):
        """There is nothing to close."""


class MpiChannel:
    """Messages over MPI, on a communicator of their own: they cannot be confused with those of other libraries.

    communicator: MPI's world, of mpi4py. Only its methods for buffers are used, because those for objects unpickle
    them. Which processes take part is decided by MPI and its launcher.
    """

    name = "MPI"

    def __init__(self, communicator):
        self._communicator = communicator.Dup()
        self.processes, self.index = communicator.size, communicator.rank

    def broadcast(self, value):
        text = np.frombuffer(_encode(value), np.uint8).copy()
        length = np.array([text.size], np.int64)
        self._communicator.Bcast(length, root=0)
        if self.index:
            text = np.empty(length[0], np.uint8)
        self._communicator.Bcast(text, root=0)
        return _decode(text.tobytes())

    def gather(self, value):
        text = np.frombuffer(_encode(value), np.uint8)
        lengths = np.empty(self.processes, np.int64)
        self._communicator.Allgather(np.array([text.size], np.int64), lengths)
        ends = np.cumsum(lengths)
        texts = np.empty(ends[-1], np.uint8)
        self._communicator.Allgatherv(text, [texts, (lengths.tolist(), (ends - lengths).tolist())])
        return [_decode(texts[end - length : end].tobytes()) for end, length in zip(ends, lengths)]

    def close(self, give_up):
        """MPI ends when all processes have called this. It may wait for ever, for a process that is lost or for mpirun.

        mpi4py would do this when the interpreter exits, but process 0 has to exit after the others.
        """
        from mpi4py import MPI

        try:
            finalize = ctypes.CDLL(MPI.__file__).MPI_Finalize
        except (AttributeError, OSError):  # a build of mpi4py that finds the MPI library by itself
            # Its own function holds the interpreter while it waits, so that no thread could call give_up.
            faulthandler.dump_traceback_later(FINALIZE_SECONDS, exit=True)
            MPI.Finalize()
            faulthandler.cancel_dump_traceback_later()
            return
        timer = threading.Timer(FINALIZE_SECONDS, give_up)
        timer.daemon = True
        timer.start()
        finalize()
        timer.cancel()


class CoordinationChannel:
    """Messages over the key-value store of JAX's coordination service, which process 0 runs, under numbered keys.

    client: of the coordination service. key: a secret of this run. seconds: within which a message must come.
    Anybody who reaches the service can write to it. So each message carries a code, an HMAC of its name in the store
    and its text; without the right code it is not parsed. A process may delete its message when all others have read
    it. After a gather the barrier at its end guarantees that; broadcasts stay until the next barrier.
    """

    name = "the coordination service of JAX"
    BARRIER_EVERY = 64  # messages; a barrier after each would double the cost of a broadcast

    def __init__(self, client, processes: int, index: int, key: bytes, seconds: float = TIMEOUT_SECONDS):
        self._client, self.processes, self.index = client, processes, index
        self._key, self._milliseconds = key, int(1000 * seconds)
        self._count, self._own_keys = 0, []

    def broadcast(self, value):
        key = self._next_key()
        if self.index == 0:
            self._set(key, value)
            self._own_keys.append(key)
        else:
            value = self._get(key)
        if self._count % self.BARRIER_EVERY == 0:
            self._wait_for_all(f"{key}/done")
            self._delete_own_keys()
        return value

    def gather(self, value):
        key = self._next_key()
        self._set(f"{key}/{self.index}", value)
        values = [self._get(f"{key}/{process}") for process in range(self.processes)]
        self._wait_for_all(f"{key}/done")
        self._own_keys.append(f"{key}/{self.index}")
        self._delete_own_keys()
        return values

    def close(self, give_up):
        """The service ends with jax.distributed."""

    def _next_key(self) -> str:
        self._count += 1
        return f"nivp/{self._count}"

    def _set(self, name: str, value: Any) -> None:
        text = _encode(value)
        try:
            self._client.key_value_set_bytes(name, self._code(name, text) + text)
        except RuntimeError as error:  # jaxlib's error, whose class has had several names
            raise ChannelError(f"a message cannot be sent to the other processes: {error}") from None

    def _get(self, name: str):
        try:
            data = self._client.blocking_key_value_get_bytes(name, self._milliseconds)
        except RuntimeError as error:
            raise ChannelError(f"no message from the other processes: {error}") from None
        code, text = data[:_CODE_LENGTH], data[_CODE_LENGTH:]
        if not hmac.compare_digest(code, self._code(name, text)):
            raise RunFailed(f"message {name} does not come from a process of this run: another program has written it")
        return _decode(text)

    def _code(self, name: str, text: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + text, "sha256")

    def _wait_for_all(self, barrier: str) -> None:
        try:
            self._client.wait_at_barrier(barrier, self._milliseconds)
        except RuntimeError as error:
            raise ChannelError(f"the other processes do not come: {error}") from None

    def _delete_own_keys(self) -> None:
        for key in self._own_keys:
            self._client.key_value_delete(key)
        self._own_keys = []


def _encode(value: Any) -> bytes:
    """Raises TypeError for a value that is no JSON."""
    return json.dumps(value).encode()


def _decode(text: bytes) -> Any:
    return json.loads(text)


_current: Channel = SingleProcess()


def current() -> Channel:
    """The channel of this process, as ``use`` has set it.

    Without one it is that of a single process; or, if the user's own program has called jax.distributed.initialize, one
    over that service, with the secret of ``secret.shared_secret``.
    """
    import jax

    if _current.processes == 1 and jax.process_count() > 1:
        use(over_coordination(shared_secret("jax.distributed")))
    return _current


def over_coordination(key: bytes, longest_command: float = TIMEOUT_SECONDS) -> CoordinationChannel:
    """A channel over the coordination service to which jax is connected.

    key: a secret of this run. longest_command: seconds after which the watchdog ends a run.
    """
    import jax

    from nivp_dist.backend import private_api

    client = private_api.coordination_client()
    return CoordinationChannel(client, jax.process_count(), jax.process_index(), key, longest_command + WATCHDOG_FIRST)


def use(channel: Channel) -> None:
    """Set the channel of this process."""
    global _current
    _current = channel
