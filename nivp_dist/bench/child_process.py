"""Runs and scores in processes of their own: every one starts jax anew, and measures nothing of its predecessors."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import nivp_dist
from nivp_dist.cluster import topology
from nivp_dist.errors import InputError

CHECKPOINT_SECONDS = 60.0  # that a stopped run may take to write its checkpoint before it is killed


def evolve(words: list[str], log: Path, limit: float) -> str | None:
    """Run `nivp WORDS` and append its output to a log. The reason of a failure, which is its last line, or None.

    limit: seconds after which the run is stopped with a checkpoint.
    """
    with log.open("a+") as file:
        start = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(_python("nivp_dist.cli", *words), env=environment(), stdout=file, stderr=file)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CHECKPOINT_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        file.seek(start)
        written = [line.strip() for line in file if line.strip()]
    if process.returncode == 0:
        return None
    return (written or [f"exit code {process.returncode}"])[-1].removeprefix("nivp: ")


def sampled_error(directory: Path, t: float) -> float:
    """``scores.sampled_error`` of a run at a stored time. Raises InputError with the last line of its error output."""
    words = _python("nivp_dist.bench.scores", str(directory), repr(t))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"sampled error: {(done.stderr.strip().splitlines() or ['no number'])[-1]}")
    return float(done.stdout)


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def environment() -> dict[str, str]:
    """This process's environment, without the variables of its launcher, and with this very package on the path."""
    inherited = {name: value for name, value in os.environ.items() if name not in topology.VARIABLES}
    root = str(Path(nivp_dist.__file__).resolve().parent.parent)
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
