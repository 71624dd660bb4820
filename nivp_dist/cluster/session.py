"""This process as a member of its run: it connects with the others, is watched, keeps a log, and leaves."""

import contextlib
import os
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from nivp_dist.cluster import aborts, channel, compilation_cache, startup_checks, topology
from nivp_dist.cluster.group import Group
from nivp_dist.cluster.logs import Log
from nivp_dist.cluster.secret import shared_secret
from nivp_dist.cluster.topology import Meeting, Topology
from nivp_dist.cluster.watchdog import Alone, Watchdog
from nivp_dist.errors import FAILED, FINISHED, InputError
from nivp_dist.settings.model import ClusterSettings

PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
# Seconds without a sign of life after which JAX's own service gives a process up. The group notices a lost process long
# before; JAX must never do so, because a job that its scheduler has suspended is silent for hours.
JAX_HEARTBEAT_SECONDS = 30 * 86_400


class Session:
    """A process that is alone, or one of a group. Made by ``connect``.

    topology: of this process. group: None if it is alone. watchdog: None if it is alone and outside of ``watched``.
    log: None until ``open_log``. is_script: whether the process is a script of the user (``cluster.script``), to which
    standard output belongs.
    """

    def __init__(self, place: Topology, group: Group | None = None, watchdog: Watchdog | None = None):
        self.topology, self.group, self.watchdog = place, group, watchdog
        self.log: Log | None = None
        self.is_script = False
        self._parted = False
        self._before_log: list[str] = []  # messages from before the log is open

    def begin(self, label: str) -> None:
        """This process begins a command that all processes carry out together: the watchdog's deadline starts again."""
        if self.watchdog is not None:
            self.watchdog.begin(label)

    def open_log(self, directory: Path) -> Log:
        """Open the log of this process in the run directory. It gets warnings of libraries, stacks, and the last cause.

        Raises DiskFailed if it cannot be opened.
        """
        self.log, place = Log(directory, self.topology.index), self.topology
        control = f", decisions over {channel.current().name}" if place.processes > 1 else ""
        self.write_log(f"one of {place.processes} on {socket.gethostname()}{control}, pid {os.getpid()}")
        for message in self._before_log:
            self.write_log(message)
        self._before_log = []
        if self.group is not None and self.watchdog is not None:
            self.watchdog.write_to(self.log)
            self.group.on_end = self.log.write_last_line
            if not self.is_script:
                self.log.take_native_output()
            if self.group.met.strangers:
                self.write_log(f"{self.group.met.strangers} connections without the secret of the run were refused")
        return self.log

    @contextlib.contextmanager
    def watched(self, settings: ClusterSettings) -> Iterator[None]:
        """A context in which the deadline holds, for a process that is alone too. Its log is open.

        A group has its watchdog for as long as it lives. A process that is alone may be a notebook, which waits for its
        user between two runs.
        """
        if self.watchdog is not None or self.log is None:
            yield
            return
        self.watchdog = Watchdog(Alone(self.log.write_last_line), 60 * settings.deadline_minutes)
        self.watchdog.log = self.log
        try:
            yield
        finally:
            self.watchdog.stop()
            self.watchdog = None

    def write_log(self, message: str) -> None:
        """Append a message to the log of this process. Before it is open, the message is kept for it."""
        if self.log is None:
            self._before_log.append(message)
        else:
            self.log.write_line(message)

    def fail(self, cause: str, code: int, consequence: bool) -> None:
        """End the whole group because of this process; does not return. Does nothing if this process is alone by now.

        consequence: the cause may be the consequence of another process's failure.
        """
        if self.group is not None and not self._parted:
            self.write_log(f"failed: {cause}")
            self.group.fail(cause, code, consequence)

    def part(self) -> None:
        """The orderly end of a run that has finished, which all processes reach. Nothing collective may follow.

        Process 0 returns when the others have ended, which they do soon, or after ten seconds.
        """
        self._part(FINISHED, "the run has finished, MPI_Finalize does not return: draw the pictures with `nivp plot`")

    def leave(self, code: int, last_line: str = "") -> int:
        """The orderly end, which all processes reach; returns the exit code of this one.

        Only process 0 ends with the code that is given, and as the last: srun and mpirun kill all processes at the
        first exit code that is not 0. It writes the last line to standard error when the others are gone.
        """
        self._part(code, last_line)
        return self._finish(code, last_line)

    def _part(self, code: int, last_line: str) -> None:
        """Part from the other processes, if that has not happened. code, last_line: for an end without MPI."""
        if self.group is None or self._parted:
            return
        import jax

        group = self.group
        self.begin("leave")
        sys.stdout.flush()
        jax.distributed.shutdown()

        def end_without_mpi() -> None:
            self.write_log(
                f"MPI_Finalize has not returned within {channel.FINALIZE_SECONDS:g} s: this process ends without it"
            )
            group.leave()
            os._exit(self._finish(code, last_line))

        channel.current().close(end_without_mpi)
        group.leave()
        self._parted = True
        if self.watchdog is not None:
            self.watchdog.watch_alone()

    def _finish(self, code: int, last_line: str) -> int:
        if last_line and self.topology.index == 0:
            sys.stderr.write(f"nivp: {' '.join(last_line.split())}\n")
            sys.stderr.flush()
        return code if self.topology.index == 0 else FINISHED


_session = Session(Topology(1, 0, "alone"))


def current() -> Session:
    """The session of this process: alone, until ``connect`` has been called."""
    return _session


def connect(settings: ClusterSettings, environment: Mapping[str, str] = os.environ, check: bool = True) -> Session:
    """Find the other processes of the run, if there are any, and start jax with them.

    Every process calls this before it uses jax. check: whether to require that all processes have equal hosts, software
    and devices, and the GPUs of their job (`nivp doctor` reports on these itself).

    Raises InputError or RunFailed: the environment contradicts itself, processes do not come, GPUs are not found.
    """
    global _session
    place = topology.detect(environment)
    if place.processes == 1:
        startup_checks.require_platform(environment)
        compilation_cache.enable(settings, place, _warn)
        if check:
            startup_checks.require_gpus(environment)
        return _session
    communicator = _communicator(place, settings.control)
    mpi = None if communicator is None else channel.MpiChannel(communicator)
    meeting = place.meeting
    if meeting is None:
        assert mpi is not None  # only MPI starts processes without telling them where to meet
        meeting = _agree_on_meeting(mpi)
    secret = shared_secret(meeting.token, environment) if mpi is None else _agree_on_secret(mpi)
    if mpi is not None and settings.control == "coordination":
        mpi.close(_give_up_mpi)  # it was only needed to agree on the meeting
        mpi = None
    aborts.delay_aborts()
    group = Group(place, meeting, secret, settings)
    _session = Session(place, group, Watchdog(group, 60 * settings.deadline_minutes))
    _start_jax(place, group, settings, environment)
    compilation_cache.enable(settings, place, _warn)
    channel.use(mpi or channel.over_coordination(group.met.run_key, 60 * settings.deadline_minutes))
    if check:
        startup_checks.require_agreement(place)
        startup_checks.require_gpus(environment)
    return _session


def _communicator(place: Topology, control: str):
    """MPI's world if it is to be used, else None.

    It is used if mpirun has started this process (at least to agree on the place of the meeting), or srun with a
    process management interface that mpi4py understands. Raises InputError if it must be used and cannot.
    """
    optional = place.meeting is not None and control != "mpi"
    if (control == "coordination" and optional) or not (place.mpi or control == "mpi"):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # the message below says the same in one line
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if optional:
            return None
        line = str(error).splitlines()[0]
        raise InputError(
            f"{place.launcher} started {place.processes} processes, and mpi4py cannot be used ({line}): "
            "pip install mpi4py, with the MPI of this mpirun"
        ) from None
    if MPI.COMM_WORLD.size != place.processes:
        if optional:
            return None
        library = MPI.Get_library_version().splitlines()[0].strip("\x00 ")
        raise InputError(
            f"{place.launcher} started {place.processes} processes, and mpi4py sees {MPI.COMM_WORLD.size}: it was "
            f"built for another MPI ({library}); use that one's mpirun, or srun without MPI, or launch/local"
        )
    return MPI.COMM_WORLD


def _warn(message: str) -> None:
    """Write a message into the log, and on process 0 also to the screen."""
    _session.write_log(f"WARNING {message}")
    if _session.topology.index == 0:
        sys.stderr.write(f"nivp: warning: {message}\n")


def _agree_on_meeting(mpi: channel.MpiChannel) -> Meeting:
    token = mpi.broadcast(secrets.token_hex(8))
    hosts = mpi.gather(socket.gethostname())
    host = "localhost" if len(set(hosts)) == 1 else hosts[0]
    return Meeting(host, topology.ports_of(token), token)


def _agree_on_secret(mpi: channel.MpiChannel) -> bytes:
    return bytes.fromhex(mpi.broadcast(secrets.token_hex(32)))


def _give_up_mpi() -> None:
    os.write(2, b"nivp: MPI_Finalize does not return: start without mpirun, or set cluster.control = 'mpi'\n")
    os._exit(FAILED)


def _start_jax(place: Topology, group: Group, settings: ClusterSettings, environment: Mapping[str, str]) -> None:
    for name in list(os.environ):
        if name.lower() in PROXIES:  # gRPC would look for the coordinator behind the proxy, without a time limit
            del os.environ[name]
    import jax

    with contextlib.suppress(AttributeError):  # later versions of jax may not have this option any more
        # Its handler of SIGTERM, in C, would replace ours (cluster/signals.py).
        jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=group.met.coordinator,
        coordinator_bind_address=group.met.bind or None,
        num_processes=place.processes,
        process_id=place.index,
        local_device_ids=topology.local_devices(place, environment, startup_checks.visible_gpus(environment)),
        cluster_detection_method="deactivate",
        initialization_timeout=int(settings.startup_seconds),
        heartbeat_timeout_seconds=JAX_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=int(settings.shutdown_seconds),
    )
    jax.devices()  # the processes exchange their lists of devices here
