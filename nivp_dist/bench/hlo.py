"""What a compiled program does on a device, by its optimised HLO: collectives, loops and calls of libraries."""

import re
from collections import Counter
from typing import NamedTuple

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
WHILE = re.compile(r" while\(.*?body=%?([\w.\-]+)")
TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?%?([\w.\-, %]+)\}?")
CUSTOM = re.compile(r'custom_call_target="([^"]+)"')
SHAPE = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")


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
    computations = _computations(text)
    found: Counter = Counter()
    sizes: Counter = Counter()
    for line in text.splitlines():
        if match := COLLECTIVE.search(line):
            found[match[2]] += 1
            sizes[match[2]] += _bytes(match[1])
    loops = [
        Loop(int(trips[1]) if (trips := TRIPS.search(line)) else None, _collectives_in(computations, match[1]))
        for line in text.splitlines()
        if (match := WHILE.search(line))
    ]
    return Contents({name: (found[name], sizes[name]) for name in found}, loops, set(CUSTOM.findall(text)))


def _computations(text: str) -> dict[str, list[str]]:
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


def _collectives_in(computations: dict[str, list[str]], name: str) -> dict[str, int]:
    """The collectives in a computation and in those that it calls."""
    found, seen, todo = Counter(), set(), [name]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in computations.get(name, []):
            if match := COLLECTIVE.search(line):
                found[match[2]] += 1
                continue  # what it applies is the addition of two numbers
            todo += [one.strip(" %") for called in CALLED.findall(line) for one in called.split(",")]
    return dict(found)


def _bytes(shapes: str) -> int:
    """Bytes of the arrays in the text of a shape, such as f64[200,3] or a tuple of these."""
    total = 0
    for _, bits, sizes in SHAPE.findall(shapes):
        count = 1
        for size in filter(None, sizes.split(",")):
            count *= int(size)
        total += count * int(bits) // 8
    return total
