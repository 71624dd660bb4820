"""Faults of processes: whole runs in processes of their own, disturbed at a random moment, and then continued."""

import contextlib
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from nivp_dist.bench.faults.children import (
    ALONE,
    LIMIT,
    LOCAL,
    MPI,
    Child,
    Children,
    Ended,
    kill,
    launchers,
    marked,
)
from nivp_dist.bench.faults.outcome import (
    CHANGED,
    ENDED,
    HANG,
    LOST,
    SAME,
    TRACEBACK,
    Outcome,
    compare,
    messages_of,
    read,
)
from nivp_dist.bench.faults.ports import listening
from nivp_dist.errors import BAD_INPUT, FINISHED, STOPPED_EARLY, InputError
from nivp_dist.storage import run_directory

FIRST_SECONDS = 4.0  # of a run, in which it has not written anything yet
GONE = 30.0  # seconds within which all processes of a run have to be gone when the first has ended
RESUMES = 3  # after a fault; a second one may have to wait for the end of the first
PAUSE = (1.0, 6.0)  # seconds, less than the deadline and cluster.silence_seconds of the run
CONNECTIONS, LONGEST_MESSAGE = 40, 5000  # of a stranger: number for each port, bytes
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Moment(NamedTuple):
    """A moment of a run: so many seconds after it has written so many lines of metrics and events."""

    lines: int
    seconds: float

    def __str__(self):
        after = f"line {self.lines}" if self.lines else "the start"
        return f"{self.seconds:.2f} s after {after}"


def random_moment(children: Children, launcher: str, random: Random, first: int = 0) -> Moment:
    """A moment in the life of a run by a launcher, after its first line if first is 1."""
    results = children.undisturbed(launcher)
    lines = random.randrange(first, len(results.metrics) + len(results.events))
    seconds = random.uniform(0, FIRST_SECONDS), random.choice([0.0, random.uniform(0, 0.2)])
    return Moment(lines, seconds[0] if lines == 0 else seconds[1])


def start(
    children: Children, among: Sequence[str], directory: Path, random: Random, first: int = 0
) -> tuple[Child, str]:
    """Start a run by one of these launchers, and wait for a random moment. Returns the run, and the moment in words."""
    launcher = random.choice(launchers(*among))
    moment = random_moment(children, launcher, random, first)
    child = children.start(launcher, directory)
    reached = child.wait_for(lambda: child.lines() >= moment.lines)
    time.sleep(moment.seconds)
    return child, f"{launcher}, {moment}" + ("" if reached else " (the run had ended)")


class Disturbed(NamedTuple):
    """A run that was disturbed, and how it ended; the launcher that continues it, and the fault in words."""

    launcher: str
    directory: Path
    ended: Ended
    what: str


def conclude(children: Children, run: Disturbed, codes: Sequence[int] | None = None, silent: bool = False) -> Outcome:
    """The outcome of a run that was disturbed: it is continued to its end and compared.

    codes: the exit codes that are right; None: any. silent: whether it may have ended without a line.
    """
    ended, what = run.ended, f"{run.what}; ended after {run.ended.seconds:.0f} s with {run.ended.code}"
    if ended.code is None:
        return Outcome(HANG, what, f"it had to be killed after {LIMIT:g} s")
    if left := _left(run.directory):
        return Outcome(HANG, what, f"processes were left behind: {left}")
    if "Traceback (most recent call last)" in ended.error:
        return Outcome(TRACEBACK, what, ended.error.strip().splitlines()[-1])
    if codes is not None and ended.code not in codes:
        return Outcome(ENDED, what, ended.line or "no line")
    if ended.code != FINISHED and not ended.line and not silent:
        return Outcome(ENDED, what, "no line says why")
    return _continued(children, run._replace(what=what))


def _continued(children: Children, run: Disturbed) -> Outcome:
    what, again = run.what, Ended(None, "", 0.0)
    for _ in range(RESUMES):
        again = children.start(run.launcher, run.directory).wait()
        if again.code is None or _left(run.directory):
            return Outcome(HANG, what, "the run, continued, did not end")
        if "Traceback (most recent call last)" in again.error:
            return Outcome(TRACEBACK, what, f"continued: {again.error.strip().splitlines()[-1]}")
        if again.code == FINISHED:
            break
    else:
        return Outcome(LOST, what, f"it does not go on: {again.line or f'exit code {again.code}'}")
    try:
        results = read(run.directory)
    except (ValueError, KeyError, OSError, InputError) as error:
        return Outcome(LOST, what, f"the results cannot be read: {error}")
    verdict, differences = compare(children.undisturbed(run.launcher), results, messages_of(run.directory))
    return Outcome(verdict, what, run.ended.line if verdict == SAME else differences)


def _left(directory: Path) -> list[int]:
    """The processes of a run that are still there some time after its end; they are killed."""
    deadline = time.monotonic() + GONE
    while (pids := marked(directory)) and time.monotonic() < deadline:
        time.sleep(0.05)
    kill(pids)
    return pids


# The kinds ------------------------------------------------------------------------------------------


def killed(children: Children, directory: Path, random: Random) -> Outcome:
    """kill -9 of one process of the run, or of all at once, as when a host dies or memory is short."""
    choice, everyone = random.random(), random.random() < 0.2
    child, what = start(children, (ALONE, LOCAL, LOCAL, MPI), directory, random)
    ranks = child.ranks()
    victims = ranks if everyone else ranks[int(choice * len(ranks)) :][:1]
    kill(victims)
    text = f"{what}: {'all killed' if everyone else f'process {ranks.index(victims[0])} killed' if victims else 'none'}"
    # A process that is killed says nothing, and mpirun ends the others before they can.
    silent = child.launcher != LOCAL or everyone or child.lines() == 0
    return conclude(children, Disturbed(child.launcher, directory, child.wait(), text), silent=silent)


def signalled(children: Children, directory: Path, random: Random) -> Outcome:
    """A signal that asks a run to stop, to one of its processes."""
    name, choice = random.choice(SIGNALS), random.random()
    child, what = start(children, (ALONE, ALONE, LOCAL, MPI), directory, random)
    ranks = child.ranks()
    began = directory.exists()  # before, Python itself may still be starting, and the signal ends it
    victims = ranks[int(choice * len(ranks)) :][:1]
    kill(victims, signal.Signals[name])
    what = f"{what}: {name} to process {ranks.index(victims[0]) if victims else '-'}"
    codes = (FINISHED, STOPPED_EARLY) if began else None
    return conclude(children, Disturbed(child.launcher, directory, child.wait(), what), codes, silent=not began)


def launcher_killed(children: Children, directory: Path, random: Random) -> Outcome:
    """kill -9 of launch/local or mpirun: the processes of the run must not go on for ever."""
    child, what = start(children, (LOCAL, LOCAL, MPI), directory, random)
    began = time.monotonic()
    kill([child.process.pid])
    ended = child.wait()
    while marked(directory) and time.monotonic() < began + LIMIT:
        time.sleep(0.05)
    ended = child.wait()._replace(seconds=time.monotonic() - began)
    return conclude(children, Disturbed(child.launcher, directory, ended, f"{what}: the launcher killed"), silent=True)


def stopped(children: Children, directory: Path, random: Random) -> Outcome:
    """A process that does nothing any more (SIGSTOP): found by the deadline, or because it is silent.

    One of a run that has just finished is woken again: its launcher would wait for the pictures for ten minutes.
    """
    choice = random.random()
    child, what = start(children, (LOCAL, LOCAL, MPI), directory, random, first=1)
    ranks = child.ranks()
    victims = ranks[int(choice * len(ranks)) :][:1]
    kill(victims, signal.SIGSTOP)
    what = f"{what}: process {ranks.index(victims[0]) if victims else '-'} stopped"
    if run_directory.has_finished(directory):
        kill(victims, signal.SIGCONT)
        what += " (the run had finished)"
    ended = child.wait()
    return conclude(children, Disturbed(child.launcher, directory, ended, what), silent=child.launcher == MPI)


def paused(children: Children, directory: Path, random: Random) -> Outcome:
    """A process, or all, suspended for some seconds, as a scheduler does: the run must go on."""
    choice, seconds = random.random(), random.uniform(*PAUSE)
    child, what = start(children, (ALONE, LOCAL, MPI), directory, random, first=1)
    ranks = child.ranks()
    victims = ranks if choice < 0.3 else ranks[int(choice * len(ranks)) :][:1]
    kill(victims, signal.SIGSTOP)
    time.sleep(seconds)
    kill(victims, signal.SIGCONT)
    what = f"{what}: {len(victims)} of {len(ranks)} processes paused for {seconds:.1f} s"
    return conclude(children, Disturbed(child.launcher, directory, child.wait(), what), codes=(FINISHED,))


def moved(children: Children, directory: Path, random: Random) -> Outcome:
    """The run directory renamed, and put back when the run has ended."""
    away = directory.with_name(f"{directory.name}.away")
    child, what = start(children, (ALONE, ALONE, LOCAL, MPI), directory, random, first=1)
    if child.running:
        directory.rename(away)
    ended = child.wait()
    if away.exists():
        if directory.exists():
            return Outcome(
                CHANGED, what, f"{directory.name} was made again: {[path.name for path in directory.iterdir()]}"
            )
        away.rename(directory)
    return conclude(
        children,
        Disturbed(child.launcher, directory, ended, f"{what}: the directory moved"),
        silent=child.launcher == MPI,
    )


def second(children: Children, directory: Path, random: Random) -> Outcome:
    """A second resume at the same time: it is refused with a line, and changes nothing.

    The run, whose steps are short, is suspended until the second one has found it.
    """
    child, what = start(children, (ALONE, LOCAL, MPI), directory, random, first=1)
    ranks = child.ranks()
    kill(ranks, signal.SIGSTOP)
    running = child.running
    refused = children.start(ALONE, directory, ["resume", str(directory)]).wait()
    kill(ranks, signal.SIGCONT)
    what = f"{what}: a second resume, {refused.code}: {refused.line}"
    if running and not (refused.code == BAD_INPUT and "in use by" in refused.line):
        return Outcome(CHANGED, what, "it was not refused")
    return conclude(children, Disturbed(child.launcher, directory, child.wait(), what), codes=(FINISHED,))


def garbage(children: Children, directory: Path, random: Random) -> Outcome:
    """Strangers on all ports of the run: silent ones, random bytes, another protocol. They change nothing."""
    child, what = start(children, (LOCAL, LOCAL, MPI), directory, random)
    ports = listening(child.ranks())
    with contextlib.ExitStack() as stack:
        for port in ports:
            for number in range(CONNECTIONS):
                with contextlib.suppress(OSError):
                    peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1.0))
                    if number % 3:
                        start_of = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if number % 3 == 1 else b""
                        peer.sendall(start_of + random.randbytes(random.randrange(1, LONGEST_MESSAGE)))
        ended = child.wait()
    return conclude(
        children,
        Disturbed(child.launcher, directory, ended, f"{what}: garbage on {len(ports)} ports"),
        codes=(FINISHED,),
    )
