"""Disks that really fail: a small tmpfs that is filled or made read-only, and system calls that strace makes fail or
delays."""

import contextlib
import ctypes
import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest


def require(reason: str | None) -> None:
    """Skip the test if there is a reason; fail in CI, where nothing is missing."""
    if reason and os.environ.get("NIVP_REQUIRE_CLUSTER") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class SmallDisk:
    """A tmpfs of its own at a path."""

    def __init__(self, path: Path, size: str = "8m"):
        self.path, self.filler = path, path / "filler"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
        require(
            None if done and done.returncode == 0 else "a small tmpfs cannot be mounted here: run the tests as root"
        )

    def fill(self, leave: int = 0) -> None:
        """Write a file until only so many bytes are free."""
        block = b"\0" * 4096
        with contextlib.suppress(OSError), open(self.filler, "ab", buffering=0) as file:
            while self.free > leave and file.write(block) == len(block):
                pass

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.path).free

    def make_room(self) -> None:
        self.filler.unlink()

    def make(self, mode: str) -> None:
        """Mount it again as "ro" (read-only) or "rw"."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path):
    small = SmallDisk(tmp_path / "disk")
    yield small
    small.close()


class FailingCall:
    """A system call in place of the real one that fails for files below a folder.

    call: the real one. number: of the error (errno). skipped: calls that succeed before. times: calls that then fail.
    """

    def __init__(self, call, number, skipped, folder, times=1):
        self.call, self.number, self.skipped, self.folder, self.times = call, number, skipped, str(folder), times
        self.failed, self.position = 0, 1 if call is os.replace else 0  # of the argument that names the file

    def __call__(self, *arguments, **keywords):
        where = str(arguments[self.position])
        where = os.path.realpath(f"/proc/self/fd/{where}" if where.isdigit() else where)
        if where.startswith(self.folder):
            self.skipped -= 1
            if self.skipped < 0 and self.failed < self.times:
                self.failed += 1
                raise OSError(self.number, os.strerror(self.number), where)
        return self.call(*arguments, **keywords)


def traced(*injections: str, paths, log: Path) -> list[str]:
    """The words before a command whose system calls are to fail or to be delayed.

    injections: in strace's notation, such as "fsync:error=EIO:when=3"; it counts the calls of each thread separately.
    paths: only calls on these files (for calls with two files, the first) and on what was opened by these names.
    """
    probe = shutil.which("strace") and subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True)
    require(None if probe and probe.returncode == 0 else "strace is not here, or may not trace: apt-get install strace")
    calls = ",".join(injection.split(":")[0] for injection in injections)
    words = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", f"trace={calls}"]
    words += [word for path in paths for word in ("-P", str(path))]
    return words + [word for injection in injections for word in ("-e", f"inject={injection}")]


LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # classic BPF
REFUSE, ALLOW = 0x00050000 | errno.ENOSYS, 0x7FFF0000
LOCKING = (5, 6, 7, 36, 37, 38)  # F_GETLK, F_SETLK, F_SETLKW; the same of open files


def forbid_locks() -> None:
    """From now on no call of this process can lock a file, as on a file system without locks (ENOSYS, by seccomp)."""
    fcntl, flock = {"x86_64": (72, 73), "aarch64": (25, 32)}[os.uname().machine]
    allow, refuse = 4 + len(LOCKING), 5 + len(LOCKING)  # the numbers of the last two instructions
    program = [
        (LOAD, 0, 0, 0),  # the number of the system call
        (JUMP_IF_EQUAL, refuse - 2, 0, flock),
        (JUMP_IF_EQUAL, 0, allow - 3, fcntl),
        (LOAD, 0, 0, 24),  # its second argument
        *((JUMP_IF_EQUAL, refuse - 5 - i, 0, command) for i, command in enumerate(LOCKING)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, whole, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP
