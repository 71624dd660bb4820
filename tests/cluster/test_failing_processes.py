"""Runs of which a process is killed, raises, hangs or has another state: the group ends, and the run can be resumed."""

import os
import random
import re
import signal
import socket
import time

import pytest
from process_groups import GONE, NIVP, SHORT, alive, local, members, mpirun, since_the_fault
from whole_runs import transitions_after

HOST = socket.gethostname()
KILLS = 9  # each of three kinds, each with both launchers; `nivp bench faults` tries as many as one likes
EVERY = 2  # checkpoint.every_steps of the run that is killed: the most transitions that can be lost


@pytest.mark.timeout(600)  # nine starts of two processes, and as many ends
def test_a_run_that_is_killed_nine_times_ends_with_the_same_bits(processes, undisturbed, until, same):
    """kill -9 of rank 0, of rank 1 or of both, at random times and inside saves, with MPI and without.

    Each time all processes end and at most one interval between saves is lost. The resumed run ends with the same bits.
    """
    chance, kills, inside = random.Random(11), dict.fromkeys(["rank 0", "rank 1", "all"], 0), 0
    ran, lost, ends = None, [], 0

    def saving():
        return any(not entry.name.isdigit() for entry in (ran.directory / "checkpoints").glob("*"))

    def starts():
        logs = (ran.directory / "logs").glob("process-*.log")
        return sum(", pid " in line for log in logs for line in log.read_text().splitlines())

    def saved():
        folder = ran.directory / "checkpoints"
        return max((int(entry.name) for entry in folder.glob("*") if entry.name.isdigit()), default=0)

    def lost_now():
        """Transitions that a kill would lose, from the steps in the metrics; None before the first step."""
        return transitions_after(undisturbed, ("step", len(ran.metrics))) - saved() if ran.metrics else None

    while (number := sum(kills.values())) < KILLS:
        if ran is None:
            ran, expected = processes.Ran(processes.new()), 0
            command = ("run", "modes.toml", "--output", ran.directory, "--devices", "0")
            command += ("--checkpoint.every_steps", EVERY)
        launcher = (local, mpirun)[number // 2 % 2](2)
        process, expected = processes.launch(launcher, *command), expected + 2
        until(lambda: starts() == expected, process)
        victims = members(ran.directory)
        # A third of the kills falls inside a save, a third anywhere (at the start too), and a third soon after a step.
        # The time is counted in saves and steps first and then by a clock, for any speed of the machine.
        reach, stepped, phase = saved() + EVERY * chance.randrange(3), len(ran.metrics), number % 3
        reached = (saving, lambda: saved() >= reach, lambda: len(ran.metrics) > stepped)[phase]
        while process.poll() is None and not reached():
            time.sleep(0.002)
        time.sleep(0 if phase == 0 else chance.uniform(0, 0.5))
        if process.poll() is not None:  # it has finished before the kill
            process.communicate()
            same(ran, undisturbed)
            ran, ends = None, ends + 1
            continue
        inside += phase == 0
        who = list(kills)[number // 3 % 3]
        kills[who] += 1
        for index, pid in victims.items():
            if who in ("all", f"rank {index}"):
                os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        _, err = process.communicate(timeout=GONE + 10)
        assert time.monotonic() - started < GONE and process.returncode not in (0, 75)
        assert not alive(victims.values())
        reported = [line for line in err.splitlines() if line.startswith("nivp: ")]
        if who != "all" and launcher == local(2):  # mpirun kills the other process before it can report
            killed = f"nivp: process {who[-1]} on ({HOST}|127.0.0.1) was killed"
            assert reported and re.fullmatch(killed, reported[-1]), err
            assert err.splitlines()[-1] == reported[-1]
        if (now := lost_now()) is not None:
            assert now <= EVERY
            lost.append(now)
        command = ("resume", ran.directory)
    assert min(kills.values()) == KILLS // 3 == inside <= len(lost)
    if ran is not None:
        same(processes.resume(ran, local(2)), undisturbed)
    print(f"kill -9: {kills}, {inside} inside saves; transitions lost: {lost}; runs that ended the same: {ends + 1}")


@pytest.fixture(scope="module")
def run_with_fault(processes):
    """A function (words, fault) -> standard error, for one run that has one fault after the other.

    The first call starts the run, the others resume it. Each time all processes must end within seconds.
    """
    ran = processes.Ran(processes.new())
    begin = ("run", "modes.toml", "--output", ran.directory, "--devices", "0", "--checkpoint.every_steps", "1")
    begin += ("--cluster.deadline_minutes", "5")

    def run_with_fault(words, fault, patience=GONE):
        command = ("resume", ran.directory) if ran.directory.exists() else begin
        _, err = processes.finish(words, *command, fault=fault, code=1)
        assert not alive(members(ran.directory).values())
        assert fault.startswith("seed") or since_the_fault(processes) < patience
        return err

    run_with_fault.ran = ran
    return run_with_fault


def test_a_rank_with_another_seed_is_found_at_the_next_save(run_with_fault):
    """A test of the check itself. The fault must be the first: a resumed run takes its key from the checkpoint."""
    assert "processes hold different states" in run_with_fault(local(2), "seed:1").splitlines()[-1]


@pytest.mark.parametrize("words, rank", [(local(2), 1), (mpirun(2), 0)], ids=["local", "mpirun"])
def test_a_rank_that_raises_ends_the_group(run_with_fault, words, rank):
    err = run_with_fault(words, f"raise:{rank}")
    who = f"process {rank} on {HOST}: " if rank else ""
    reported = [line for line in err.splitlines() if line.startswith("nivp: ")]
    assert reported == [f"nivp: {who}ArithmeticError: the reference is broken"]
    if words == local(2):
        assert err.splitlines()[-1] == reported[0]
    ended = (run_with_fault.ran.directory / "logs/process-0000.log").read_text().splitlines()[-1]
    assert ended.endswith(f"the group ends: {reported[0].removeprefix('nivp: ')}")


def test_a_process_that_cannot_end_at_once_prints_no_other_cause(run_with_fault):
    """One call holds its interpreter while process 0 fails and ends, which native code in it reports at length."""
    err = run_with_fault(local(2), "raise:0:30", patience=GONE + 10)
    assert err.splitlines()[-1] == "nivp: ArithmeticError: the reference is broken"
    assert "coordination service" not in err
    assert "coordination service" in (run_with_fault.ran.directory / "logs/process-0001.log").read_text()


def test_a_rank_that_sleeps_is_found_by_the_watchdog(run_with_fault):
    """The fault shortens the deadline to three seconds when it begins; before, a slow start must not miss it."""
    last = run_with_fault(local(2), "sleep:1", patience=3 + GONE).splitlines()[-1]
    assert "stuck in 'output'" in last and "for more than 3 s: the stacks are in the logs" in last
    log = (run_with_fault.ran.directory / "logs/process-0001.log").read_text()
    assert "_faulty" in log and "in 'output'" in log


def test_a_run_in_one_process_that_sleeps_is_ended_by_the_watchdog(processes):
    ran = processes.Ran(processes.new())
    words = ("run", "modes.toml", "--output", ran.directory, *SHORT, "--cluster.deadline_minutes", 5)
    _, err = processes.finish(NIVP, *words, fault="sleep:0", code=1)  # which shortens the deadline to three seconds
    why = "the run is stuck in 'output' for more than 3 s: the stacks are in the logs of the run directory"
    assert err.splitlines()[-1] == f"nivp: {why}"
    log = (ran.directory / "logs/process-0000.log").read_text()
    assert "_faulty" in log and "in 'output'" in log and log.splitlines()[-1].endswith(f"the run ends: {why}")
    assert processes.resume(ran, NIVP).summary["t"] == 0.1


def test_the_run_with_all_these_faults_ends_with_the_same_bits(processes, run_with_fault, undisturbed, same):
    ran = run_with_fault.ran
    if not ran.directory.exists():  # this test is run without the others
        run_with_fault(local(2), "raise:1")
    assert ran.summary["status"] == "running" and len(ran.metrics) < len(undisturbed.metrics)
    same(processes.resume(ran, local(2)), undisturbed)
