"""Runs of several processes that fail: killed, raising, stuck, disagreeing. The group is gone; what is left goes on."""

import os
import random
import signal
import socket
import time

import pytest
from process_groups import local, members, mpirun

GONE = 15.0  # seconds within which a group must have ended, on a machine as busy as those of tests
HOST = socket.gethostname()


def test_killed_twenty_times_at_random(processes, undisturbed, until, same):
    """kill -9 of rank 0, of the other, of all, also inside saves; each time the group is gone and the run goes on."""
    chance, kills, inside = random.Random(11), dict.fromkeys(["rank 0", "rank 1", "all"], 0), 0
    ran = None

    def saving():
        return any(not entry.name.isdigit() for entry in (ran.directory / "checkpoints").glob("*"))

    def starts():
        logs = (ran.directory / "logs").glob("process-*.log")
        return sum(", pid " in line for log in logs for line in log.read_text().splitlines())

    while (number := sum(kills.values())) < 20:
        if ran is None:
            ran, expected = processes.Ran(processes.new()), 0
            command = ("run", "modes.toml", "--output", ran.directory, "--devices", "0")
        process, expected = processes.launch(local(2), *command, "--checkpoint.every_steps", "1"), expected + 2
        until(lambda: starts() == expected, process)
        victims = members(ran.directory)
        wanted, moment = number % 3 == 0, time.monotonic() + chance.uniform(0, 6)
        while process.poll() is None and not (saving() if wanted else time.monotonic() > moment):
            time.sleep(0.005)
        if process.poll() is not None:  # it has come to its end in between
            process.communicate()
            same(ran, undisturbed)
            ran = None
            continue
        inside += wanted
        who = list(kills)[number // 3 % 3]
        kills[who] += 1
        for index, pid in victims.items():
            if who in ("all", f"rank {index}"):
                os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        process.communicate(timeout=GONE + 10)
        assert time.monotonic() - started < GONE and process.returncode not in (0, 75)
        assert not any(os.path.exists(f"/proc/{pid}") for pid in victims.values())
        command = ("resume", ran.directory)
    assert min(kills.values()) >= 6 and inside >= 7
    if ran is not None:
        same(processes.resume(ran, local(2)), undisturbed)


@pytest.mark.parametrize("words, rank", [(local(2), 1), (mpirun(2), 0)], ids=["local", "mpirun"])
def test_a_rank_that_raises_ends_the_group(processes, undisturbed, same, words, rank):
    ran = processes.Ran(processes.new())
    arguments = ("run", "modes.toml", "--output", ran.directory, "--devices", "0", "--checkpoint.every_steps", "1")
    _, err = processes.finish(words, *arguments, fault=f"raise:{rank}", code=1, seconds=120)
    who = f"process {rank} on {HOST}: " if rank else ""
    said = [line for line in err.splitlines() if line.startswith("nivp: ")]
    assert said == [f"nivp: {who}ArithmeticError: the reference is out of order"]
    if words == local(2):
        assert err.splitlines()[-1] == said[0]
    same(processes.resume(ran, local(2)), undisturbed)


def test_a_rank_that_sleeps_is_found_by_the_watchdog(processes, undisturbed, same):
    ran = processes.Ran(processes.new())
    arguments = ("run", "modes.toml", "--output", ran.directory, "--devices", "0", "--checkpoint.every_steps", "1")
    deadline = ("--cluster.deadline_minutes", "0.4")
    _, err = processes.finish(local(2), *arguments, *deadline, fault="sleep:1", code=1, seconds=120)
    last = err.splitlines()[-1]
    assert "stuck in 'output'" in last and "the stacks are in the logs" in last
    log = (ran.directory / "logs/process-0001.log").read_text()
    assert "_faulty" in log and "in 'output'" in log
    same(processes.resume(ran, local(2)), undisturbed)


def test_a_rank_with_another_seed_is_found_at_the_next_save(processes, undisturbed, same):
    """A negative control: with checks that cannot fail this run would finish."""
    ran = processes.Ran(processes.new())
    arguments = ("run", "modes.toml", "--output", ran.directory, "--devices", "0", "--checkpoint.every_steps", "2")
    _, err = processes.finish(local(2), *arguments, fault="seed:1", code=1, seconds=120)
    assert "processes hold different states" in err.splitlines()[-1]
    same(processes.resume(ran, local(2)), undisturbed)
