"""Runs of several processes: stopped, moved to other numbers of them, by other launchers."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from process_groups import local, members, mpirun

# Sums over points are split differently: rounding (1e-16), times the condition of a solve (1e10); found 1.6e-8.
ANOTHER_TOPOLOGY = 1e-6


def stopped(processes, until, words, steps, *options):
    """A run, asked to stop after that many steps."""
    ran = processes.Ran(processes.new())
    process = processes.launch(words, "run", "modes.toml", "--output", ran.directory, "--devices", "0", *options)
    until(lambda: len(ran.metrics) >= steps, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert ran.summary["status"] == "stopped"
    return ran


def close(ran, other):
    a, b = ran.theta(), other.theta()
    assert np.linalg.norm(a - b) < ANOTHER_TOPOLOGY * np.linalg.norm(b)
    assert len(ran.metrics) == len(other.metrics)


def test_exact_restart_with_mpi_and_without(processes, undisturbed, until, same):
    """The control plane is no part of the result: stopped under mpirun, gone on without MPI, the same bits."""
    ran = stopped(processes, until, mpirun(2), 2)
    same(processes.resume(ran, local(2)), undisturbed)


@pytest.mark.parametrize("count", [1, 4])
def test_restart_on_half_and_on_twice_the_processes(processes, undisturbed, until, count):
    ran = stopped(processes, until, local(2), 3)
    close(processes.resume(ran, local(count)), undisturbed)
    assert ran.summary["processes"] == count


def test_restart_from_a_checkpoint_in_the_middle(processes, undisturbed, until, same):
    ran = stopped(processes, until, local(2), 6, "--checkpoint.every_steps", "2", "--checkpoint.keep", "20")
    saved = sorted(int(entry.name) for entry in (ran.directory / "checkpoints").iterdir())
    assert len(saved) >= 4
    for later in saved[len(saved) // 2 :]:
        (ran.directory / "checkpoints" / str(later)).rename(ran.directory / f"later-{later}")
    same(processes.resume(ran, local(2)), undisturbed)


def test_a_signal_to_one_process_stops_all(processes, undisturbed, until, same):
    ran = processes.Ran(processes.new())
    process = processes.launch(local(2), "run", "modes.toml", "--output", ran.directory, "--devices", "0")
    until(lambda: len(ran.metrics) >= 1, process)
    os.kill(members(ran.directory)[1], signal.SIGUSR2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and err.splitlines()[-1].startswith("nivp: stopped on request (SIGUSR2) at ")
    same(processes.resume(ran, local(2)), undisturbed)


def test_notice_before_the_loop_and_after_it(processes):
    """It comes when the scheduler's clock says so: while jax is starting, or while the pictures are drawn."""
    ran = processes.Ran(processes.new())
    options = ("--output", ran.directory, "--integrator.t_end", "0.1", "--output.plots", "true")
    begun = lambda: caught(process.pid, signal.SIGUSR2)  # noqa: E731
    ended = lambda: ran.directory.exists() and (ran.summary or {}).get("status") == "finished"  # noqa: E731
    for words, moment, code, status in (
        (("run", "modes.toml", *options), begun, 75, "stopped"),
        (("resume", ran.directory), ended, 0, "finished"),
    ):
        process = processes.launch([sys.executable, "-m", "nivp_dist.cli"], *words)
        while not moment():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGUSR2)
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        assert ran.summary["status"] == status


def caught(pid, number):
    """Whether a process has a handler for a signal."""
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(mask.split()[1], 16) & 1 << number - 1)


def test_programs_are_compiled_once(processes):
    """A restart takes them all from the cache: nothing is added to it."""
    folder = processes.folder / "programs"
    patch = {"JAX_COMPILATION_CACHE_DIR": ""}
    for number in range(2):
        directory = processes.new()
        options = ("--devices", "0", "--integrator.t_end", "0.02", "--output.times", "[]")
        cache = ("--cluster.compilation_cache", folder)
        processes.finish(local(2), "run", "modes.toml", "--output", directory, *options, *cache, environment=patch)
        if number == 0:
            programs = sorted(path.name for path in folder.glob("*-cache"))
            assert len(programs) > 20 and folder.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in folder.glob("*-cache")) == programs


def test_mpirun_of_another_mpi(processes):
    """N singletons instead of one group of N: refused before any work."""
    other = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in other.items():
            patch.setenv(name, value)
        directory = processes.new()
        code, _, err = processes.call("run", "modes.toml", "--output", directory)
    assert code == 2 and "mpirun started 2 processes, and mpi4py sees 1" in err and not directory.exists()
