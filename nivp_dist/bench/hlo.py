"""What a compiled program does on a device, by its optimised HLO: collectives, loops and calls of libraries."""

import math
import re
from collections import Counter
from typing import NamedTuple

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
WHILE = re.compile(r" while\(.*?body=%?([\w.\-]+)")
TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=\{?%?([\w.\-, %]+)\}?")
CUSTOM = re.compile(r'custom_call_target="([^"]+)"')
SHAPE = re.compile(r"\b[a-z]+(\d+)\[([\d,]*)\]")  # such as f64[200,3]: bits of a number, and sizes


class Collective(NamedTuple):
    """An operation in which the devices exchange numbers.

    Attributes:
        kind: as XLA names it, such as all-reduce. elements, size: numbers and bytes of its result on a device.
    """

    kind: str
    elements: int
    size: int


class Loop(NamedTuple):
    """A loop of a program.

    Attributes:
        trips: how often it runs; None if that depends on the data, as for conjugate gradients.
        collectives: of one trip, by name, those of inner loops included once.
    """

    trips: int | None
    collectives: dict[str, int]


class Contents(NamedTuple):
    """What a program contains.

    Attributes:
        collectives: name -> (how many, bytes of their results on a device), those in loops counted once.
        loops: all of them. custom_calls: names of the functions of libraries that it calls.
    """

    collectives: dict[str, tuple[int, int]]
    loops: list[Loop]
    custom_calls: set[str]


def contents(text: str) -> Contents:
    """The contents of a program from its optimised HLO (``Compiled.as_text``)."""
    parts = computations(text)
    found = [collective for line in text.splitlines() if (collective := _collective(line))]
    counts = Counter(collective.kind for collective in found)
    sizes = {kind: sum(each.size for each in found if each.kind == kind) for kind in counts}
    loops = []
    for line in text.splitlines():
        if match := WHILE.search(line):
            trips, each = TRIPS.search(line), collectives(parts, match[1])
            loops.append(Loop(int(trips[1]) if trips else None, dict(Counter(one.kind for one in each))))
    return Contents({kind: (counts[kind], sizes[kind]) for kind in counts}, loops, set(CUSTOM.findall(text)))


def computations(text: str) -> dict[str, list[str]]:
    """The lines of every computation by its name."""
    lines: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[1]
            lines[name] = []
        elif name is not None:
            lines[name].append(line)
    return lines


def collectives(parts: dict[str, list[str]], name: str) -> list[Collective]:
    """The collectives in a computation and in those that it calls, each once.

    parts: as ``computations`` returns them.
    """
    found, seen, todo = [], set(), [name]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in parts.get(name, []):
            if collective := _collective(line):
                found.append(collective)  # what it applies is the addition of two numbers
            else:
                todo += [one.strip(" %") for called in CALLED.findall(line) for one in called.split(",")]
    return found


def _collective(line: str) -> Collective | None:
    match = COLLECTIVE.search(line)
    if not match:
        return None
    arrays = [
        (math.prod(map(int, filter(None, sizes.split(",")))), int(bits)) for bits, sizes in SHAPE.findall(match[1])
    ]
    return Collective(match[2], sum(count for count, _ in arrays), sum(count * bits // 8 for count, bits in arrays))
