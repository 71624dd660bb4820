"""This process among the others of its run: connected, watched, checked; and how it leaves."""

import contextlib
import glob
import os
import re
import secrets
import socket
import sys
import warnings
from importlib import metadata
from pathlib import Path

from nivp_dist.cluster import aborts, channel, programs, topology
from nivp_dist.cluster.group import Group
from nivp_dist.cluster.logs import Log
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.cluster.watchdog import Watchdog
from nivp_dist.errors import FINISHED, InputError
from nivp_dist.settings.model import ClusterSettings

PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
# Seconds. The group notices a lost process long before the service of JAX would, which in turn must not give up a job
# that its scheduler has suspended.
HEARTBEAT = 30 * 86_400
PARTING = 600  # seconds that a process waits for process 0 to draw the pictures


class Session:
    """One process alone, or one of a group. Made by ``connect``."""

    def __init__(self, place: Topology, group: Group | None = None, watchdog: Watchdog | None = None):
        self.topology, self.group, self.watchdog = place, group, watchdog
        self.log: Log | None = None

    def command(self, label: str) -> None:
        """To be called before everything that all processes do together."""
        if self.watchdog is not None:
            self.watchdog.command(label)

    def open_log(self, directory: Path) -> Log:
        """The log of this process in the run directory: who wrote it, warnings of libraries, stacks.

        Raises DiskFailed if it cannot be opened.
        """
        self.log, place = Log(directory, self.topology.index), self.topology
        control = f", decisions over {channel.current().name}" if place.processes > 1 else ""
        self.say(f"one of {place.processes} on {socket.gethostname()}{control}, pid {os.getpid()}")
        if self.group is not None:
            self.watchdog.write_to(self.log)
            self.group.on_end = self.log.say_last
        return self.log

    def say(self, message: str) -> None:
        """A line, or several, in this process's log."""
        if self.log is not None:
            self.log.say(message)

    def fail(self, cause: str, code: int, echo: bool) -> None:
        """Of a group: end all of it. Does not return then."""
        if self.group is not None:
            self.say(f"failed: {cause}")
            self.group.fail(cause, code, echo)

    def leave(self, code: int) -> int:
        """The orderly end, which all processes reach; the exit code of this one.

        Only process 0 ends with another one than 0, as the last: srun and mpirun kill everybody at the first.
        """
        if self.group is None:
            return code
        import jax

        self.command("leave")
        sys.stdout.flush()
        jax.distributed.shutdown()
        channel.current().close()
        self.group.leave()
        return code if self.topology.index == 0 else FINISHED


_session = Session(Topology(1, 0, "alone"))


def current() -> Session:
    """The session of this process: alone, until ``connect``."""
    return _session


def connect(settings: ClusterSettings, environment=os.environ, check: bool = True) -> Session:
    """Find the others, if there are any, and start jax with them. Every process calls it, before anything of jax.

    check: that all have the same software and devices, and the GPUs of their job (`nivp doctor` looks for itself).
    Raises InputError or RunFailed: numbers that do not agree, processes that do not come, GPUs that are not seen.
    """
    global _session
    place = topology.detect(environment)
    if place.processes == 1:
        programs.keep(settings, place, _session.say)
        if check:
            _require_gpus(environment)
        return _session
    communicator = _communicator(place, settings.control)
    meeting = place.meeting or _agree_on_meeting(communicator)
    control = None if communicator is None else channel.OverMpi(communicator)
    if control is not None and settings.control == "coordination":
        control = control.close()  # it was there to agree where to meet
    aborts.hold_up()
    group = Group(place, meeting, settings.startup_seconds)
    _session = Session(place, group, Watchdog(group, 60 * settings.deadline_minutes))
    _start_jax(place, group, f"{_address(meeting, group)}:{group.port}", settings, environment)
    programs.keep(settings, place, _session.say)
    if control is not None:
        channel.use(control)
    if check:
        _require_likeness(place)
        _require_gpus(environment)
    return _session


def _communicator(place: Topology, control: str):
    """MPI's world, if it is to be used: where mpirun started us (at least to agree where to meet), or srun with a PMI
    that mpi4py understands."""
    if control == "coordination" and place.meeting is not None or not (place.mpi or control == "mpi"):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # mpi4py's own, of what is said below in one line
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if place.meeting is not None and control != "mpi":
            return None
        line = str(error).splitlines()[0]
        raise InputError(
            f"{place.launcher} started {place.processes} processes, and mpi4py cannot be used ({line}): "
            "pip install mpi4py, with the MPI of this mpirun"
        ) from None
    if MPI.COMM_WORLD.size != place.processes:
        if place.meeting is not None and control != "mpi":
            return None
        library = MPI.Get_library_version().splitlines()[0].strip("\x00 ")
        raise InputError(
            f"{place.launcher} started {place.processes} processes, and mpi4py sees {MPI.COMM_WORLD.size}: it was "
            f"built for another MPI ({library}); use that one's mpirun, or srun without MPI, or launch/local"
        )
    return MPI.COMM_WORLD


def _agree_on_meeting(communicator) -> Meeting:
    token = communicator.bcast(secrets.token_hex(8), root=0)
    hosts = communicator.allgather(socket.gethostname())
    host = "localhost" if len(set(hosts)) == 1 else hosts[0]
    return Meeting(host, topology.ports_of(token), token)


def _address(meeting: Meeting, group: Group) -> str:
    return "localhost" if group.index == 0 else meeting.host


def _start_jax(place: Topology, group: Group, coordinator: str, settings: ClusterSettings, environment) -> None:
    for name in list(os.environ):
        if name.lower() in PROXIES:  # gRPC would look for the coordinator behind the proxy, for ever
            del os.environ[name]
    import jax

    with contextlib.suppress(AttributeError):  # a jax that has no such switch any more
        # Its handler in C would swallow SIGTERM; signals are ours (cluster/signals.py).
        jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=coordinator,
        num_processes=place.processes,
        process_id=place.index,
        local_device_ids=topology.local_devices(place, environment, visible_gpus(environment)),
        cluster_detection_method="deactivate",
        initialization_timeout=int(settings.startup_seconds),
        heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=PARTING,
    )
    jax.devices()  # the processes exchange them here


def visible_gpus(environment) -> int:
    """GPUs that this process may use, without asking a driver."""
    if environment.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return 0
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return len([entry for entry in listed.split(",") if entry.strip() not in ("", "-1", "NoDevFiles")])
    return len([path for path in glob.glob("/dev/nvidia*") if re.fullmatch(r"/dev/nvidia\d+", path)])


def _require_likeness(place: Topology) -> None:
    """Processes of one run have the same software and the same number of devices."""
    import jax

    mine = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
    mine |= {"devices": jax.local_device_count(), "platform": jax.default_backend()}
    everyone = channel.current().gather((socket.gethostname(), mine))
    for index, (host, theirs) in enumerate(everyone):
        for name, value in theirs.items():
            if value != everyone[0][1][name]:
                raise InputError(
                    f"process {index} on {host} has {name} {value}, process 0 on {everyone[0][0]} has "
                    f"{everyone[0][1][name]}: all must have the same; `nivp doctor` under the same launcher shows each"
                )
    if jax.process_count() != place.processes:
        raise InputError(f"jax counts {jax.process_count()} processes, {place.launcher} started {place.processes}")


def _require_gpus(environment) -> None:
    """That a GPU job does not quietly run on the host."""
    given = environment.get("SLURM_GPUS_ON_NODE") or environment.get("SLURM_JOB_GPUS")
    if not given or environment.get("JAX_PLATFORMS"):
        return
    import jax

    if jax.default_backend() == "cpu":
        raise InputError(
            f"Slurm gave GPUs on {socket.gethostname()} and jax sees none: pip install 'nivp_dist[cuda12]' "
            "(or cuda13), or set JAX_PLATFORMS=cpu to run without"
        )
