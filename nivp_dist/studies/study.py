"""What a study is: a question about the method, the measurements that answer it, and how the answer is shown."""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from nivp_dist.formatting import MISSING, scientific

FAILED = "failed"  # the entry of a record whose measurement failed: the reason
Records = dict[str, dict]  # the records by the names of their cases, in the order of the cases


class Case(NamedTuple):
    """One measurement of a study, which a process of its own takes.

    Attributes:
        name: that of its record and of its folder: letters, digits, hyphens, points.
        measure: takes the folder of the case, which exists and is kept between two attempts, and returns the record:
            names with numbers, texts, lists. It raises InputError or RunFailed where nothing can be measured.
    """

    name: str
    measure: Callable[[Path], dict]


class Table(NamedTuple):
    """A table of text. rows: the first has the names of the columns."""

    title: str
    rows: list[list[str]]


class Study(NamedTuple):
    """A question that measurements answer.

    Attributes:
        name: `nivp study NAME`. question: one sentence.
        cases: of the full size, or small ones (quick) that take a minute or two together and show that it works.
        tables, answer: the tables of the records, and the answer in sentences that are made of their numbers. Cases
            that failed are not among the records.
        draw: draws the picture into an empty figure.
        timed: its cases measure time, and are taken one after another, on one core: seconds of several threads would
            depend on what else the machine does. Other studies take as many cases at once as there are cores.
    """

    name: str
    question: str
    cases: Callable[[bool], list[Case]]
    tables: Callable[[Records], list[Table]]
    answer: Callable[[Records], list[str]]
    draw: Callable[[Records, Figure], None]
    timed: bool = False


def median_and_range(values: Iterable[float | None]) -> str:
    """The median of the known values, and the range of several: "1.2e-03 (8.0e-04 to 2.0e-03)"."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return MISSING
    middle = scientific(statistics.median(known))
    return middle if len(known) == 1 else f"{middle} ({scientific(known[0])} to {scientific(known[-1])})"
