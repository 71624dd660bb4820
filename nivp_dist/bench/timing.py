"""Comparable timings: taken in turn in one process, after a first call, as medians over rounds."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

SHORTEST = 5e-3  # seconds of a sample: shorter calls are repeated, so that the clock and the dispatch do not matter
ROUNDS, MIN_ROUNDS = 7, 3
TIME_LIMIT = 20.0  # seconds after which no further round begins, but MIN_ROUNDS are always taken


class Samples:
    """Seconds of a call: candidate -> one entry for each round."""

    def __init__(self, seconds: dict[str, list[float]]):
        self.seconds = seconds

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times longer `slow` takes: the median over the rounds of the ratio within a round.

        Within a round the load of the machine is nearly the same for both.
        """
        return statistics.median(a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True))

    def spread(self, name: str) -> float:
        """(largest - smallest) / median, which is small on an idle machine."""
        values = self.seconds[name]
        return (max(values) - min(values)) / self.median(name)


def interleaved(
    candidates: dict[str, Callable],
    rounds: int = ROUNDS,
    time_limit: float = TIME_LIMIT,
    parts: dict[str, int] | None = None,
) -> Samples:
    """Time calls without arguments that return arrays; a call ends when its arrays are computed.

    Each candidate is called once before the clock starts, for compilation and allocation, and then once a round; the
    order is rotated from round to round. parts: by how many the time of a candidate is divided, for a call that does
    the same work several times.
    """
    inner = {}
    for name, call in candidates.items():
        jax.block_until_ready(call())
        inner[name] = max(1, round(SHORTEST / max(_seconds(call, 1), 1e-7)))
    names, seconds = list(candidates), {name: [] for name in candidates}
    started = time.perf_counter()
    for round_ in range(max(rounds, 1)):
        if round_ >= min(MIN_ROUNDS, rounds) and time.perf_counter() - started > time_limit:
            break
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(_seconds(candidates[name], inner[name]) / (parts or {}).get(name, 1))
    return Samples(seconds)


class Compiled(NamedTuple):
    """A compiled program. facts: seconds of tracing and of compilation, and bytes of memory beside its arguments."""

    call: Callable
    facts: dict[str, float]


def compiled(program: Any, *arguments: Any) -> Compiled:
    """Compile what jax.jit has returned for these arguments: calls must have their types and shapes."""
    started = time.perf_counter()
    lowered = program.lower(*arguments)
    traced = time.perf_counter()
    call = lowered.compile()
    seconds = {"trace_seconds": traced - started, "compile_seconds": time.perf_counter() - traced}
    memory = call.memory_analysis()
    return Compiled(call, seconds | {"bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes})


def _seconds(call: Callable, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(call())
    return (time.perf_counter() - started) / count
