"""Faults of disks under a run: one that is full, and system calls that fail."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from nivp_dist.bench.faults.children import ALONE, LOCAL, Children
from nivp_dist.bench.faults.outcome import Outcome
from nivp_dist.bench.faults.process_faults import Disturbed, conclude, start
from nivp_dist.run.record import EVENTS, METRICS
from nivp_dist.storage import snapshots
from nivp_dist.storage.run_directory import CHECKPOINTS, SUMMARY

SIZE = "8m"  # of the small disk
HALF = 1 << 19  # bytes that are left on it now and then: room for a summary, not for a checkpoint
ANYWHERE = ("fsync", "rename", "mkdir", "unlink")  # calls that hardly anything but the run directory needs
OF_FILES = ("write", "openat")  # calls that only fail for these files:
FILES = (METRICS, EVENTS, SUMMARY, CHECKPOINTS, snapshots.FOLDER, ".")
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "EROFS", "EACCES")
MOST_CALLS = 15  # the number of the one that fails at most


def full(children: Children, directory: Path, random: Random) -> Outcome:
    """A disk that is full at a random moment, and has room again when the run has ended."""
    leave = random.choice([0, 0, HALF])
    disk = directory.with_name(f"{directory.name}.disk")
    with small_disk(disk):
        child, what = start(children, (ALONE, ALONE, LOCAL), disk / "run", random, first=random.choice([0, 1]))
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while shutil.disk_usage(disk).free > leave:
                file.write(bytes(4096))
        ended = child.wait()
        filler.unlink()
        what = f"{what}: the disk full but for {leave} bytes"
        return conclude(children, Disturbed(child.launcher, child.directory, ended, what))


def no_small_disk() -> str | None:
    """Why no small disk can be mounted here; None if it can."""
    if not (shutil.which("unshare") and shutil.which("mount")):
        return "mount is not here"
    # In a mount namespace of its own, which ends with the process.
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", "/"]
    done = subprocess.run(words, capture_output=True, check=False)
    return None if done.returncode == 0 else "a small disk (tmpfs) may only be mounted by root"


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A small tmpfs at a path."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


def failing(children: Children, directory: Path, random: Random) -> Outcome:
    """A system call that fails once, as on a file system that stumbles or refuses."""
    call = random.choice([*ANYWHERE, *OF_FILES])
    error, number = random.choice(ERRORS), random.randint(1, MOST_CALLS)
    log = directory.with_name(f"{directory.name}.strace")
    words = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", f"trace={call}"]
    if call in OF_FILES:
        words += [word for name in FILES for word in ("-P", os.path.join(directory, name))]
    words += ["-e", f"inject={call}:error={error}:when={number}"]
    children.undisturbed(ALONE)
    ended = children.start(ALONE, directory, before=words).wait()
    failed = "(INJECTED)" in log.read_text("utf-8", "replace")
    what = f"call {number} of {call} fails with {error}" + ("" if failed else " (there are fewer)")
    return conclude(children, Disturbed(ALONE, directory, ended, what))


def no_strace() -> str | None:
    """Why no system call can be made to fail here; None if it can."""
    if shutil.which("strace") is None:
        return "strace is not here"
    done = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "strace may not trace here"
