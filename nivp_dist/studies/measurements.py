"""The measurements of a study: a record for each case in the study's directory; an interrupted study goes on there."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from nivp_dist import __version__
from nivp_dist.bench import machine
from nivp_dist.bench.child_process import environment
from nivp_dist.errors import InputError
from nivp_dist.formatting import duration
from nivp_dist.storage.files import write_whole
from nivp_dist.storage.metrics import Lines, read_lines
from nivp_dist.studies import registry
from nivp_dist.studies.case_process import RECORD
from nivp_dist.studies.study import FAILED, Case, Records, Study

HEAD = "study.json"  # what is measured here
RECORDS = "records.jsonl"  # a line for each case that was measured
CASES = "cases"  # the folders of the cases
LOG = "case.log"  # the output of a case, in its folder
POLL_SECONDS = 0.1


class Directory(NamedTuple):
    """Where the records of one study are. quick: whether its cases are the small ones."""

    path: Path
    study: Study
    quick: bool

    def cases(self) -> list[Case]:
        return self.study.cases(self.quick)

    def records(self) -> Records:
        """The records so far, in the order of the cases; of one that was measured again, the newest."""
        lines = {line.pop("case"): line for line in read_lines(self.path / RECORDS)}
        return {case.name: lines[case.name] for case in self.cases() if case.name in lines}


def opened(path: Path, study: Study, quick: bool) -> Directory:
    """The directory of a study, which is made, or taken up again where it holds records of the same cases.

    Raises InputError if it holds anything else, or cannot be written.
    """
    head = {"study": study.name, "quick": quick, "version": __version__}
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            facts = head | {"machine": machine.describe()}
            write_whole(path / HEAD, json.dumps(facts, indent=1) + "\n")
        known = dict(json.loads((path / HEAD).read_bytes()))
        read_lines(path / RECORDS)
    except OSError as error:
        raise InputError(f"{path}: holds no study, or cannot be written: {error.strerror}; choose --output") from None
    except (ValueError, TypeError):
        raise InputError(f"{path}: its files are damaged; choose another directory with --output") from None
    if different := [name for name, value in head.items() if known.get(name) != value]:
        name = different[0]
        raise InputError(f"{path}: was begun with {name} = {known.get(name)}, not {head[name]}; choose --output")
    return Directory(path, study, quick)


def take(directory: Directory, at_once: int | None, write: Callable[[str], None]) -> Records:
    """Measure every case that has no record yet, or whose measurement failed, and return all records.

    at_once: cases that run at the same time, each on cores of its own; None: as the study needs it (``Study.timed``).
    write: takes lines of progress. An interrupt stops the cases and is raised again.
    """
    known = directory.records()
    waiting = [case for case in directory.cases() if FAILED in known.get(case.name, {FAILED: None})]
    cores = machine.cores()
    at_once = min(at_once or (1 if directory.study.timed else len(cores)), len(cores))
    shares = [cores[i::at_once] for i in range(at_once)]
    free = [share[:1] for share in shares] if directory.study.timed else shares
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and free:
                running.append(_Running(directory, waiting.pop(0), free.pop()))
            time.sleep(POLL_SECONDS)
            for case in [case for case in running if case.process.poll() is not None]:
                running.remove(case)
                free.append(case.cores)
                write(case.finish(left=len(waiting) + len(running)))
    finally:
        for case in running:
            case.process.terminate()  # a run in it writes its checkpoint
        for case in running:
            case.wait()
    return directory.records()


def measured(records: Records) -> Records:
    """The records of the cases that did not fail."""
    return {name: record for name, record in records.items() if FAILED not in record}


class _Running:
    """A case whose process runs."""

    def __init__(self, directory: Directory, case: Case, cores: list[int]):
        self.directory, self.case, self.cores, self.started = directory, case, cores, time.monotonic()
        self.folder = directory.path / CASES / case.name
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RECORD).unlink(missing_ok=True)  # of an attempt whose record was not taken up
        wanted = {"module": registry.MODULES[directory.study.name], "case": case.name, "quick": directory.quick}
        wanted |= {"folder": str(self.folder), "cores": cores}
        self.log: IO[str] = (self.folder / LOG).open("w+", encoding="utf-8", errors="replace")
        words = [sys.executable, "-m", "nivp_dist.studies.case_process", json.dumps(wanted)]
        # In a session of its own, so that Ctrl-C reaches this process alone, which stops the case once.
        self.process = subprocess.Popen(
            words,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def finish(self, left: int) -> str:
        """Write the record of the case, whose process has ended. A line of progress."""
        seconds = time.monotonic() - self.started
        record = self._record() | {"case_seconds": round(seconds, 2)}
        Lines(self.directory.path / RECORDS).append({"case": self.case.name} | record)
        outcome = f"failed: {record[FAILED]} ({self.folder / LOG})" if FAILED in record else duration(seconds)
        return f"{self.case.name}: {outcome}; {left} left"

    def _record(self) -> dict:
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        self.log.close()
        code, record = self.process.returncode, self.folder / RECORD
        if code == 0 and record.exists():
            return json.loads(record.read_bytes())
        said = lines[-1] if lines else "no output"
        return {FAILED: said if code > 0 else f"{said} (exit code {code})"}  # of a signal: minus its number

    def wait(self) -> None:
        """Wait until the process has ended, which was asked to."""
        self.process.wait()
        self.log.close()
