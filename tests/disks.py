"""Disks that fail for real: a small tmpfs that is filled or made read-only, and system calls that the kernel is told to
refuse (strace) or to slow down."""

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
    """Skip for a reason; in CI, which has all that is needed, fail."""
    if reason and os.environ.get("NIVP_REQUIRE_CLUSTER") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class SmallDisk:
    """A tmpfs of its own at a path."""

    def __init__(self, path: Path, size: str = "8m"):
        self.path, self.ballast = path, path / "ballast"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
        require(
            None if done and done.returncode == 0 else "a small tmpfs cannot be mounted here: run the tests as root"
        )

    def fill(self, leave: int = 0) -> None:
        """Until there is no room left but for so many bytes."""
        block = b"\0" * 4096
        with contextlib.suppress(OSError), open(self.ballast, "ab", buffering=0) as file:
            while self.free > leave and file.write(block) == len(block):
                pass

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.path).free

    def make_room(self) -> None:
        self.ballast.unlink()

    def make(self, mode: str) -> None:
        """mode: "ro" or "rw"."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path):
    small = SmallDisk(tmp_path / "disk")
    yield small
    small.close()


class Stumble:
    """A call of the system on files below a folder that fails, a number of times after as many that do not."""

    def __init__(self, call, number, skipped, folder, times=1):
        self.call, self.number, self.skipped, self.folder, self.times = call, number, skipped, str(folder), times
        self.stumbled, self.which = 0, 1 if call is os.replace else 0  # the argument that names the file

    def __call__(self, *arguments, **keywords):
        where = str(arguments[self.which])
        where = os.readlink(f"/proc/self/fd/{where}") if where.isdigit() else where
        if where.startswith(self.folder):
            self.skipped -= 1
            if self.skipped < 0 and self.stumbled < self.times:
                self.stumbled += 1
                raise OSError(self.number, os.strerror(self.number), where)
        return self.call(*arguments, **keywords)


def traced(*injections: str, paths, log: Path) -> list[str]:
    """The words before a command whose system calls are to fail, or to take longer: "fsync:error=EIO:when=3", as strace
    has it. It counts the calls of each thread by themselves.

    paths: only calls on these files (of two, the first) and on what was opened by these names.
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
    """From here on no call of this process locks a file, as on a file system without locks (ENOSYS, by seccomp)."""
    fcntl, flock = {"x86_64": (72, 73), "aarch64": (25, 32)}[os.uname().machine]
    allow, refuse = 4 + len(LOCKING), 5 + len(LOCKING)  # the last two lines, counted from 0
    program = [
        (LOAD, 0, 0, 0),  # the number of the call
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
