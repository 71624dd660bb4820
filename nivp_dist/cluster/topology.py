"""Who am I, how many are we, where is the coordinator: a pure function of the environment."""

import contextlib
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from nivp_dist.errors import InputError

VARIABLES = ("NIVP_PROCESSES", "NIVP_PROCESS_ID", "NIVP_COORDINATOR")


class Topology(NamedTuple):
    """processes, this process's index, and the coordinator's host:port (None for one process)."""

    processes: int
    index: int
    coordinator: str | None


def detect(environment: Mapping[str, str] = os.environ) -> Topology:
    """From the variables that `launch/local` sets. Raises InputError if they contradict each other."""
    present = [name for name in VARIABLES if environment.get(name)]
    if not present:
        return Topology(1, 0, None)
    missing = [name for name in VARIABLES if name not in present]
    if missing:
        raise InputError(f"environment: {present[0]} is set but {missing[0]} is not: set all of {', '.join(VARIABLES)}")
    try:
        processes, index = int(environment["NIVP_PROCESSES"]), int(environment["NIVP_PROCESS_ID"])
    except ValueError:
        raise InputError("environment: NIVP_PROCESSES and NIVP_PROCESS_ID must be whole numbers") from None
    if not 0 <= index < processes:
        raise InputError(f"environment: NIVP_PROCESS_ID = {index} is not in 0..{processes - 1}")
    return Topology(processes, index, environment["NIVP_COORDINATOR"])


def initialise(topology: Topology) -> None:
    """Connect the processes; every argument explicit, so that nothing is guessed."""
    if topology.processes == 1:
        return
    import jax

    jax.distributed.initialize(
        coordinator_address=topology.coordinator,
        num_processes=topology.processes,
        process_id=topology.index,
        initialization_timeout=120,
        heartbeat_timeout_seconds=60,
        shutdown_timeout_seconds=30,
    )
    # The devices of all are exchanged here: a mistake found next must not end one process while another still asks.
    jax.devices()


def part(seconds: float = 2.0) -> None:
    """Before a process leaves with an error: wait briefly for the others, who most likely leave for the same one.

    A coordinator that is gone makes them abort, with pages of it. One that cannot come is not waited for.
    """
    from jax._src import distributed  # the client of the coordination service has no public name

    state = distributed.global_state
    with contextlib.suppress(Exception):
        state.client.wait_at_barrier("part", int(1000 * seconds))
        if state.process_id == 0:
            time.sleep(0.2)  # the coordinator goes last
