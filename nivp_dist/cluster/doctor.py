"""`nivp doctor`: what every process finds on its host, and what would break a run. Every process calls ``examine``."""

import contextlib
import os
import resource
import secrets
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nivp_dist.cluster import agreement, channel, findings, host, session
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.lock import locks_work

SIZES = (1_000, 100_000, 1_000_000)  # float64 numbers of the timed all-reduces: p of small and of large networks
REPEATS = 15  # of each all-reduce; the median is reported
VISIBLE_SECONDS = 5.0  # for a new file to be seen by all: a network file system may show it late
PACKAGES = ("nivp_dist", "jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "mpi4py")


class Report(NamedTuple):
    """What was found. facts: of each process, in order. interconnect: timed all-reduces, by size.

    problems: one line each, with a remedy, for what would end a run or keep it from starting. warnings: the same for
    what would make a run slow.
    """

    facts: list[dict]
    interconnect: list[dict]
    problems: list[str]
    warnings: list[str]


def examine(directory: str | Path) -> Report:
    """Examine this group of processes, and the file system of the directory in which runs would be. Collective."""
    everyone = channel.current().gather(_facts(Path(directory)))
    interconnect = _time_all_reduces()
    facts = everyone, interconnect, Path(directory)
    return Report(everyone, interconnect, findings.problems(*facts), findings.warnings(*facts))


def lines(report: Report) -> list[str]:
    """The report as lines of plain text."""
    first = report.facts[0]
    several = f"{len(report.facts)} processes, started by {first['launcher']}, decisions over {first['control']}"
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    text = [several if len(report.facts) > 1 else "1 process, alone", f"python {first['python']}, {versions}"]
    text += _table(report.facts)
    for entry in report.interconnect:
        text.append(
            f"all-reduce of {entry['numbers']:,} float64: {1e3 * entry['seconds']:.3f} ms "
            f"over {entry['devices']} devices"
        )
    files = first["files"]
    if "error" not in files:
        text.append(
            f"{files['path']}: {files['free'] / 1e9:.1f} GB free, "
            f"1 MB written and synced in {1e3 * files['write']:.1f} ms, "
            f"locks {'work' if files['locks'] else 'do not work'}"
        )
    text += [f"warning: {warning}" for warning in report.warnings]
    return text + ([f"problem: {problem}" for problem in report.problems] or ["no problem found"])


def _table(facts: list[dict]) -> list[str]:
    """One line for each process, under a heading."""
    columns = ("process", "host", "pid", "devices", "memory", "CPUs", "host memory", "latency")
    rows = [columns] + [
        (
            str(fact["index"]),
            fact["host"],
            str(fact["pid"]),
            f"{len(fact['devices'])} {fact['platform']}: {_distinct(kind for kind, _, _ in fact['devices'])}",
            _distinct(_gibibytes(memory) for _, memory, _ in fact["devices"]),
            str(fact["cpus"]),
            _gibibytes(fact["memory"]),
            f"{1e3 * fact['latency']:.1f} ms",
        )
        for fact in facts
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.0f} GiB" if count else "-"


def _distinct(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


# Facts -----------------------------------------------------------------------------------------------


def _facts(directory: Path) -> dict:
    import jax

    from nivp_dist.backend import float64_rate

    place, group = session.current().topology, session.current().group
    return {
        "index": place.index,
        "processes": place.processes,
        "launcher": place.launcher,
        "control": channel.current().name,
        "mpi": _mpi_processes() if place.mpi else place.processes,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "versions": _versions(),
        "platform": jax.default_backend(),
        "devices": [(device.device_kind, _memory_of(device), _identity(device)) for device in jax.local_devices()],
        "slow_float64": float64_rate.warning(jax.local_devices()),
        "gpus_given": os.environ.get("SLURM_GPUS_ON_NODE") or os.environ.get("SLURM_JOB_GPUS") or "",
        "cpu_on_purpose": os.environ.get("JAX_PLATFORMS", "").startswith("cpu"),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cpus": host.cores(),
        "common": agreement.facts(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "latency": group.met.latency if group else 0.0,
        "clock": time.time(),
        "files": _write_here(directory),
        "shared": _sees_files_of_process_0(directory),
    }


def _versions() -> dict:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _mpi_processes() -> int:
    """The number of processes that mpi4py counts; 0 if it cannot be used."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return 0
    return MPI.COMM_WORLD.size


def _memory_of(device) -> int:
    return (device.memory_stats() or {}).get("bytes_limit", 0) if device.platform != "cpu" else 0


def _identity(device) -> str:
    """The number of the GPU on its host: two processes must not use the same one."""
    return str(getattr(device, "local_hardware_id", device.id)) if device.platform != "cpu" else ""


def _write_here(directory: Path) -> dict:
    """Write, sync, rename, lock and remove a file of this process; the place, free bytes and seconds, or the error."""
    path = directory / f".nivp-doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        started = time.monotonic()
        write_whole(path, os.urandom(1_000_000))
        seconds = time.monotonic() - started
        with open(path) as file:
            locks = locks_work(file)
        path.unlink()
        return {
            "path": str(directory.resolve()),
            "free": shutil.disk_usage(directory).free,
            "write": seconds,
            "locks": locks,
        }
    except OSError as error:
        return {"error": f"{error.strerror} ({error.filename or directory})"}


def _sees_files_of_process_0(directory: Path) -> bool:
    """Whether this process sees a file that process 0 writes. Collective."""
    messages = channel.current()
    name = messages.broadcast(f".nivp-doctor-{secrets.token_hex(6)}")
    if messages.index == 0:
        with contextlib.suppress(OSError):
            write_whole(directory / name, "a file of nivp doctor")
    messages.gather(None)  # now it is written
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not (seen := (directory / name).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    messages.gather(None)  # now all have looked for it
    if messages.index == 0:
        (directory / name).unlink(missing_ok=True)
    return seen


def _time_all_reduces() -> list[dict]:
    """Time what one CG iteration sends: a sum of p numbers over all devices. The seconds are medians over repeats."""
    import jax
    from jax.sharding import PartitionSpec as P

    from nivp_dist.backend.mesh import AXIS, make_mesh, replicate, to_host

    mesh = make_mesh()
    if mesh.size == 1:
        return []
    timings = []
    total = jax.jit(jax.shard_map(lambda v: jax.lax.psum(v, AXIS), mesh=mesh, in_specs=P(), out_specs=P()))
    for size in SIZES:
        vector, seconds = replicate(np.ones(size), mesh), []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            result = total(vector).block_until_ready()
            seconds.append(time.perf_counter() - started)
        correct = bool(np.all(to_host(result) == mesh.size))
        median = statistics.median(seconds[1:])  # the first call compiles
        timings.append({"numbers": size, "devices": mesh.size, "seconds": median, "correct": correct})
    return timings
