"""What `nivp doctor` finds wrong in the facts that it gathered: one line each, with a remedy. Pure functions."""

from pathlib import Path

from nivp_dist.cluster import agreement

LEAST_SPACE = 1e9  # bytes on the disk; the checkpoints of a large network take some hundred MB
# Seconds beyond which there is a warning. Each is many times what a healthy cluster needs (milliseconds; clocks: 1 s).
SLOW_WRITE, SLOW_CONNECTION, SLOW_SUM, CLOCK_DIFFERENCE = 2.0, 1.0, 0.1, 60.0


def problems(everyone: list[dict], interconnect: list[dict], directory: Path) -> list[str]:
    """Lines about what would end a run, or keep it from starting.

    everyone: the facts of each process, in order (``doctor``). interconnect: timed all-reduces, largest last.
    directory: where runs would be.
    """
    found = _agreement(everyone) + _devices(everyone) + _sums(interconnect) + _files(everyone, directory)
    return list(dict.fromkeys(found))


def warnings(everyone: list[dict], interconnect: list[dict], directory: Path) -> list[str]:
    """Lines about what would make a run slow, or its logs hard to read. Arguments as in ``problems``."""
    found = _processes(everyone) + _network(everyone, interconnect) + _slow_files(everyone, directory)
    return list(dict.fromkeys(found))


def _name(fact: dict) -> str:
    return f"process {fact['index']} on {fact['host']}" if fact["processes"] > 1 else "this process"


def _agreement(everyone: list[dict]) -> list[str]:
    return [f"the hosts differ in {line}" for line in agreement.differences([fact["common"] for fact in everyone])]


def _devices(everyone: list[dict]) -> list[str]:
    found, holders = [], {}
    for fact in everyone:
        if fact["gpus_given"] and fact["platform"] == "cpu" and not fact["cpu_on_purpose"]:
            found.append(
                f"{_name(fact)} was given GPUs ({fact['gpus_given']}) and jax sees none: pip install "
                "'nivp_dist[cuda12]' (or cuda13) and look at nvidia-smi there"
            )
        for _, _, identity in fact["devices"]:
            if identity:
                holders.setdefault((fact["host"], fact["visible"], identity), []).append(fact["index"])
    for (host, _, identity), indices in holders.items():
        if len(indices) > 1:
            who = ", ".join(map(str, indices))
            found.append(f"processes {who} hold the same GPU {identity} on {host}: start one process a GPU")
    if everyone[0]["open_files"] < 2 * len(everyone) + 256:
        found.append(
            f"process 0 may open {everyone[0]['open_files']} files, {2 * len(everyone) + 256} are needed: ulimit -Hn"
        )
    return found


def _sums(interconnect: list[dict]) -> list[str]:
    wrong = [f"{entry['numbers']:,}" for entry in interconnect if not entry["correct"]]
    line = "an all-reduce of {} numbers is wrong: check the drivers and the interconnect; NCCL_DEBUG=INFO shows details"
    return [line.format(numbers) for numbers in wrong[:1]]


def _files(everyone: list[dict], directory: Path) -> list[str]:
    found = []
    for fact in everyone:
        files = fact["files"]
        if "error" in files:
            found.append(f"{_name(fact)} cannot write {directory}: {files['error']}: name another one with --directory")
        elif not fact["shared"]:
            found.append(
                f"{_name(fact)} does not see what process 0 writes to {directory}: run in a directory that "
                "all hosts share"
            )
        elif files["free"] < LEAST_SPACE:
            found.append(f"{directory}: {files['free'] / 1e9:.2f} GB free: make room, or checkpoints will fail")
    return found


def _processes(everyone: list[dict]) -> list[str]:
    found, first = [], everyone[0]
    if first["mpi"] != len(everyone):
        found.append(
            f"{first['launcher']} offers MPI to {len(everyone)} processes, and mpi4py counts {first['mpi']} (it is "
            "missing, or built for another MPI): install the right one, or start without --mpi"
        )
    for fact in everyone:
        here = [other for other in everyone if other["host"] == fact["host"]]
        if fact["slow_float64"]:
            found.append(fact["slow_float64"])
        if fact["platform"] == "cpu" and len(here) > fact["cpus"]:
            found.append(
                f"{len(here)} processes share {fact['cpus']} CPUs on {fact['host']}: pass --cpus-per-task to srun, or "
                "start fewer"
            )
    return found


def _network(everyone: list[dict], interconnect: list[dict]) -> list[str]:
    found = []
    for fact in everyone:
        if fact["latency"] > SLOW_CONNECTION:
            found.append(
                f"{_name(fact)} needs {fact['latency']:.1f} s to reach process 0: check the name service and the routes"
            )
        if abs(fact["clock"] - everyone[0]["clock"]) > CLOCK_DIFFERENCE:
            difference = fact["clock"] - everyone[0]["clock"]
            found.append(f"the clock of {fact['host']} is {difference:+.0f} s off: synchronise the clocks (NTP)")
    if interconnect and (seconds := interconnect[-1]["seconds"]) > SLOW_SUM:
        found.append(
            f"an all-reduce of {interconnect[-1]['numbers']:,} numbers takes {seconds:.2f} s: the devices may use "
            "the wrong network; NCCL_DEBUG=INFO shows which, NCCL_SOCKET_IFNAME and NCCL_IB_HCA select one"
        )
    return found


def _slow_files(everyone: list[dict], directory: Path) -> list[str]:
    slow = [(fact["host"], fact["files"]["write"]) for fact in everyone if fact["files"].get("write", 0) > SLOW_WRITE]
    return [f"{directory}: 1 MB takes {seconds:.1f} s from {host}: use a faster file system" for host, seconds in slow]
