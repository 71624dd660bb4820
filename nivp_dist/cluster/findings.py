"""What `nivp doctor` finds wrong, from the facts that it gathered: each line with its mend. Pure functions."""

from pathlib import Path

SPACE = 1e9  # bytes
SLOW_WRITE, SLOW_REACH, SLOW_SUM, SKEW = 2.0, 1.0, 0.1, 60.0  # seconds beyond which a line is worth it


def problems(everyone: list[dict], interconnect: list[dict], directory: Path) -> list[str]:
    """What would end a run, or keep it from starting.

    everyone: the facts of each process, in order. interconnect: timed all-reduces, largest last. directory: of runs.
    """
    found = _software(everyone) + _devices(everyone) + _sums(interconnect) + _files(everyone, directory)
    return list(dict.fromkeys(found))


def warnings(everyone: list[dict], interconnect: list[dict], directory: Path) -> list[str]:
    """What would make it slow, or its logs hard to read. Arguments as above."""
    found = _processes(everyone) + _network(everyone, interconnect) + _slow_files(everyone, directory)
    return list(dict.fromkeys(found))


def _who(fact: dict) -> str:
    return f"process {fact['index']} on {fact['host']}" if fact["processes"] > 1 else "this process"


def _software(everyone: list[dict]) -> list[str]:
    found, first = [], everyone[0]
    for fact in everyone[1:]:
        for name in sorted(first["versions"].keys() | fact["versions"].keys()):
            mine, theirs = first["versions"].get(name, "none"), fact["versions"].get(name, "none")
            if mine != theirs:
                found.append(f"{_who(fact)} has {name} {theirs}, process 0 {mine}: install the same everywhere")
    return found


def _devices(everyone: list[dict]) -> list[str]:
    found, holders = [], {}
    for fact in everyone:
        if fact["gpus_given"] and fact["platform"] == "cpu" and not fact["cpu_on_purpose"]:
            found.append(
                f"{_who(fact)} was given GPUs ({fact['gpus_given']}) and jax sees none: pip install "
                "'nivp_dist[cuda12]' (or cuda13) and look at nvidia-smi there"
            )
        for _, _, identity in fact["devices"]:
            if identity:
                holders.setdefault((fact["host"], fact["visible"], identity), []).append(fact["index"])
    for (host, _, identity), indices in holders.items():
        if len(indices) > 1:
            who = ", ".join(map(str, indices))
            found.append(f"processes {who} hold the same GPU {identity} on {host}: start one process a GPU")
    counts = {len(fact["devices"]) for fact in everyone}
    if len(counts) > 1:
        found.append(f"processes have different numbers of devices ({sorted(counts)}): all must have the same")
    if everyone[0]["open_files"] < 2 * len(everyone) + 256:
        found.append(
            f"process 0 may open {everyone[0]['open_files']} files, {2 * len(everyone) + 256} are needed: ulimit -Hn"
        )
    return found


def _sums(interconnect: list[dict]) -> list[str]:
    wrong = [f"{entry['numbers']:,}" for entry in interconnect if not entry["right"]]
    line = "an all-reduce of {} numbers is wrong: see to the drivers and the interconnect; NCCL_DEBUG=INFO tells more"
    return [line.format(numbers) for numbers in wrong[:1]]


def _files(everyone: list[dict], directory: Path) -> list[str]:
    found = []
    for fact in everyone:
        files = fact["files"]
        if "error" in files:
            found.append(f"{_who(fact)} cannot write {directory}: {files['error']}: name another with --directory")
        elif not fact["shared"]:
            found.append(
                f"{_who(fact)} does not see what process 0 writes to {directory}: run in a directory that "
                "all hosts share"
            )
        elif files["free"] < SPACE:
            found.append(f"{directory}: {files['free'] / 1e9:.2f} GB free: make room, checkpoints will fail")
    return found


def _processes(everyone: list[dict]) -> list[str]:
    found, first = [], everyone[0]
    if first["mpi"] != len(everyone):
        found.append(
            f"{first['launcher']} offers MPI to {len(everyone)} processes, and mpi4py counts {first['mpi']} (it is "
            "missing, or built for another MPI): install the right one, or leave --mpi away"
        )
    for fact in everyone:
        here = [other for other in everyone if other["host"] == fact["host"]]
        if fact["platform"] == "cpu" and len(here) > fact["cpus"]:
            found.append(
                f"{len(here)} processes share {fact['cpus']} CPUs on {fact['host']}: pass --cpus-per-task to srun, or "
                "start fewer"
            )
    return found


def _network(everyone: list[dict], interconnect: list[dict]) -> list[str]:
    found = []
    for fact in everyone:
        if fact["reach"] > SLOW_REACH:
            found.append(
                f"{_who(fact)} needs {fact['reach']:.1f} s to reach process 0: see the name service and routes"
            )
        if abs(fact["clock"] - everyone[0]["clock"]) > SKEW:
            found.append(f"the clock of {fact['host']} is {fact['clock'] - everyone[0]['clock']:+.0f} s off: run NTP")
    if interconnect and (seconds := interconnect[-1]["seconds"]) > SLOW_SUM:
        found.append(
            f"an all-reduce of {interconnect[-1]['numbers']:,} numbers takes {seconds:.2f} s: the devices may talk "
            "over the wrong network; NCCL_DEBUG=INFO shows which, NCCL_SOCKET_IFNAME and NCCL_IB_HCA choose"
        )
    return found


def _slow_files(everyone: list[dict], directory: Path) -> list[str]:
    slow = [(fact["host"], fact["files"]["write"]) for fact in everyone if fact["files"].get("write", 0) > SLOW_WRITE]
    return [f"{directory}: 1 MB takes {seconds:.1f} s from {host}: use a faster one" for host, seconds in slow]
