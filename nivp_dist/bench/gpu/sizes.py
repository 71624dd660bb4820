"""How large the problems of `nivp bench speed gpu` are."""

from typing import NamedTuple

from nivp_dist.settings.model import DType, Precision


class Size(NamedTuple):
    """matrix: rows of the square matrices. stream: numbers of the array that is read and written. n: points. d:
    dimension. depth: hidden layers of the networks. widths, columns: of the networks for the products, and of a
    sketch. width, rank, iterations: of the velocity, the last at most. rounds: of timing.
    """

    matrix: int
    stream: int
    n: int
    d: int
    depth: int
    widths: tuple[int, ...]
    columns: int
    width: int
    rank: int
    iterations: int
    rounds: int


# Width 688 is a million parameters. Its velocity takes 16 GB (programs compiled for an H200) and 1.6e13 operations:
# below a second on a GPU of a computing centre, and a minute on one that computes float64 at a sixty-fourth of its rate
# in float32. A sketch at width 1,024 takes 16 GB too.
FULL = Size(8192, 2**28, 65_536, 20, 3, (512, 1024), 128, 688, 512, 60, 5)
QUICK = Size(128, 2**16, 256, 3, 1, (16,), 8, 12, 16, 5, 3)


def dtype_of(precision: Precision) -> DType:
    """Of the arrays with which products of this precision are formed."""
    return "float64" if precision == "float64" else "float32"
