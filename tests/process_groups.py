"""Whole runs in several processes: the tiny problem of whole_runs.py, with faults by the variable TEST_FAULT."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from disks import require
from whole_runs import PROBLEM, Runs, local_launcher

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
SHORT = ("--devices", "0", "--integrator.t_end", "0.1")  # a run of a third of the time, on all devices
NIVP = (sys.executable, "-m", "nivp_dist.cli")

# Every process computes the reference on its host by itself: there a fault can befall one process alone.
FAULTS = """

import os
import time

_modes = Modes.reference


def _faulty(self, x, t):
    fault, process, seconds = (os.environ.get("TEST_FAULT", "") + "::").split(":")[:3]
    import jax

    if t > 0 and fault == "slow" and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < int(process):
        time.sleep(float(seconds))  # after so many restarts the job runs at full speed
    elif t > 0 and fault == "hold" and process == str(jax.process_index()):
        import ctypes

        ctypes.PyDLL(None).sleep(int(seconds))  # it holds the interpreter, as a long call of a library may do
        with open("held", "w"):
            pass
    elif t > 0 and fault in ("raise", "sleep", "die"):
        if fault == "sleep":  # all commands after this one are quick; compiling before it may take long
            from nivp_dist.cluster import session

            session.current().watchdog.seconds /= 100
        if process == str(jax.process_index()):
            with open("fault", "w") as file:
                file.write(str(time.time()))
            if fault == "raise":
                raise ArithmeticError("the reference is broken")
            if fault == "die":
                os.kill(os.getpid(), 9)
            time.sleep(3600)
        elif seconds:
            import ctypes

            ctypes.PyDLL(None).sleep(int(seconds))
    return _modes(self, x, t)


Modes.reference = _faulty

if os.environ.get("TEST_FAULT") == f"seed:{os.environ.get('NIVP_PROCESS_ID')}":
    import jax

    _key = jax.random.key
    jax.random.key = lambda seed: _key(seed + 1)
"""


class Processes(Runs):
    """Starts runs in processes of their own, by any launcher."""

    def __init__(self, folder, cache):
        super().__init__(folder, cache)
        (folder / "modes.py").write_text(PROBLEM + FAULTS)

    def launch(self, words, *arguments, fault="", devices=1, environment=None):
        """Start `WORDS ARGUMENTS` in a session of its own, which can be killed as a whole.

        words: those before `run` or `resume`. fault: TEST_FAULT. devices: of each process.
        """
        require_mpi(words)
        return subprocess.Popen(
            [*words, *map(str, arguments)],
            env=self.environment(devices, TEST_FAULT=fault, PATH=PATH) | (environment or {}),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, words, *arguments, code=0, seconds=240, **keywords):
        """(seconds it took, standard error) of a launch that must end with the code."""
        started = time.monotonic()
        process = self.launch(words, *arguments, **keywords)
        try:
            _, err = process.communicate(timeout=seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == code, err
        return time.monotonic() - started, err

    def resume(self, ran, words):
        self.finish(words, "resume", ran.directory)
        assert ran.summary["status"] == "finished"
        return ran


def local(count):
    """The words that start `count` processes on this machine."""
    return [sys.executable, str(local_launcher()), str(count)]


def mpirun(count, program=NIVP):
    """The words that start `count` processes with MPI."""
    return ["mpirun", "-n", str(count), *program]


def require_mpi(words):
    """Skip a test that needs MPI if there is none."""
    if words[0] == "mpirun" and not (shutil.which("mpirun", path=PATH) and importlib.util.find_spec("mpi4py")):
        require("there is no mpirun with mpi4py here: pip install mpi4py mpich")


GONE = 15.0  # seconds within which a group must have ended, on a machine as busy as those of tests


def since_the_fault(processes) -> float:
    """Seconds since the fault of TEST_FAULT happened."""
    return time.time() - float((processes.folder / "fault").read_text())


def alive(pids) -> list[int]:
    """Those of the process ids that still run. A process that has died may remain as a zombie."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return [
        pid for pid, stat in states.items() if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    ]


def members(directory):
    """The process ids of a run by index, from the logs."""
    found = {}
    for log in sorted((directory / "logs").glob("process-*.log")):
        lines = [line for line in log.read_text().splitlines() if ", pid " in line]
        found[int(log.stem.split("-")[1])] = int(lines[-1].rsplit(" ", 1)[1])
    return found
