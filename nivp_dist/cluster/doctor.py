"""`nivp doctor`: what every process sees, and what would break a run. Every process calls ``examine``."""

import contextlib
import os
import resource
import secrets
import shutil
import socket
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nivp_dist.cluster import channel, session
from nivp_dist.storage import run_directory
from nivp_dist.storage.files import write_whole

SIZES = (1_000, 100_000, 1_000_000)  # float64 numbers of the timed all-reduces: p of small and of large networks
REPEATS = 15
SPACE, SLOW_WRITE, SLOW_REACH, SKEW = 1e9, 2.0, 1.0, 60.0  # bytes; seconds beyond which a line is worth it
PACKAGES = ("nivp_dist", "jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "mpi4py")


class Report(NamedTuple):
    """What was found: facts of each process in order, timings of the interconnect, and problems with their mends."""

    facts: list[dict]
    interconnect: list[dict]
    problems: list[str]


def examine(directory: str | Path) -> Report:
    """Look at this group of processes, and at the file system of `directory`, where runs would be. Collective."""
    everyone = channel.current().gather(_facts(Path(directory)))
    interconnect = _time_all_reduces()
    problems = _software(everyone) + _devices(everyone) + _files(everyone, Path(directory)) + _network(everyone)
    return Report(everyone, interconnect, list(dict.fromkeys(problems)))


def lines(report: Report) -> list[str]:
    """The report as plain text, fit for a batch log."""
    first = report.facts[0]
    many = f"{len(report.facts)} processes, started by {first['launcher']}, decisions over {first['control']}"
    text = [many if len(report.facts) > 1 else "1 process, alone"]
    text += [
        f"python {first['python']}, " + ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    ]
    columns = ("process", "host", "pid", "devices", "memory", "CPUs", "host memory", "reach")
    rows = [columns] + [
        (
            str(fact["index"]),
            fact["host"],
            str(fact["pid"]),
            f"{len(fact['devices'])} {fact['platform']}: {_each_once(kind for kind, _, _ in fact['devices'])}",
            _each_once(_giga(memory) for _, memory, _ in fact["devices"]),
            str(fact["cpus"]),
            _giga(fact["memory"]),
            f"{1e3 * fact['reach']:.1f} ms",
        )
        for fact in report.facts
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    text += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
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
    text += [f"problem: {problem}" for problem in report.problems] or ["no problem found"]
    return text


# ---------------------------------------------------------------------------------------------- facts


def _facts(directory: Path) -> dict:
    import jax

    place, group = session.current().topology, session.current().group
    return {
        "index": place.index,
        "processes": place.processes,
        "launcher": place.launcher,
        "control": "MPI" if isinstance(channel.current(), channel.OverMpi) else "the coordination service of JAX",
        "mpi_offered": place.mpi,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "versions": _versions(),
        "platform": jax.default_backend(),
        "devices": [(device.device_kind, _memory_of(device), _identity(device)) for device in jax.local_devices()],
        "gpus_given": os.environ.get("SLURM_GPUS_ON_NODE") or os.environ.get("SLURM_JOB_GPUS") or "",
        "cpu_on_purpose": os.environ.get("JAX_PLATFORMS", "").startswith("cpu"),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "reach": group.reach if group else 0.0,
        "clock": time.time(),
        "files": _write_here(directory),
        "shared": _see_each_other(directory),
    }


def _versions() -> dict:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _memory_of(device) -> int:
    return (device.memory_stats() or {}).get("bytes_limit", 0) if device.platform != "cpu" else 0


def _identity(device) -> str:
    """Which piece of hardware: two processes of a host must not hold the same."""
    return str(getattr(device, "local_hardware_id", device.id)) if device.platform != "cpu" else ""


def _write_here(directory: Path) -> dict:
    """Write, sync, rename, lock and remove a file of this process."""
    path = directory / f".nivp-doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        started = time.monotonic()
        write_whole(path, os.urandom(1_000_000))
        seconds = time.monotonic() - started
        with open(path) as file:
            locks = run_directory.locks_work(file)
        path.unlink()
        return {
            "path": str(directory.resolve()),
            "free": shutil.disk_usage(directory).free,
            "write": seconds,
            "locks": locks,
        }
    except OSError as error:
        return {"error": f"{error.strerror} ({error.filename or directory})"}


def _see_each_other(directory: Path) -> bool:
    """Whether a file that process 0 writes is there for this process. Collective."""
    here = channel.current()
    name = here.broadcast(f".nivp-doctor-{secrets.token_hex(6)}")
    if here.index == 0:
        with contextlib.suppress(OSError):
            write_whole(directory / name, "seen?")
    here.gather(None)  # written
    deadline = time.monotonic() + 5.0  # a network file system may show it late
    while not (seen := (directory / name).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    here.gather(None)  # looked for by all
    if here.index == 0:
        (directory / name).unlink(missing_ok=True)
    return seen


def _time_all_reduces() -> list[dict]:
    """Medians over repeats, of what one CG iteration sends: a sum of p numbers over all devices."""
    import jax
    from jax.sharding import PartitionSpec as P

    from nivp_dist.cluster.mesh import AXIS, make_mesh, replicate

    mesh = make_mesh()
    if mesh.size == 1:
        return []
    found = []
    total = jax.jit(jax.shard_map(lambda v: jax.lax.psum(v, AXIS), mesh=mesh, in_specs=P(), out_specs=P()))
    for size in SIZES:
        vector, seconds = replicate(np.ones(size), mesh), []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            total(vector).block_until_ready()
            seconds.append(time.perf_counter() - started)
        found.append({"numbers": size, "devices": mesh.size, "seconds": statistics.median(seconds[1:])})
    return found


# ---------------------------------------------------------------------------------------------- problems


def _who(fact: dict) -> str:
    return f"process {fact['index']} on {fact['host']}" if fact["processes"] > 1 else "this process"


def _software(everyone: list[dict]) -> list[str]:
    problems, first = [], everyone[0]
    for fact in everyone[1:]:
        for name in first["versions"].keys() | fact["versions"].keys():
            mine, theirs = first["versions"].get(name, "none"), fact["versions"].get(name, "none")
            if mine != theirs:
                problems.append(f"{_who(fact)} has {name} {theirs}, process 0 {mine}: install the same everywhere")
    if first["mpi_offered"] and first["control"] != "MPI":
        problems.append(
            f"{first['launcher']} offers MPI to {len(everyone)} processes, and mpi4py does not find them (it is "
            "missing, or built for another MPI): install the right one, or leave --mpi away"
        )
    return problems


def _devices(everyone: list[dict]) -> list[str]:
    problems, holders = [], {}
    for fact in everyone:
        if fact["gpus_given"] and fact["platform"] == "cpu" and not fact["cpu_on_purpose"]:
            problems.append(
                f"{_who(fact)} was given GPUs ({fact['gpus_given']}) and jax sees none: pip install "
                "'nivp_dist[cuda12]' (or cuda13) and look at nvidia-smi there"
            )
        for _, _, identity in fact["devices"]:
            if identity:
                holders.setdefault((fact["host"], fact["visible"], identity), []).append(fact["index"])
        here = [other for other in everyone if other["host"] == fact["host"]]
        if fact["platform"] == "cpu" and len(here) > fact["cpus"]:
            problems.append(
                f"{len(here)} processes share {fact['cpus']} CPUs on {fact['host']}: pass --cpus-per-task to srun, or "
                "start fewer"
            )
    for (host, _, identity), indices in holders.items():
        if len(indices) > 1:
            who = ", ".join(map(str, indices))
            problems.append(f"processes {who} hold the same GPU {identity} on {host}: start one process a GPU")
    counts = {len(fact["devices"]) for fact in everyone}
    if len(counts) > 1:
        problems.append(f"processes have different numbers of devices ({sorted(counts)}): all must have the same")
    if everyone[0]["open_files"] < 2 * len(everyone) + 256:
        problems.append(
            f"process 0 may open {everyone[0]['open_files']} files, {2 * len(everyone) + 256} are needed: ulimit -Hn"
        )
    return problems


def _files(everyone: list[dict], directory: Path) -> list[str]:
    problems = []
    for fact in everyone:
        files = fact["files"]
        if "error" in files:
            problems.append(f"{_who(fact)} cannot write {directory}: {files['error']}: name another with --directory")
        elif not fact["shared"]:
            problems.append(
                f"{_who(fact)} does not see what process 0 writes to {directory}: run in a directory that "
                "all hosts share"
            )
        else:
            if files["free"] < SPACE:
                problems.append(f"{directory}: {files['free'] / 1e9:.2f} GB free: make room, checkpoints will fail")
            if files["write"] > SLOW_WRITE:
                problems.append(f"{directory}: 1 MB takes {files['write']:.1f} s from {fact['host']}: use a faster one")
    return problems


def _network(everyone: list[dict]) -> list[str]:
    problems = []
    for fact in everyone:
        if fact["reach"] > SLOW_REACH:
            problems.append(
                f"{_who(fact)} needs {fact['reach']:.1f} s to reach process 0: see the name service and routes"
            )
        if abs(fact["clock"] - everyone[0]["clock"]) > SKEW:
            problems.append(
                f"the clock of {fact['host']} is {fact['clock'] - everyone[0]['clock']:+.0f} s off: run NTP"
            )
    return problems


def _giga(count: int) -> str:
    return f"{count / 2**30:.0f} GiB" if count else "-"


def _each_once(words) -> str:
    return ", ".join(dict.fromkeys(words))
