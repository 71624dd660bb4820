"""Which process of how many this is, and where they meet, from the environment alone: no network, no jax."""

import os
import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from nivp_dist.errors import InputError

VARIABLES = ("NIVP_PROCESSES", "NIVP_PROCESS_ID", "NIVP_MEETING")
# The ports lie below the ephemeral ports of every system (Linux: from 32768), so that no outgoing connection holds one.
# There are several candidates because other programs may have taken some.
FIRST_PORT, PORT_RANGE, CANDIDATES = 20_000, 10_000, 16
BATCH_STEP = "4294967291"  # SLURM_STEP_ID of a batch script, in some versions (SLURM_BATCH_SCRIPT in slurm.h)


class Meeting(NamedTuple):
    """Where process 0 can be reached: on one of these ports of its host. The token identifies its group."""

    host: str
    ports: tuple[int, ...]
    token: str


class Topology(NamedTuple):
    """The place of this process in its group."""

    processes: int
    index: int
    launcher: str  # "alone", "launch/local", "mpirun", "srun"
    local_processes: int = 1  # processes on this host
    local_index: int = 0
    meeting: Meeting | None = None  # None: alone, or the processes agree on it over MPI
    mpi: bool = False  # the launcher offers MPI's process management interface


def detect(environment: Mapping[str, str] = os.environ) -> Topology:
    """The topology, from the variables that launch/local, mpirun or srun has set.

    They are looked for in this order, because srun may start mpirun, and that launch/local; the inner one counts.
    Raises InputError if the variables contradict themselves, or if a Slurm job has several tasks and this process was
    not started as one of them.
    """
    if any(environment.get(name) for name in VARIABLES):
        return _local(environment)
    for size, rank, local_size, local_rank in (
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
    ):
        # srun sets the variables of PMI too; they then agree with those of its step. An mpirun inside of a job has
        # others than the step in which it runs.
        if environment.get(size) and not (size == "PMI_SIZE" and _is_step_of(environment, size, rank)):
            processes, index = _number(environment, size), _number(environment, rank)
            if processes == 1:
                return Topology(1, 0, "alone")
            local = [_number(environment, name, default) for name, default in ((local_size, 1), (local_rank, 0))]
            return _checked(Topology(processes, index, "mpirun", local[0], local[1], mpi=True))
    if environment.get("SLURM_JOB_ID"):
        return _slurm(environment)
    return Topology(1, 0, "alone")


def _local(environment) -> Topology:
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing and environment.get("NIVP_PROCESSES") != "1":
        present = next(name for name in VARIABLES if environment.get(name))
        raise InputError(f"environment: {present} is set but {missing[0]} is not: set all of {', '.join(VARIABLES)}")
    processes, index = _number(environment, "NIVP_PROCESSES"), _number(environment, "NIVP_PROCESS_ID", 0)
    if processes == 1:
        return Topology(1, 0, "alone")
    host, _, port = environment["NIVP_MEETING"].rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"environment: NIVP_MEETING must be HOST:PORT, got {environment['NIVP_MEETING']!r}")
    meeting = Meeting(host, (int(port),), f"local-{port}")
    return _checked(Topology(processes, index, "launch/local", processes, index, meeting))


def _slurm(environment) -> Topology:
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if environment.get("SLURM_STEP_ID", "") in ("", BATCH_STEP):
        if tasks != "1":
            raise InputError(
                f"environment: Slurm job {environment['SLURM_JOB_ID']} has {tasks} tasks and this is one process "
                "outside of them: start all with `srun nivp run ...`, or set NIVP_PROCESSES=1 to run in this one"
            )
        return Topology(1, 0, "alone")
    processes, index = _number({"SLURM_NTASKS": tasks}, "SLURM_NTASKS"), _number(environment, "SLURM_PROCID")
    if processes == 1:
        return Topology(1, 0, "alone")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "localhost"
    per_node = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE") or "1"
    counts, node = tasks_per_node(per_node), _number(environment, "SLURM_NODEID", 0)
    if sum(counts) != processes or node >= len(counts):
        raise InputError(
            f"environment: the tasks per node {per_node!r} are not the {processes} tasks of the step, or have no node "
            f"{node}: was SLURM_NTASKS set by hand? `env | grep SLURM` under srun shows them"
        )
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    token = ".".join(environment.get(name, "0") for name in names)
    meeting = Meeting(first_host(nodes), ports_of(token), token)
    mpi = bool(environment.get("PMI_RANK") or environment.get("PMIX_RANK"))
    return _checked(
        Topology(processes, index, "srun", counts[node], _number(environment, "SLURM_LOCALID", 0), meeting, mpi)
    )


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: node[03-07,9],login1 -> node03; rack[1-2]n[1-4] -> rack1n1."""
    first = re.match(r"(?:\[[^]]*\]|[^,\[])+", nodelist.strip())
    if first is None:
        raise InputError(f"environment: the node list {nodelist!r} names no host")
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first[0])


def tasks_per_node(text: str) -> list[int]:
    """The tasks of each node, from Slurm's short form: 4(x2),3 -> [4, 4, 3]."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise InputError(f"environment: the tasks per node {text!r} cannot be read")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def ports_of(token: str) -> tuple[int, ...]:
    """The ports on which a group may meet, in this order; process 0 takes the first that is free.

    They are a hash of the token, so that other jobs, steps and restarts on the same host try others.
    """
    return tuple(FIRST_PORT + zlib.crc32(f"{token} {number}".encode()) % PORT_RANGE for number in range(CANDIDATES))


def local_devices(topology: Topology, environment: Mapping[str, str], visible: int) -> list[int] | None:
    """The positions of this process's GPUs among those that it sees; None: it uses all of them, or there are none.

    visible: how many it sees. A process alone on its host uses all. Several processes divide them by position, unless
    the scheduler has already given each its own. (By default jax would use the GPU whose number is the local index,
    which may then be missing or belong to another process: jax issue 23452.)

    Raises InputError if the processes of a host cannot share its GPUs evenly.
    """
    k, own = topology.local_processes, environment.get("SLURM_GPUS_PER_TASK") or environment.get("SLURM_TRES_PER_TASK")
    on_node = environment.get("SLURM_GPUS_ON_NODE", "")
    given = bool(own) or (on_node.isdigit() and visible < int(on_node))
    if visible == 0 or k == 1 or given:
        return None
    if visible == 1:
        raise InputError(f"{k} processes share one GPU on this host: start one process a GPU (--ntasks-per-node=1)")
    if visible % k:
        raise InputError(
            f"{k} processes on this host cannot share its {visible} GPUs evenly: start one process a GPU, or one a host"
        )
    share = visible // k
    return list(range(topology.local_index * share, (topology.local_index + 1) * share))


def _is_step_of(environment, size: str, rank: str) -> bool:
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS")
    same = environment.get(size) == tasks and environment.get(rank) == environment.get("SLURM_PROCID")
    return bool(environment.get("SLURM_STEP_ID")) and same


def _number(environment, name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdigit():
        raise InputError(f"environment: {name} must be a whole number, got {text!r}")
    return int(text)


def _checked(topology: Topology) -> Topology:
    if not 0 <= topology.index < topology.processes:
        raise InputError(
            f"environment: the index of this process, {topology.index}, is not in 0..{topology.processes - 1}"
        )
    return topology
