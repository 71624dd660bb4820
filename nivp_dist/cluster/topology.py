"""Which process of how many this is, and where they meet, from the environment alone: no network, no jax."""

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nivp_dist.errors import InputError

VARIABLES = ("NIVP_PROCESSES", "NIVP_PROCESS_ID", "NIVP_MEETING")
# The ports lie below the ephemeral ports of every system (Linux: from 32768), so that no outgoing connection holds one.
# There are several candidates because other programs may have taken some.
FIRST_PORT, PORT_RANGE, CANDIDATES = 20_000, 10_000, 16
# Variables of launchers of MPI programs: number of processes, index, and the two on this host, of which several
# spellings are in use. The first row that is set counts.
MPI_LAUNCHERS = (
    # Open MPI
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    # MVAPICH2, MVAPICH 3
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    ("MVP_COMM_WORLD_SIZE", "MVP_COMM_WORLD_RANK", "MVP_COMM_WORLD_LOCAL_SIZE", "MVP_COMM_WORLD_LOCAL_RANK"),
    # jsrun of LSF on IBM's machines, with other libraries than IBM's MPI, which sets those of Open MPI
    ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_SIZE", "JSM_NAMESPACE_LOCAL_RANK"),
    # Flux, which tells the processes of a host only their index
    ("FLUX_JOB_SIZE", "FLUX_TASK_RANK", "", "FLUX_TASK_LOCAL_ID"),
    # Hydra (MPICH, Intel MPI), and PALS (mpiexec of Cray machines)
    (
        "PMI_SIZE",
        "PMI_RANK",
        "MPI_LOCALNRANKS PMI_LOCAL_SIZE PALS_LOCAL_SIZE",
        "MPI_LOCALRANKID PMI_LOCAL_RANK PALS_LOCAL_RANKID",
    ),
)
# Variables by which a process knows that a launcher of MPI has started it, but not how many there are.
RANK_ALONE = ("PMIX_RANK", "PALS_RANKID")
OLD_NAMES = {  # of Slurm before 2.0, which some sites and container runtimes still set instead of the present ones
    "SLURM_JOBID": "SLURM_JOB_ID",
    "SLURM_STEPID": "SLURM_STEP_ID",
    "SLURM_NPROCS": "SLURM_NTASKS",
    "SLURM_NNODES": "SLURM_JOB_NUM_NODES",
    "SLURM_NODELIST": "SLURM_JOB_NODELIST",
}
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
    Raises InputError if the variables contradict themselves, or if a job has several tasks or nodes and this process
    was not started as one of several.
    """
    environment = {OLD_NAMES[name]: value for name, value in environment.items() if name in OLD_NAMES} | {**environment}
    if any(environment.get(name) for name in VARIABLES):
        return _local(environment)
    for size, rank, local_size, local_rank in MPI_LAUNCHERS:
        # srun sets the variables of PMI too; they then agree with those of its step. An mpirun inside of a job has
        # others than the step in which it runs.
        if environment.get(size) and not (size == "PMI_SIZE" and _is_step_of(environment, size, rank)):
            processes, index = _number(environment, size), _number(environment, rank)
            if processes == 1:
                return Topology(1, 0, "alone")
            local = _first_number(environment, local_size, _share_of_node(environment, processes))
            local_index = _first_number(environment, local_rank, 0)
            return _checked(Topology(processes, index, "mpirun", local, local_index, mpi=True))
    if environment.get("SLURM_JOB_ID"):
        return _slurm(environment)
    if found := [name for name in RANK_ALONE if environment.get(name)]:
        raise InputError(
            f"environment: {found[0]} is set, and no variable says how many processes there are: start them with "
            "`mpirun -n N nivp run ...` or `srun nivp run ...`, or set NIVP_PROCESSES=1 to run in this one"
        )
    _require_one_host(environment)
    return Topology(1, 0, "alone")


def _share_of_node(environment, processes: int) -> int:
    """How many processes Flux has started on this host, if all hosts have as many; 1 for other launchers."""
    nodes = _number(environment, "FLUX_JOB_NNODES", processes) if environment.get("FLUX_JOB_SIZE") else processes
    return max(processes // nodes, 1) if nodes else 1


def _require_one_host(environment) -> None:
    """Raises InputError in a job of PBS or LSF that has several hosts, of which this process would use one."""
    try:
        hosts = set(Path(environment.get("PBS_NODEFILE", "")).read_text("utf-8").split())
    except OSError:  # not a job of PBS, or not its first host
        hosts = set()
    job, launcher = f"PBS job {environment.get('PBS_JOBID', '')}", "mpiexec"
    if environment.get("LSB_JOBID"):  # the hosts in turn with the number of slots on each
        hosts = set(environment.get("LSB_MCPU_HOSTS", "").split()[::2])
        job, launcher = f"LSF job {environment['LSB_JOBID']}", "mpirun"
    if len(hosts) > 1:
        raise InputError(
            f"environment: {job} has {len(hosts)} hosts and this is one process on one of them: start all with "
            f"`{launcher} nivp run ...`, or set NIVP_PROCESSES=1 to run in this one"
        )


def _local(environment) -> Topology:
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing and environment.get("NIVP_PROCESSES") != "1":
        present = next(name for name in VARIABLES if environment.get(name))
        raise InputError(f"environment: {present} is set but {missing[0]} is not: set all of {', '.join(VARIABLES)}")
    processes, index = _number(environment, "NIVP_PROCESSES"), _number(environment, "NIVP_PROCESS_ID", 0)
    if processes == 1:
        return Topology(1, 0, "alone")
    host, _, ports = environment["NIVP_MEETING"].rpartition(":")
    if not host or not re.fullmatch(r"\d+(,\d+)*", ports):
        raise InputError(f"environment: NIVP_MEETING must be HOST:PORT[,PORT...], got {environment['NIVP_MEETING']!r}")
    meeting = Meeting(host, tuple(map(int, ports.split(","))), f"local-{ports}")
    return _checked(Topology(processes, index, "launch/local", processes, index, meeting))


def _slurm(environment) -> Topology:
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or "1"
    if environment.get("SLURM_STEP_ID", "") in ("", BATCH_STEP):
        if tasks != "1":
            raise InputError(
                f"environment: Slurm job {environment['SLURM_JOB_ID']} has {tasks} tasks and this is one process "
                "outside of them: start all with `srun nivp run ...`, or set NIVP_PROCESSES=1 to run in this one"
            )
        nodes = environment.get("SLURM_JOB_NUM_NODES") or "1"
        if nodes != "1":
            raise InputError(
                f"environment: Slurm job {environment['SLURM_JOB_ID']} has {nodes} nodes and this is one process "
                "on one of them: start one on each with `srun nivp run ...`, or set NIVP_PROCESSES=1 to run in this one"
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


def _first_number(environment, names: str, default: int) -> int:
    """The value of the first of these variables, names separated by spaces, that is set."""
    return next((_number(environment, name) for name in names.split() if environment.get(name)), default)


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
