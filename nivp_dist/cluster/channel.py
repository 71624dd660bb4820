"""Small messages between the host programs of the processes of a run: over MPI, or over JAX's coordination service.

No device takes part, so that a message which does not come can time out.
"""

import pickle
from typing import Any, Protocol

TIMEOUT_SECONDS = 1800.0  # of a message; the watchdog ends a run that waits for longer than cluster.deadline_minutes


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

    def close(self) -> None:
        """The last call on each process."""


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
        return value

    def gather(self, value):
        return [value]

    def close(self):
        """There is nothing to close."""


class MpiChannel:
    """Messages over MPI, on a communicator of their own: they cannot be confused with those of other libraries.

    communicator: MPI's world, of mpi4py.
    """

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

        # Finalize waits for all processes. mpi4py would call it when the interpreter exits, but process 0 has to exit
        # after the others.
        MPI.Finalize()


class CoordinationChannel:
    """Messages over the key-value store of JAX's coordination service, which process 0 runs, under numbered keys.

    client: of the coordination service. A process may delete its key when all others have read it. After a gather the
    barrier at its end guarantees that; the keys of broadcasts stay until the next barrier.
    """

    name = "the coordination service of JAX"
    BARRIER_EVERY = 64  # messages; a barrier after each would double the cost of a broadcast

    def __init__(self, client, processes: int, index: int):
        self._client, self.processes, self.index = client, processes, index
        self._count, self._own_keys = 0, []

    def broadcast(self, value):
        key = self._next_key()
        if self.index == 0:
            self._client.key_value_set_bytes(key, pickle.dumps(value))
            self._own_keys.append(key)
        else:
            value = self._get(key)
        if self._count % self.BARRIER_EVERY == 0:
            self._wait_for_all(f"{key}/done")
            self._delete_own_keys()
        return value

    def gather(self, value):
        key = self._next_key()
        self._client.key_value_set_bytes(f"{key}/{self.index}", pickle.dumps(value))
        values = [self._get(f"{key}/{process}") for process in range(self.processes)]
        self._wait_for_all(f"{key}/done")
        self._own_keys.append(f"{key}/{self.index}")
        self._delete_own_keys()
        return values

    def close(self):
        """The service ends with jax.distributed."""

    def _next_key(self) -> str:
        self._count += 1
        return f"nivp/{self._count}"

    def _get(self, key: str):
        try:
            return pickle.loads(self._client.blocking_key_value_get_bytes(key, int(1000 * TIMEOUT_SECONDS)))
        except RuntimeError as error:  # jaxlib's error, whose class has had several names
            raise ChannelError(f"no message from the other processes: {error}") from None

    def _wait_for_all(self, barrier: str) -> None:
        try:
            self._client.wait_at_barrier(barrier, int(1000 * TIMEOUT_SECONDS))
        except RuntimeError as error:
            raise ChannelError(f"the other processes do not come: {error}") from None

    def _delete_own_keys(self) -> None:
        for key in self._own_keys:
            self._client.key_value_delete(key)
        self._own_keys = []


_current: Channel = SingleProcess()


def current() -> Channel:
    """The channel of this process, as ``use`` has set it.

    Without one it is that of a single process; or, if the user's own program has called jax.distributed.initialize, one
    over that service.
    """
    import jax

    from nivp_dist.backend import private_api

    if _current.processes == 1 and jax.process_count() > 1:
        use(CoordinationChannel(private_api.coordination_client(), jax.process_count(), jax.process_index()))
    return _current


def use(channel: Channel) -> None:
    """Set the channel of this process."""
    global _current
    _current = channel
