"""Embedded Runge-Kutta pairs, and one step with them.

A step runs on the host, because its velocities, of which there are two to seven, may each be refused or interrupted.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """An explicit embedded pair: stages (a, c), weights b of the order that is propagated, b_error = b - b_low.

    Attributes:
        order: of the propagated solution. fsal: the last stage is the first of the next step.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    b_error: tuple[float, ...]
    order: int
    fsal: bool

    @property
    def c(self) -> tuple[float, ...]:
        return tuple(sum(row) for row in self.a)


def _tableau(a, b, b_low, order, fsal):
    error = tuple(high - low for high, low in zip(b, b_low))
    return Tableau(tuple(map(tuple, a)), tuple(b), error, order, fsal)


TABLEAUS = {
    # Heun-Euler 2(1)
    "heun": _tableau([[], [1]], [1 / 2, 1 / 2], [1, 0], 2, False),
    # Bogacki and Shampine 1989, 3(2)
    "bogacki_shampine": _tableau(
        [[], [1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]],
        [2 / 9, 1 / 3, 4 / 9, 0],
        [7 / 24, 1 / 4, 1 / 3, 1 / 8],
        3,
        True,
    ),
    # Cash and Karp 1990 (ACM Trans. Math. Softw. 16, 201), 5(4), six stages. With new points at every step the seventh
    # stage of Dormand and Prince serves the error estimate alone. Measured at the same rtol and error: 35 steps of six
    # velocities against 42 of seven (trap in 5 dimensions), 58 against 87 (double wells), 138 against 172 (wave in 2
    # dimensions).
    "cash_karp": _tableau(
        [
            [],
            [1 / 5],
            [3 / 40, 9 / 40],
            [3 / 10, -9 / 10, 6 / 5],
            [-11 / 54, 5 / 2, -70 / 27, 35 / 27],
            [1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096],
        ],
        [37 / 378, 0, 250 / 621, 125 / 594, 0, 512 / 1771],
        [2825 / 27648, 0, 18575 / 48384, 13525 / 55296, 277 / 14336, 1 / 4],
        5,
        False,
    ),
    # Dormand and Prince 1980, 5(4)
    "dormand_prince": _tableau(
        [
            [],
            [1 / 5],
            [3 / 40, 9 / 40],
            [44 / 45, -56 / 15, 32 / 9],
            [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
            [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
            [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
        ],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
        [5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40],
        5,
        True,
    ),
}


@dataclass(frozen=True)
class Step:
    """The result of one attempted step: the new parameters theta (p,), the error (p,) in parameter space, the last
    stage (p,) (None if the pair is not first-same-as-last), how many velocities were evaluated, and the velocities at
    all stages, (p,) each."""

    theta: object
    error: object
    last: object
    evaluations: int
    velocities: tuple


def attempt(tableau: Tableau, velocity: Callable, combine: Callable, theta, t: float, h: float, first) -> Step:
    """One step from (theta, t) by h.

    Args:
        velocity: (theta, t) -> theta'. It may raise an exception, which ends the step.
        combine: (theta or None, h, coefficients, stages) -> theta + h sum_i coefficients_i stages_i.
        first: velocity(theta, t) if it is known on this step's points, else None.
    """
    evaluations = 0
    stages = []
    for i, (row, c) in enumerate(zip(tableau.a, tableau.c)):
        if i == 0 and first is not None:
            stages.append(first)
            continue
        position = combine(theta, h, row, stages) if i else theta
        stages.append(velocity(position, t + c * h))
        evaluations += 1
    # First-same-as-last: the last stage was already taken at the new parameters.
    new = position if tableau.fsal else combine(theta, h, tableau.b, stages)
    error = combine(None, h, tableau.b_error, stages)
    return Step(new, error, stages[-1] if tableau.fsal else None, evaluations, tuple(stages))
