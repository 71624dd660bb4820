"""Runs of several processes that are stopped and resumed, with other numbers of processes and other launchers."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from disks import require
from process_groups import NIVP, SHORT, local, members, mpirun
from slurmbox import NODE
from whole_runs import assert_close, wait_until


@pytest.fixture(scope="module")
def stopped(processes):
    """A run in two processes that a signal to the second stops after six steps: (run, standard error)."""
    ran = processes.Ran(processes.new())
    saves = ("--checkpoint.every_steps", "2", "--checkpoint.keep", "20")
    process = processes.launch(local(2), "run", "modes.toml", "--output", ran.directory, "--devices", "0", *saves)
    wait_until(lambda: len(ran.metrics) >= 6, process)
    os.kill(members(ran.directory)[1], signal.SIGUSR2)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    return ran, err


@pytest.fixture
def left(processes, stopped):
    """A copy of the stopped run."""
    return processes.Ran(shutil.copytree(stopped[0].directory, processes.new()))


def decisions(ran):
    """What carried the decisions after the last start, from the log of each process."""
    logs = sorted((ran.directory / "logs").glob("process-*.log"))
    return [log.read_text().split("decisions over ")[-1].split(",")[0] for log in logs]


def test_four_devices_in_four_processes_or_in_two_give_the_result_of_one(short, alone):
    """Only the order of sums differs."""
    four, two = short(mpirun(4)), short(local(2), devices=2)
    assert decisions(four) == ["MPI"] * 4 and decisions(two) == ["the coordination service of JAX"] * 2
    assert [(ran.summary["devices"], ran.summary["processes"]) for ran in (four, two)] == [(4, 4), (4, 2)]
    for ran, other in ((four, alone), (two, alone), (four, two)):
        assert_close(ran, other, t=0.1)


def test_two_devices_in_one_process_or_in_two_give_the_same_bits(processes, undisturbed, alone):
    """They agree with one device up to rounding."""
    ran = processes.Ran(processes.new())
    processes.finish(NIVP, "run", "modes.toml", "--output", ran.directory, "--devices", "0", devices=2)
    assert [(one.summary["devices"], one.summary["processes"]) for one in (ran, undisturbed)] == [(2, 1), (2, 2)]
    assert ran.metrics == undisturbed.metrics and np.array_equal(ran.theta(), undisturbed.theta())
    assert_close(undisturbed, alone, t=0.1)
    dimensions = [run.metrics[0]["effective_dimension"] for run in (undisturbed, alone)]  # measured by all processes
    assert dimensions[0] == pytest.approx(dimensions[1], rel=1e-6)


def test_a_signal_to_one_process_stops_all(stopped):
    ran, err = stopped
    assert err.splitlines()[-1].startswith("nivp: stopped on request (SIGUSR2) at ")
    assert ran.summary["status"] == "stopped"


def test_a_run_begun_without_mpi_and_resumed_with_it_has_the_same_bits(processes, left, undisturbed, same):
    """How decisions travel is no part of the result."""
    before = decisions(left)
    same(processes.resume(left, mpirun(2)), undisturbed)
    assert (before, decisions(left)) == (["the coordination service of JAX"] * 2, ["MPI"] * 2)


@pytest.mark.parametrize("count", [1, 4])
def test_a_resume_with_half_or_twice_the_processes_agrees_up_to_rounding(processes, left, undisturbed, count):
    assert_close(processes.resume(left, local(count)), undisturbed)
    assert left.summary["processes"] == count


def test_a_resume_from_a_checkpoint_in_the_middle_gives_the_same_bits(processes, left, undisturbed, same):
    folder = left.directory / "checkpoints"
    saved = sorted(folder.iterdir(), key=lambda entry: int(entry.name))
    assert len(saved) >= 4
    for later in saved[len(saved) // 2 :]:
        shutil.rmtree(later)
    same(processes.resume(left, local(2)), undisturbed)


def test_a_notice_of_the_time_limit_before_or_after_the_main_loop(processes):
    """The scheduler may send it while jax is starting, or while the pictures are drawn."""
    ran = processes.Ran(processes.new())
    options = ("--output", ran.directory, "--integrator.t_end", "0.1", "--output.plots", "true")
    begun = lambda: handles(process.pid, signal.SIGUSR2)  # noqa: E731
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
        _, err = process.communicate(timeout=300)
        assert process.returncode == code, err
        assert ran.summary["status"] == status


def handles(pid, number):
    """Whether a process has a handler for a signal."""
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(mask.split()[1], 16) & 1 << number - 1)


# Of all points at which a run evaluates the reference, only those of a curve in its pictures are 401.
WHEN_DRAWN = """

_when_computed = Modes.reference


def _when_drawn(self, x, t):
    if len(x) == 401:
        with open(os.environ["TEST_RUN"] + "/logs/process-0001.log") as log:
            other = log.read().split(", pid ")[-1].split()[0]
        deadline = time.monotonic() + 20
        while not (ended := _has_ended(other)) and time.monotonic() < deadline:
            time.sleep(0.05)
        with open("drawn", "w") as file:
            file.write("alone" if ended else "not alone")
        if os.environ.get("TEST_FAULT") == "draw":
            raise ArithmeticError("no picture")
    return _when_computed(self, x, t)


def _has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


Modes.reference = _when_drawn
"""


@pytest.mark.parametrize("words, fault", [(local(2), ""), (local(2), "draw"), (mpirun(2), "")])
def test_pictures_are_drawn_when_the_other_process_has_ended(processes, words, fault):
    folder = processes.folder
    (folder / "drawn").unlink(missing_ok=True)
    (folder / "drawn.py").write_text((folder / "modes.py").read_text() + WHEN_DRAWN)
    (folder / "drawn.toml").write_text((folder / "modes.toml").read_text().replace("modes.py", "drawn.py"))
    ran = processes.Ran(processes.new())
    options = ("--devices", "0", "--integrator.t_end", "0.1", "--output.plots", "true")
    place = {"TEST_RUN": str(ran.directory)}
    process = processes.launch(
        words, "run", "drawn.toml", "--output", ran.directory, *options, fault=fault, environment=place
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and ran.summary["status"] == "finished", err
    assert (folder / "drawn").read_text() == "alone", out
    *_, pictures, further = out.splitlines()
    assert pictures.startswith("pictures: nivp plot ") and further.startswith("go on:    nivp resume ")
    assert out.count("the pictures could not be drawn (ArithmeticError: no picture); try: nivp plot") == bool(fault)
    assert (ran.directory / "pictures/solution.png").exists() == (not fault)


def test_a_restart_takes_all_programs_from_the_compilation_cache(processes):
    """Several processes have a cache by default. Entries that were torn while they were written are replaced without a
    message, and a later run adds nothing.
    """
    home = processes.folder / "home"
    own = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(home)}

    def run():
        options = ("--devices", "0", "--integrator.t_end", "0.02", "--output.times", "[]")
        ran = processes.Ran(processes.new())
        _, err = processes.finish(local(2), "run", "modes.toml", "--output", ran.directory, *options, environment=own)
        assert "compilation cache" not in err + "".join(log.read_text() for log in ran.directory.glob("logs/*"))
        (folder,) = (home / "nivp").iterdir()
        return ran, folder, {path.name: path.stat().st_size for path in folder.glob("*-cache")}

    first, folder, programs = run()
    assert len(programs) > 20 and folder.stat().st_mode & 0o077 == 0
    torn = sorted(programs)[::2]
    for name in torn:
        os.truncate(folder / name, programs[name] // 2)
    again, _, mended = run()
    assert mended.keys() == programs.keys()
    assert all(mended[name] > programs[name] // 2 for name in torn)
    assert np.array_equal(again.theta(0.02), first.theta(0.02))
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*-cache")}
    run()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*-cache")} == written


def test_what_native_code_prints_is_in_the_logs_and_not_on_the_screen(processes):
    """gloo prints a line when the processes connect for their first sum."""
    ran = processes.Ran(processes.new())
    process = processes.launch(local(2), "run", "modes.toml", "--output", ran.directory, *SHORT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "[Gloo]" not in out + err and "finished" in out
    assert all("[Gloo] Rank" in log.read_text() for log in (ran.directory / "logs").glob("process-*.log"))


@pytest.mark.parametrize("busy", [0, 1])
def test_a_reference_that_holds_the_interpreter_of_a_process_does_not_end_the_run(processes, busy):
    """For longer than the limit on silence: nobody takes the process for lost."""
    ran, held = processes.Ran(processes.new()), processes.folder / "held"
    options = ("--output", ran.directory, *SHORT, "--cluster.silence_seconds", "3")
    processes.finish(local(2), "run", "modes.toml", *options, fault=f"hold:{busy}:5")
    assert ran.summary["status"] == "finished"
    held.unlink()  # it was made


def test_a_directory_that_not_all_hosts_see_is_refused(processes, tmp_path):
    """Such as /tmp, of which each host has its own. One message, and nothing is left behind."""
    if os.geteuid() != 0:
        require("file systems of its own for a process need root: run the tests as root")
    nivp = f"{' '.join(NIVP)} run modes.toml --output {tmp_path}/run --devices 0"
    apart = f"{' '.join(NODE[:3])} sh -c 'mount -t tmpfs none {tmp_path} && exec {nivp}'"
    script = f'[ "$NIVP_PROCESS_ID" = 0 ] && exec {nivp}; exec {apart}'
    _, err = processes.finish([*local(2), "--", "sh", "-c", script], code=2)
    (line,) = [line for line in err.splitlines() if line.startswith("nivp: ")]
    assert line.startswith("nivp: process 1 on ") and f" does not see {tmp_path}/run/config.toml" in line
    assert line.endswith("run in a directory that all hosts share") and not list(tmp_path.iterdir())


def test_an_mpirun_that_does_not_fit_mpi4py_is_refused(processes):
    """It starts N groups of one process instead of one group of N."""
    other = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in other.items():
            patch.setenv(name, value)
        directory = processes.new()
        code, _, err = processes.call("run", "modes.toml", "--output", directory)
    assert code == 2 and "mpirun started 2 processes, and mpi4py sees 1" in err and not directory.exists()


def test_a_mistake_in_the_command_line_is_reported_once(processes):
    """All processes find it before they meet, so that none can tell the others."""
    _, err = processes.finish(local(2), "run", "modes.toml", "--sead", "1", code=2)
    assert err == "nivp: command line: unknown key sead; the nearest is seed\n"
