"""The TCP ports on which processes listen, from /proc."""

import os
from collections.abc import Iterable
from pathlib import Path

LISTENING = "0A"  # TCP_LISTEN in the column `st` of /proc/net/tcp


def listening(pids: Iterable[int]) -> list[int]:
    """The ports on which one of the processes listens."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == LISTENING and columns[9] in inodes:
                found.add(int(columns[1].rpartition(":")[2], 16))
    return sorted(found)


def _sockets(pid: int) -> list[str]:
    """The inodes of the sockets of a process."""
    found = []
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.append(target[len("socket:[") : -1])
    return found
