"""What a callback sees of its run."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nivp_dist.problems.base import Problem


class RunView(Protocol):
    """A run at one moment, to be read. ``record`` and ``stop`` are all that a callback can do to it.

    Everything is computed on process 0 by itself, with its own device: a method takes no part in the run's programs.

    Attributes:
        moment: the name of the method that is called. t: the time. t_end: integrator.t_end. step: accepted steps.
        problem: the problem. directory: the run directory, for files of the callback's own.
        metrics: after a step its numbers in metrics.jsonl, a copy; else empty.
        output: at an output its entry in summary.json (errors, invariants), a copy; else empty.
        reason: at the end why the run stops; '' if it has finished.
    """

    moment: str
    t: float
    t_end: float
    step: int
    problem: Problem
    directory: Path
    metrics: dict[str, Any]
    output: dict[str, Any]
    reason: str

    def solution(self, x) -> np.ndarray:
        """u at points x (n, d): (n, m) float64; of one point (d,) a number, or (m,)."""
        ...

    def rate(self, x) -> np.ndarray:
        """The change of u at points x (n, d) in the step, divided by its length: (n, m), the mean of u_t over the step.

        Raises ValueError at other moments than after a step.
        """
        ...

    def points(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n points x (n, d) where the solution is, and weights (n,): sum(weights * f(x)) estimates the integral of f
        over the domain. The random numbers are the same at every call. Points that are drawn outside of a box are put
        into its middle, with the weight 0.
        """
        ...

    def expectation(self, f, points: int = 20_000) -> tuple[Any, Any]:
        """The integral of f(x) p(x) and its standard error, p the first output over its mass (``Run.expectation``)."""
        ...

    def integrals(self, points: int = 20_000) -> dict[str, tuple[float, float]]:
        """What the problem conserves: name -> (integral, its standard error). These are the ``invariants`` of its
        class, and "mass" for a density."""
        ...

    def window(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lower and upper bounds of the domain, along real axes of the part that the points fill, and the mean of the
        density of the points, each (d,)."""
        ...

    def record(self, name: str, value: Any) -> None:
        """Add a number to the line of this step in metrics.jsonl, as callback_NAME.

        Raises ValueError at other moments than after a step, for a name that is no identifier, and for one that
        another callback has recorded in this step; TypeError or ValueError for what is not one number.
        """
        ...

    def stop(self, reason: str) -> None:
        """Ask the run to stop at this point, with a snapshot of the solution and a checkpoint.

        A callback that asks at every step stops the run once. A request stops it again only after a call of the same
        method without one, so that a callback which looks at every tenth step repeats its request in between.
        """
        ...
