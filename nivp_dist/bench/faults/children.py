"""Runs in processes of their own, alone or several by a launcher, each with the undisturbed run of that launcher."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from nivp_dist.bench.child_process import environment
from nivp_dist.bench.faults import tiny_run
from nivp_dist.bench.faults.outcome import Results, read
from nivp_dist.errors import RunFailed
from nivp_dist.settings.files import shipped
from nivp_dist.storage.metrics import EVENTS, METRICS

ALONE, LOCAL, MPI = "one process", "launch/local 2", "mpirun -n 2"
LIMIT = 240.0  # seconds after which a run that takes some ten hangs, on a machine that does other things too
MARK = "NIVP_FAULT"  # the environment variable by which the processes of a run are found: its directory
NIVP = (sys.executable, "-m", "nivp_dist.cli")
LAST_LINE = "nivp: "


class Ended(NamedTuple):
    """code: the exit code; None if the run had to be killed. error: standard error. seconds: that it took to end."""

    code: int | None
    error: str
    seconds: float

    @property
    def line(self) -> str:
        """The last line that is the program's own; "" if there is none."""
        lines = [line for line in self.error.splitlines() if line.startswith(LAST_LINE)]
        return lines[-1].removeprefix(LAST_LINE) if lines else ""


class Child:
    """A run that has been started: by a launcher, or as one process.

    launcher: the launcher's name. directory: of the run.
    """

    def __init__(self, process: subprocess.Popen, launcher: str, directory: Path, errors: Path):
        self.process, self.launcher, self.directory, self._errors = process, launcher, directory, errors

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = LIMIT) -> Ended:
        """Wait for the end; after so many seconds kill all processes of the run."""
        began, code = time.monotonic(), None
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(marked(self.directory))
            self.process.wait()
        return Ended(code, self._errors.read_text("utf-8", "replace"), time.monotonic() - began)

    def ranks(self) -> list[int]:
        """The ids of the processes of the run, without launchers, in the order of their start."""
        found = [pid for pid in marked(self.directory) if self._is_rank(pid)]
        return sorted(found)

    def lines(self) -> int:
        """How many lines the run has written into its metrics and events."""
        return sum(count_lines(self.directory / name) for name in (METRICS, EVENTS))

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Poll until the condition holds; False if the run ends before."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            if not self.running or time.monotonic() > deadline:
                return False
            time.sleep(0.003)
        return True

    def _is_rank(self, pid: int) -> bool:
        words = command_line(pid)
        return "nivp_dist.cli" in words and Path(words[0]).name.startswith("python")


class Children:
    """Starts runs of the tiny problem. folder: of the problem, the compiled programs, and the undisturbed runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config = tiny_run.write(folder)
        self._undisturbed: dict[str, Results] = {}
        self._started: list[Path] = []

    def start(self, launcher: str, directory: Path, words: Iterable[str] = (), before: Iterable[str] = ()) -> Child:
        """Start or continue the run in a directory.

        words: of `nivp`; none: `run`, which continues what is present. before: words that stand before the command.
        """
        words = list(words) or self.run_words(directory)
        self._started.append(directory)
        errors = directory.with_name(f"{directory.name}.{len(self._started)}.log")
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [*before, *launcher_words(launcher), *words],
                env=self.environment(directory),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        return Child(process, launcher, directory, errors)

    def run_words(self, directory: Path) -> list[str]:
        return ["run", str(self.config), "--output", str(directory), "--resume-if-present"]

    def undisturbed(self, launcher: str) -> Results:
        """The results of the run without faults. Raises RunFailed if it fails."""
        if launcher not in self._undisturbed:
            directory = self.folder / f"undisturbed-{launcher.replace(' ', '-').replace('/', '-')}"
            ended = self.start(launcher, directory).wait()
            if ended.code != 0:
                raise RunFailed(f"bench faults: the undisturbed run by {launcher} failed: {ended.line or ended.code}")
            self._undisturbed[launcher] = read(directory)
        return self._undisturbed[launcher]

    def close(self) -> None:
        """Kill what is left of all runs."""
        for directory in self._started:
            kill(marked(directory))

    def environment(self, directory: Path) -> dict[str, str]:
        inherited = environment()
        flags = [flag for flag in inherited.get("XLA_FLAGS", "").split() if "device_count" not in flag]
        return inherited | {
            "XLA_FLAGS": " ".join(flags),
            "PATH": f"{Path(sys.executable).parent}:{inherited.get('PATH', '')}",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            MARK: str(directory),
        }


def launchers(*names: str) -> list[str]:
    """Those of the launchers that there are here."""
    has_mpi = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}") is not None
    has_mpi = has_mpi and importlib.util.find_spec("mpi4py") is not None
    return [name for name in names if name != MPI or has_mpi]


def launcher_words(launcher: str) -> list[str]:
    if launcher == LOCAL:
        return [sys.executable, str(shipped("launch") / "local"), "2"]
    return ["mpirun", "-n", "2", *NIVP] if launcher == MPI else list(NIVP)


# Processes ------------------------------------------------------------------------------------------


def marked(directory: Path) -> list[int]:
    """The ids of the processes that were started for the run in a directory, launchers included."""
    mark, found = f"{MARK}={directory}\0".encode(), []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and mark in _contents(path / "environ") + b"\0" and is_alive(int(path.name)):
            found.append(int(path.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs or sleeps; one that has died may remain as a zombie."""
    return _contents(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])


def command_line(pid: int) -> list[str]:
    return _contents(Path(f"/proc/{pid}/cmdline")).decode("utf-8", "replace").split("\0")


def kill(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """Send a signal to those of the processes that still are."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def count_lines(path: Path) -> int:
    return _contents(path).count(b"\n")


def _contents(path: Path) -> bytes:
    """What a file holds; nothing if it cannot be read, as the files of a process that has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
