"""`nivp bench faults`: injects faults in turn, prints a line for each, and a table at the end."""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from nivp_dist.bench import machine
from nivp_dist.bench.faults.children import Children
from nivp_dist.bench.faults.file_faults import Worker
from nivp_dist.bench.faults.kinds import BY_NAME, KINDS, Kind, Stage
from nivp_dist.bench.faults.outcome import GOOD, SAID, SAME, Outcome
from nivp_dist.errors import InputError
from nivp_dist.report.tables import aligned
from nivp_dist.settings.keys import nearest
from nivp_dist.storage import run_directory
from nivp_dist.storage.files import append_line

COLUMNS = ("kind", "faults", SAME, SAID, "bad")
LONGEST = 200  # characters of a message in a line of the screen


class Fault(NamedTuple):
    """The fault of a kind with this number. Its moment and its victims follow from the seed and from these."""

    kind: Kind
    number: int

    def __str__(self):
        return f"{self.kind.name}:{self.number}"


def run(number: int, seed: int, names: Sequence[str], output: str | None, write: Callable[[str], object]) -> bool:
    """Inject `number` faults, of the kinds in turn. Returns whether the outcome of each is good.

    names: of kinds, or KIND:NUMBER for a single fault; none: all kinds. output: a new file that gets a line of JSON for
    each fault, after one about the machine. write: takes the lines for the screen.

    Raises InputError for an unknown kind, one that is not possible here, and a file that cannot be written.
    """
    faults = select(number, names, write)
    record = _open(output, seed)
    folder = Path(tempfile.mkdtemp(prefix="nivp-faults-")).resolve()
    stage = Stage(Worker(folder / "stopped"), Children(folder))
    done: list[tuple[Fault, Outcome]] = []
    try:
        for fault in faults:
            directory = folder / str(fault).replace(":", "-")
            # A generator for each fault, seeded with text, so that a fault can be repeated without those before it.
            outcome = fault.kind.inject(stage, directory, random.Random(f"{seed} {fault}"))
            done.append((fault, outcome))
            write(_line(fault, outcome))
            if record is not None:
                append_line(record, json.dumps({"kind": fault.kind.name, "number": fault.number, **outcome._asdict()}))
            if outcome.good:
                shutil.rmtree(directory, ignore_errors=True)
            else:
                write(f"  repeat with `nivp bench faults --seed {seed} {fault}`; its files: {directory}")
    finally:
        stage.worker.close()
        stage.children.close()
        if all(outcome.good for _, outcome in done):
            shutil.rmtree(folder, ignore_errors=True)
        for line in summary(done):
            write(line)
    return all(outcome.good for _, outcome in done)


def list_of_kinds() -> list[str]:
    """The names of the kinds, and what happens in each."""
    width = max(len(kind.name) for kind in KINDS)
    return [f"{kind.name.ljust(width)}  {kind.what}" for kind in KINDS]


def select(number: int, names: Sequence[str], write: Callable[[str], object]) -> list[Fault]:
    """The faults that are to be injected. Kinds that this machine has no means for are left out, with a line."""
    single = [name for name in names if ":" in name]
    if single:
        if len(single) < len(names):
            raise InputError("bench faults: name kinds, or single faults as KIND:NUMBER, not both")
        return [_single(name) for name in single]
    kinds = [_kind(name) for name in names] or list(KINDS)
    missing = {kind.name: reason for kind in kinds if (reason := kind.missing()) is not None}
    for name, reason in missing.items():
        write(f"left out: {name}: {reason}")
    possible = [kind for kind in kinds if kind.name not in missing]
    if not possible:
        raise InputError(f"bench faults: no fault of {', '.join(missing)} is possible here")
    return [Fault(possible[place % len(possible)], place // len(possible)) for place in range(number)]


def summary(done: Sequence[tuple[Fault, Outcome]]) -> list[str]:
    """The table of the kinds, and the verdicts of all bad outcomes."""
    rows = []
    for kind in KINDS:
        verdicts = [outcome.verdict for fault, outcome in done if fault.kind is kind]
        if verdicts:
            rows.append([kind.name, *_counts(verdicts)])
    rows.append(["all", *_counts([outcome.verdict for _, outcome in done])])
    bad = [f"{fault}: {outcome.verdict}: {outcome.what}: {outcome.line}" for fault, outcome in done if not outcome.good]
    return ["", *aligned([list(COLUMNS), *rows]), *bad]


def _counts(verdicts: list[str]) -> list[str]:
    bad = sum(verdict not in GOOD for verdict in verdicts)
    return list(map(str, (len(verdicts), verdicts.count(SAME), verdicts.count(SAID), bad)))


def _line(fault: Fault, outcome: Outcome) -> str:
    text = " ".join(f"{outcome.what}; {outcome.line}".split()).rstrip("; ")
    return f"{outcome.verdict:9} {fault!s:20} {text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'}"


def _single(name: str) -> Fault:
    kind, _, number = name.partition(":")
    if not number.isdigit():
        raise InputError(f"bench faults: {name}: a single fault is KIND:NUMBER, such as metrics:3")
    fault = Fault(_kind(kind), int(number))
    if (reason := fault.kind.missing()) is not None:
        raise InputError(f"bench faults: {kind}: {reason}")
    return fault


def _kind(name: str) -> Kind:
    if name not in BY_NAME:
        close = nearest(name, BY_NAME)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(BY_NAME)}"
        raise InputError(f"bench faults: there is no kind '{name}'; {hint}")
    return BY_NAME[name]


def _open(output: str | None, seed: int) -> Path | None:
    if output is None:
        return None
    path = Path(output).expanduser().resolve()
    if path.exists():
        raise InputError(f"{path}: exists already; choose another with --output")
    head = {"seed": seed, "machine": machine.describe(), "versions": run_directory.versions()}
    try:
        append_line(path, json.dumps(head))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; choose another with --output") from None
    return path
