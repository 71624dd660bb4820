"""Timings that can be compared: in one process, interleaved, warm, medians of rounds."""

import statistics
import time
from typing import Callable

import jax

SHORTEST = 5e-3  # seconds of one sample: shorter calls are repeated within it, so that the clock and dispatch drown
ROUNDS, FEWEST = 7, 3
PATIENCE = 20.0  # seconds for all rounds of one comparison; FEWEST are taken anyway


class Samples:
    """Seconds of a call of every candidate, name -> one entry a round."""

    def __init__(self, seconds: dict[str, list[float]]):
        self.seconds = seconds

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times longer `slow` takes: the median over rounds of the ratio within a round, in which the two
        met the same machine."""
        return statistics.median(a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True))

    def spread(self, name: str) -> float:
        """(largest - smallest) / median: how quiet the machine was."""
        values = self.seconds[name]
        return (max(values) - min(values)) / self.median(name)


def interleaved(
    candidates: dict[str, Callable],
    rounds: int = ROUNDS,
    patience: float = PATIENCE,
    parts: dict[str, int] | None = None,
) -> Samples:
    """Time calls without arguments that return arrays. parts: of a call that does the same so many times over.

    Each is called once before the clock starts (compilation, first touch of memory), then once a round in an order
    that turns from round to round; a call ends when its arrays are there.
    """
    inner = {}
    for name, call in candidates.items():
        jax.block_until_ready(call())
        inner[name] = max(1, round(SHORTEST / max(_seconds(call, 1), 1e-7)))
    names, seconds = list(candidates), {name: [] for name in candidates}
    started = time.perf_counter()
    for round_ in range(max(rounds, 1)):
        if round_ >= min(FEWEST, rounds) and time.perf_counter() - started > patience:
            break
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(_seconds(candidates[name], inner[name]) / (parts or {}).get(name, 1))
    return Samples(seconds)


def _seconds(call: Callable, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(call())
    return (time.perf_counter() - started) / count
