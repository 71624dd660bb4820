"""Runs of several processes that fail: killed, raising, stuck, disagreeing. The group is gone; what is left goes on."""

import os
import random
import re
import signal
import socket
import time

import pytest
from process_groups import GONE, alive, local, members, mpirun, since_the_fault
from whole_runs import ticks_after

HOST = socket.gethostname()
EVERY = 2  # checkpoint.every_steps of the run that is killed: transitions between two saves, the most that can be lost


def test_killed_twenty_times_at_random(processes, undisturbed, until, same):
    """kill -9 of rank 0, of the other, of all, also inside saves, with MPI and without: each time the group is gone, at
    most one interval of work is lost, and what goes on from there ends with the same bits."""
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
        """Transitions, as far as the steps written down tell; None before the first of them."""
        return ticks_after(undisturbed, ("step", len(ran.metrics))) - saved() if ran.metrics else None

    while (number := sum(kills.values())) < 20:
        if ran is None:
            ran, expected = processes.Ran(processes.new()), 0
            command = ("run", "modes.toml", "--output", ran.directory, "--devices", "0")
            command += ("--checkpoint.every_steps", EVERY)
        launcher = (local, mpirun)[number // 2 % 2](2)
        process, expected = processes.launch(launcher, *command), expected + 2
        until(lambda: starts() == expected, process)
        victims = members(ran.directory)
        # Moments are counted in saves, and only then by a clock: a slow machine too gets through all phases of the run.
        wanted, reach, delay = number % 3 == 0, saved() + EVERY * chance.randrange(3), chance.uniform(0, 0.5)
        while process.poll() is None and not (saving() if wanted else saved() >= reach):
            time.sleep(0.002)
        time.sleep(0 if wanted else delay)
        if process.poll() is not None:  # it has come to its end in between
            process.communicate()
            same(ran, undisturbed)
            ran, ends = None, ends + 1
            continue
        inside += wanted
        who = list(kills)[number // 3 % 3]
        kills[who] += 1
        for index, pid in victims.items():
            if who in ("all", f"rank {index}"):
                os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        _, err = process.communicate(timeout=GONE + 10)
        assert time.monotonic() - started < GONE and process.returncode not in (0, 75)
        assert not alive(victims.values())
        said = [line for line in err.splitlines() if line.startswith("nivp: ")]
        if who != "all" and launcher == local(2):  # mpirun kills the other one before it can say so, and says more
            assert re.fullmatch(f"nivp: process {who[-1]} on ({HOST}|127.0.0.1) was killed", (said or [""])[-1]), err
            assert err.splitlines()[-1] == said[-1]
        if (now := lost_now()) is not None:
            assert now <= EVERY
            lost.append(now)
        command = ("resume", ran.directory)
    assert min(kills.values()) >= 6 and inside >= 7 and len(lost) >= 4
    if ran is not None:
        same(processes.resume(ran, local(2)), undisturbed)
    print(f"kill -9: {kills}, {inside} inside saves; transitions lost: {lost}; runs that ended the same: {ends + 1}")


@pytest.fixture(scope="module")
def befallen(processes):
    """One run that the faults below befall in turn: begun by the first of them, gone on with by the others.

    (words, fault) -> standard error of the group, which is gone within seconds.
    """
    ran = processes.Ran(processes.new())
    begin = ("run", "modes.toml", "--output", ran.directory, "--devices", "0", "--checkpoint.every_steps", "1")
    begin += ("--cluster.deadline_minutes", "5")

    def befallen(words, fault, patience=GONE):
        command = ("resume", ran.directory) if ran.directory.exists() else begin
        _, err = processes.finish(words, *command, fault=fault, code=1)
        assert not alive(members(ran.directory).values())
        assert fault.startswith("seed") or since_the_fault(processes) < patience
        return err

    befallen.ran = ran
    return befallen


def test_a_rank_with_another_seed_is_found_at_the_next_save(befallen):
    """A negative control: with checks that cannot fail this run would go on. (A resumed run has the saved key.)"""
    assert "processes hold different states" in befallen(local(2), "seed:1").splitlines()[-1]


@pytest.mark.parametrize("words, rank", [(local(2), 1), (mpirun(2), 0)], ids=["local", "mpirun"])
def test_a_rank_that_raises_ends_the_group(befallen, words, rank):
    err = befallen(words, f"raise:{rank}")
    who = f"process {rank} on {HOST}: " if rank else ""
    said = [line for line in err.splitlines() if line.startswith("nivp: ")]
    assert said == [f"nivp: {who}ArithmeticError: the reference is out of order"]
    if words == local(2):
        assert err.splitlines()[-1] == said[0]
    ended = (befallen.ran.directory / "logs/process-0000.log").read_text().splitlines()[-1]
    assert ended.endswith(f"the group ends: {said[0].removeprefix('nivp: ')}")


def test_a_rank_that_sleeps_is_found_by_the_watchdog(befallen):
    """Its deadline of five minutes becomes three seconds when it falls asleep: a slow start is not stuck."""
    last = befallen(local(2), "sleep:1", patience=3 + GONE).splitlines()[-1]
    assert "stuck in 'output'" in last and "for more than 3 s: the stacks are in the logs" in last
    log = (befallen.ran.directory / "logs/process-0001.log").read_text()
    assert "_faulty" in log and "in 'output'" in log


def test_what_these_have_left_ends_with_the_same_bits(processes, befallen, undisturbed, same):
    ran = befallen.ran
    if not ran.directory.exists():  # of this file, this test alone is run
        befallen(local(2), "raise:1")
    assert ran.summary["status"] == "running" and len(ran.metrics) < len(undisturbed.metrics)
    same(processes.resume(ran, local(2)), undisturbed)
