"""A run of two processes on a disk that fails: one message, at most one interval lost, the same bits in the end."""

import os
import re
import signal

from disks import traced
from process_groups import Processes, local


def start(processes, words, *options):
    ran = processes.Ran(processes.new())
    return ran, processes.launch(words, "run", "modes.toml", "--output", ran.directory, "--devices", "0", *options)


def error_lines(process, code):
    """The lines on standard error of a launch that must end with the code."""
    try:
        _, err = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return err.splitlines()


def test_a_disk_that_fills_stops_a_run_that_can_be_resumed(processes, undisturbed, until, same, disk):
    here = Processes(disk.path, processes.cache)
    ran, process = start(here, local(2))
    until(lambda: len(ran.metrics) >= 2, process)
    disk.fill(leave=1 << 19)
    (line,) = error_lines(process, 1)
    assert re.fullmatch(r"nivp: .*/checkpoints cannot be written: .* MB free on the disk; make room, then resume", line)
    assert ran.summary["status"] == "failed" and line == f"nivp: {ran.summary['message']}"
    steps = ran.summary["steps"]
    disk.make_room()
    same(here.resume(ran, local(2)), undisturbed)
    resumed = next(message for kind, message in ran.events if kind == "resume")
    assert steps - int(resumed.rsplit(" ", 1)[1]) <= 4


def test_calls_that_fail_once_are_repeated_and_change_nothing(processes, undisturbed, same, tmp_path):
    """strace lets a flush, a rename and a write fail once, and delays every opening of a file.

    The run repeats each call a second later, with a warning, and nothing else changes.
    """
    home, log = processes.folder / f"run{processes.count + 1}", tmp_path / "trace"
    folder, partial, metrics = home / "checkpoints", home / "checkpoints/4.partial", home / "metrics.jsonl"
    faults = (
        "fsync:error=EIO:when=1",
        "rename:error=ESTALE:when=1",
        "write:error=EIO:when=3",
        "openat:delay_enter=50ms",
    )
    ran, process = start(processes, traced(*faults, paths=(folder, partial, metrics), log=log) + local(2))
    assert error_lines(process, 0) == [
        f"nivp: warning: {name}: {reason}; trying again in 1 s"
        for name, reason in (
            (folder, "Input/output error"),
            (folder, "Stale file handle"),
            (metrics, "Input/output error"),
        )
    ]
    calls = log.read_text()
    assert calls.count("(INJECTED)") == 3 and calls.count("(DELAYED)") > 20
    text = (ran.directory / "logs/process-0000.log").read_text()
    assert text.count("process 0: WARNING nivp_dist.storage.files: ") == 3
    same(ran, undisturbed)
