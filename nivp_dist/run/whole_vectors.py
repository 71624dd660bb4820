"""The vectors of p numbers that every device holds as a whole, however many devices there are.

The network is evaluated at the points of a device with all of theta, so that theta and what is added to it lie whole on
each; solver.shard_vectors splits the sketch and the vectors of conjugate gradients alone. With the memory of a device
they bound p.
"""

from collections.abc import Callable
from typing import NamedTuple

from nivp_dist.errors import InputError
from nivp_dist.fitting.fit import DAMPING_FACTORS, LENGTHS
from nivp_dist.formatting import size
from nivp_dist.galerkin.taylor import usable_order
from nivp_dist.integration.tableaus import TABLEAUS
from nivp_dist.settings.automatic import explicit_pair
from nivp_dist.settings.model import Config

FLOAT64 = 8  # bytes of a number
NOTED = 1 / 10  # of the memory of a device


class WholeVectors(NamedTuple):
    """How many there are at most, without those inside of a compiled program.

    Attributes:
        size: p.
        step: at the end of a step: theta before and after it, its error, a guess, the velocity of the step before, and
            the velocities of all stages twice, for their products.
        fit: in a round of a fit, with its corrections, all terms of their curves, and its candidates.
        beside_a_program: while a program of a step runs, besides its arguments.
    """

    size: int
    step: int
    fit: int
    beside_a_program: int

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return FLOAT64 * self.size * max(self.step, self.fit)

    @property
    def bytes_beside_a_program(self) -> int:
        return FLOAT64 * self.size * self.beside_a_program

    def __str__(self) -> str:
        many = max(self.step, self.fit)
        return f"every device holds {many} vectors of p numbers at once, {size(self.bytes)}, as a whole"


def count(config: Config, parameters: int, earlier: int = 0) -> WholeVectors:
    """The vectors of a run. earlier: solutions before the present one in ``State``."""
    integrator = config.integrator
    stages = 0 if integrator.implicit else len(TABLEAUS[explicit_pair(integrator)].b)
    fits = config.fit, config.restart.fits(config.fit)
    order = max(usable_order(fit.order, config.network.dtype) for fit in fits)
    candidates = len(DAMPING_FACTORS) * (len(LENGTHS) if any(fit.line_search for fit in fits) else 1)
    return WholeVectors(
        parameters,
        step=5 + 2 * (stages + earlier),
        fit=4 + order * len(DAMPING_FACTORS) + 2 * candidates,
        beside_a_program=1 + stages + earlier,
    )


def require_room(whole: WholeVectors, memory: int, note: Callable[[str], None] = lambda line: None) -> None:
    """Raises InputError if the vectors do not fit into a device of so many bytes; 0: unknown.

    note: called with a line for the reader if they take more than NOTED of it.
    """
    if not memory:
        return
    if whole.bytes > memory:
        raise InputError(
            f"p = {whole.size:,} is too large: {whole}, and it has {size(memory)}: lower network.width "
            "(solver.shard_vectors splits the vectors of conjugate gradients alone)"
        )
    if whole.bytes > NOTED * memory:
        note(f"{whole}, and it has {size(memory)}")
