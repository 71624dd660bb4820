"""Who am I, how many are we, where is the coordinator: a pure function of the environment."""

import os
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
