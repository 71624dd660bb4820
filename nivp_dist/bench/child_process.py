"""Runs and scores in processes of their own: every one starts jax anew, and measures nothing of its predecessors."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import nivp_dist
from nivp_dist.cluster import topology
from nivp_dist.errors import InputError

CHECKPOINT_SECONDS = 60.0  # that a stopped run may take to write its checkpoint before it is killed
TIME_LIMIT = "time limit"  # the reason for which ``follow`` ends a process


def evolve(words: list[str], log: Path, limit: float | None = None) -> str | None:
    """Run `nivp WORDS` and append its output to a log. The reason of a failure, which is its last line, or None.

    limit: seconds after which the run is stopped with a checkpoint; it is also stopped so by an interrupt, which is
    raised again.
    """
    with log.open("a+") as file:
        start = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(_python("nivp_dist.cli", *words), env=environment(), stdout=file, stderr=file)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            _stop(process)
        except KeyboardInterrupt:
            _stop(process)
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        file.seek(start)
        written = [line.strip() for line in file if line.strip()]
    if process.returncode == 0:
        return None
    return (written or [f"exit code {process.returncode}"])[-1].removeprefix("nivp: ")


def _stop(process: subprocess.Popen) -> None:
    """Ask a run to stop, and give it time for its checkpoint."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(CHECKPOINT_SECONDS)


def sampled_error(directory: Path, t: float) -> float:
    """``scores.sampled_error`` of a run at a stored time. Raises InputError with the last line of its error output."""
    words = _python("nivp_dist.bench.scores", str(directory), repr(t))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"sampled error: {(done.stderr.strip().splitlines() or ['no number'])[-1]}")
    return float(done.stdout)


def follow(words: list[str], log: Path, limit: float, take: Callable[[str], None]) -> str | None:
    """Run `python -m WORDS` and pass on every line of its output as soon as it is written.

    log: for its error output. limit: seconds after which it is killed, and all processes that it has started. Returns
    the reason of a failure, which is TIME_LIMIT or the last line of the error output with the exit code, or None.
    """
    with log.open("w+", encoding="utf-8", errors="replace") as errors:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(
            _python(*words), env=environment(), text=True, encoding="utf-8", start_new_session=True, **pipes
        )
        assert process.stdout is not None
        late = threading.Event()

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        def end_late() -> None:
            late.set()
            kill()

        timer = threading.Timer(limit, end_late)
        timer.start()
        try:
            for line in process.stdout:
                if line.endswith("\n"):  # the last line of a killed process may be incomplete
                    take(line)
            process.wait()
        finally:
            timer.cancel()
            kill()
            process.stdout.close()
            process.wait()
        errors.seek(0)
        written = [line.strip() for line in errors if line.strip()]
    if process.returncode == 0:
        return None
    if late.is_set():
        return TIME_LIMIT
    code = f"exit code {process.returncode}"  # of a process that a signal has ended: minus its number
    return f"{written[-1]} ({code})" if written else code


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def environment() -> dict[str, str]:
    """This process's environment, without the variables of its launcher, and with this very package on the path."""
    inherited = {name: value for name, value in os.environ.items() if name not in topology.VARIABLES}
    root = str(Path(nivp_dist.__file__).resolve().parent.parent)
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
