"""Tables and units of `nivp bench speed` as text."""

from collections.abc import Callable
from typing import Any

from nivp_dist.formatting import number

MINIMUM_WIDTH = 8  # of a column, in characters
WIDTHS = {"problem": 18, "CG": 20}  # of columns whose entries are longer than their names


class Table:
    """Aligned columns with numbers to the right. Every row is written at once, so that a slow table can be followed."""

    def __init__(self, columns: tuple[str, ...], write: Callable[[str], None]):
        self.write = write
        self.widths = [max(len(name), WIDTHS.get(name, MINIMUM_WIDTH)) for name in columns]
        self.row(*columns)

    def row(self, *entries: Any) -> None:
        """Write a row; entries that are not text are formatted as numbers."""
        texts = [entry if isinstance(entry, str) else number(entry) for entry in entries]
        self.write("  " + "  ".join(text.rjust(width) for text, width in zip(texts, self.widths)).rstrip())


def time_text(seconds: float | None) -> str:
    """1.23 s, 45.6 ms, 7.89 us; "not reached" for None."""
    if seconds is None:
        return "not reached"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def ratio_text(ratio: float | None, lower_bound: bool = False) -> str:
    """12.34, or "> 12.34" for a lower bound; "-" for None."""
    return "-" if ratio is None else f"{'> ' if lower_bound else ''}{ratio:.2f}"


def flops_text(flops: float) -> str:
    """A rate of floating-point operations: 123 GFlop/s."""
    return f"{flops / 1e9:.3g} GFlop/s"
