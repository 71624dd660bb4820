"""The hosts on which a run has lost a process, for Slurm to leave out when the job is queued again."""

import re
from pathlib import Path

from nivp_dist.storage.run_directory import LOGS

# Hosts that are left out for one job. A run that loses processes on more of them has another cause, such as want of
# memory, and every host less makes the job wait longer.
MOST = 4
# The last line of a log after the loss of a process (cluster/group.py), and the hosts in it.
_LOSS = re.compile(r" the group ends: (process \d+ on .*?)(?: was killed|: its host has not answered| did not answer)")
_HOST = re.compile(r"process \d+ on ([\w.-]+)")
TAIL = 4096  # bytes, more than the longest last line


def find(directory: Path) -> list[str]:
    """The hosts of the processes whose loss has ended the run, by the names that Slurm gives them; [] if unknown.

    Process 0 writes of the loss of the others, and process 1 of that of process 0.
    """
    for index in (0, 1):
        match = _LOSS.search(_last_line(directory / LOGS / f"process-{index:04d}.log"))
        if match:
            return [name.partition(".")[0] for name in _HOST.findall(match[1])]
    return []


def to_exclude(hosts: list[str], earlier: list[str], excluded: str) -> tuple[str, str]:
    """The list of hosts that the job is to run without, for Slurm, '' if it need not change; and a line about hosts
    that stay, '' if there is none.

    hosts: those that have lost a process now; earlier: those before. excluded: Slurm's list, '(null)' if it is empty.
    """
    lost = list(dict.fromkeys([*earlier, *hosts]))
    if len(lost) > MOST:
        return "", f"{', '.join(hosts)}: not excluded, because processes were lost on {len(lost)} hosts by now"
    before = [] if excluded == "(null)" else excluded.split(",")
    new = [host for host in lost if host not in before]
    return ",".join(before + new) if new else "", ""


def _last_line(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
