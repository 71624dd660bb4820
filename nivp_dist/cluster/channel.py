"""Small messages between the processes of a run, on the host: over MPI where there is one, else over the coordination
service of JAX. Nothing here touches a device, so that all of it can time out."""

import pickle
from typing import Any, Protocol

TIMEOUT = 1800.0  # seconds; the watchdog acts long before


class Channel(Protocol):
    """Every process calls the same methods in the same order."""

    name: str
    processes: int
    index: int

    def broadcast(self, value: Any) -> Any:
        """Process 0's value (plain Python), on every process. Raises ChannelError if a process is not there in time."""

    def gather(self, value: Any) -> list:
        """The values of all processes in order, on every process."""

    def close(self) -> None:
        """The last call of all."""


class ChannelError(RuntimeError):
    """Another process did not take part."""


def is_echo(error: BaseException) -> bool:
    """Whether an error is likely the consequence of another process's end: a collective or a message that failed."""
    text = str(error)
    ours = isinstance(error, ChannelError) or type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError")
    return ours and "RESOURCE_EXHAUSTED" not in text


class Alone:
    """One process agrees with itself."""

    name, processes, index = "nothing", 1, 0

    def broadcast(self, value):
        return value

    def gather(self, value):
        return [value]

    def close(self):
        """Nothing."""


class OverMpi:
    """A communicator of its own, so that no message can meet those of others."""

    name = "MPI"

    def __init__(self, communicator):
        self._communicator = communicator.Dup()
        self.processes, self.index = communicator.size, communicator.rank

    def broadcast(self, value):
        return self._communicator.bcast(value, root=0)

    def gather(self, value):
        return self._communicator.allgather(value)

    def close(self):
        from mpi4py import MPI

        MPI.Finalize()  # here, and not at the exit of each: process 0 wants to be the last that ends


class OverCoordination:
    """Numbered keys in the key-value store that process 0's coordination service holds.

    client: of jax.distributed. A key is removed when two later ones have been read by everyone, which the order of
    the calls guarantees for those of a gather, and a barrier for the rest.
    """

    name = "the coordination service of JAX"
    BARRIER_EVERY = 64  # broadcasts between two barriers; until then their keys stay

    def __init__(self, client, processes: int, index: int):
        self._client, self.processes, self.index = client, processes, index
        self._count, self._old = 0, []

    def broadcast(self, value):
        key = self._next()
        if self.index == 0:
            self._client.key_value_set_bytes(key, pickle.dumps(value))
            self._old.append(key)
        else:
            value = self._get(key)
        if self._count % self.BARRIER_EVERY == 0:
            self._wait(f"{key}/done")
            self._drop()
        return value

    def gather(self, value):
        key = self._next()
        self._client.key_value_set_bytes(f"{key}/{self.index}", pickle.dumps(value))
        values = [self._get(f"{key}/{process}") for process in range(self.processes)]
        self._wait(f"{key}/done")
        self._old.append(f"{key}/{self.index}")
        self._drop()
        return values

    def close(self):
        """Its service goes with jax.distributed."""

    def _next(self) -> str:
        self._count += 1
        return f"nivp/{self._count}"

    def _get(self, key):
        try:
            return pickle.loads(self._client.blocking_key_value_get_bytes(key, int(1000 * TIMEOUT)))
        except RuntimeError as error:  # jaxlib's XlaRuntimeError, whatever its class is called
            raise ChannelError(f"no message from the other processes: {error}") from None

    def _wait(self, name: str) -> None:
        try:
            self._client.wait_at_barrier(name, int(1000 * TIMEOUT))
        except RuntimeError as error:
            raise ChannelError(f"the other processes do not come: {error}") from None

    def _drop(self) -> None:
        for key in self._old:
            self._client.key_value_delete(key)
        self._old = []


_current: Channel = Alone()


def current() -> Channel:
    """The channel of this process group. Without one set: alone, or over the service of a jax that was distributed
    by the user's own program."""
    import jax

    if _current.processes == 1 and jax.process_count() > 1:
        from jax._src import distributed  # the client has no public name

        use(OverCoordination(distributed.global_state.client, jax.process_count(), jax.process_index()))
    return _current


def use(channel: Channel) -> None:
    """Set the channel of this process."""
    global _current
    _current = channel
