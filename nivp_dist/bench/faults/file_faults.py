"""Faults of files: a stopped run is copied, damaged and resumed, by a process that stays alive."""

import contextlib
import filecmp
import json
import os
import selectors
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from nivp_dist.bench.child_process import environment
from nivp_dist.bench.faults import tiny_run
from nivp_dist.bench.faults.outcome import CHANGED, HANG, LOST, SAID, SAME, TRACEBACK, Outcome, Results, compare, read
from nivp_dist.bench.faults.worker import FAILED, FINISHED, REFUSED, UNDISTURBED
from nivp_dist.errors import InputError, RunFailed
from nivp_dist.storage.lock import LOCK
from nivp_dist.storage.run_directory import LOGS

PREPARATION = 600.0  # seconds for the first runs of a worker, which compile
PATIENCE = 120.0  # seconds for a resume, which takes about one; a worker that takes longer hangs

Damage = Callable[[Path, Random], str]


class Worker:
    """The process of worker.py, started when it is needed, and again after one that hung.

    folder: of its runs; ``undisturbed`` are the results of the run without faults.
    """

    def __init__(self, folder: Path):
        self.folder, self._process = folder, None

    def resume(self, directory: Path) -> tuple[str, str, list[str]]:
        """As worker.resume. Raises TimeoutError if it does not end."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{directory}\n".encode())
        self._process.stdin.flush()
        return tuple(self._answer(PATIENCE))

    @cached_property
    def undisturbed(self) -> Results:
        if self._process is None:
            self._start()
        return read(self.folder / UNDISTURBED)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        words = [sys.executable, "-m", "nivp_dist.bench.faults.worker", str(self.folder)]
        with (self.folder / "worker.log").open("wb") as log:
            self._process = subprocess.Popen(
                words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        self._answer(PREPARATION)

    def _answer(self, seconds: float) -> Any:
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(seconds):
                self.close()
                raise TimeoutError
        if line := pipe.readline():
            return json.loads(line)
        self.close()
        log = (self.folder / "worker.log").read_text("utf-8", "replace").strip().splitlines()
        raise RunFailed(f"bench faults: the process that resumes runs has ended: {(log or ['no output'])[-1]}")


def inject(worker: Worker, damage: Damage, may_refuse: bool, directory: Path, random: Random) -> Outcome:
    """Copy a stopped run to `directory`, damage it, resume it, and compare it with the undisturbed run.

    may_refuse: whether a resume cannot do without what is damaged. A run that is refused must go on to the same bits
    when its files have been put back.
    """
    undisturbed = worker.undisturbed  # starts the worker, which makes the stopped runs
    stopped = worker.folder / random.choice(sorted(tiny_run.STOPPED))
    shutil.copytree(stopped, directory)
    what = f"{stopped.name}: {damage(directory, random)}"
    before = directory.with_name(directory.name + ".before")
    shutil.copytree(directory, before)
    try:
        ended, line, messages = worker.resume(directory)
        if ended == REFUSED:
            return _after_refusal(worker, stopped, before, directory, may_refuse, what, line)
        if ended == FAILED:
            return Outcome(TRACEBACK, what, line.strip().splitlines()[-1])
        assert ended == FINISHED
        return _compared(undisturbed, directory, messages, what)
    except TimeoutError:
        return Outcome(HANG, what, f"the resume did not end within {PATIENCE:g} s")
    finally:
        shutil.rmtree(before)


def _compared(undisturbed: Results, directory: Path, messages: list[str], what: str) -> Outcome:
    try:
        verdict, differences = compare(undisturbed, read(directory), messages)
    except (ValueError, KeyError, OSError, InputError) as error:
        return Outcome(LOST, what, f"the results cannot be read: {error}")
    return Outcome(verdict, what, differences if verdict in (CHANGED, LOST) else "; ".join(messages))


def _after_refusal(
    worker: Worker, stopped: Path, before: Path, directory: Path, may_refuse: bool, what: str, line: str
) -> Outcome:
    """The outcome of a refused resume: its line, and whether the run goes on when its files are as before."""
    if not may_refuse:
        return Outcome(LOST, what, f"refused, although the run could go on: {line}")
    if "\n" in line or str(directory) not in line:
        return Outcome(LOST, what, f"the line names no file: {line}")
    if written := _written(before, directory):
        return Outcome(CHANGED, what, f"refused, and yet wrote {', '.join(written)}: {line}")
    shutil.rmtree(directory)
    shutil.copytree(stopped, directory)
    ended, again, messages = worker.resume(directory)
    if ended != FINISHED:
        return Outcome(LOST, what, f"with its files put back, the run does not go on: {again.strip().splitlines()[-1]}")
    after = _compared(worker.undisturbed, directory, messages, what)
    return Outcome(SAID, what, line) if after.verdict == SAME else after


def _written(before: Path, directory: Path) -> list[str]:
    """The files of a run directory that differ from before, other than its lock and its logs."""
    names = {
        path.relative_to(root).as_posix() for root in (before, directory) for path in root.rglob("*") if path.is_file()
    }
    changed = []
    for name in sorted(name for name in names if name != LOCK and not name.startswith(f"{LOGS}/")):
        same = False
        with contextlib.suppress(FileNotFoundError):
            same = filecmp.cmp(os.path.join(before, name), os.path.join(directory, name), shallow=False)
        if not same:
            changed.append(name)
    return changed
