"""The ready-made callbacks."""

import io
import math
import time

import numpy as np
from pydantic import PositiveInt

from nivp_dist.callbacks.callback import Callback
from nivp_dist.callbacks.view import RunView
from nivp_dist.problems.base import NonNegative, Positive, Problem, output_names
from nivp_dist.storage.files import write_whole

CURVE_POINTS, IMAGE_POINTS = 401, 101  # of the live picture, along each axis


class Probes(Callback):
    """Records u at given points after every step, as probe_1_u, probe_2_u, ... (of a system the names of its outputs).

    points: their coordinates, as many as the problem has dimensions.
    """

    points: list[list[float]]

    def check(self, problem: Problem) -> None:
        for point in self.points:
            if len(point) != problem.domain.dimension:
                raise ValueError(f"points has {point}, and the problem has {problem.domain.dimension} dimensions")

    def after_step(self, view: RunView) -> None:
        u = view.solution(np.array(self.points, np.float64))
        for number, values in enumerate(u, start=1):
            for name, value in zip(output_names(view.problem), values):
                view.record(f"probe_{number}_{name}", value)


class Conserved(Callback):
    """Records what the problem conserves (``RunView.integrals``) as NAME, NAME_error (its standard error) and
    NAME_change, the change since the initial fit, or since the run first had this callback.

    every: number of steps between two measurements. points: how many points each takes. tolerance: the run stops when
    a quantity has changed by more than this, relative to its first value, and by more than three standard errors;
    0: never.
    """

    every: PositiveInt = 10
    points: PositiveInt = 20_000
    tolerance: NonNegative = 0.0

    def check(self, problem: Problem) -> None:
        if not (problem.density or callable(problem.invariants)):
            raise ValueError(f"{type(problem).__name__} is no density and has no invariants")

    def after_fit(self, view: RunView) -> None:
        if "first" not in self.memory:
            self._first(view.integrals(self.points))

    def after_step(self, view: RunView) -> None:
        if view.step % self.every == 0:
            self._measure(view)
        if self.memory.get("beyond"):  # also between two measurements, so that a resumed run goes on
            view.stop(self.memory["beyond"])

    def _measure(self, view: RunView) -> None:
        self.memory["beyond"], measured = "", view.integrals(self.points)
        for name, (value, error) in measured.items():
            first = self._first(measured)[name]
            change = value - first
            for ending, number in (("", value), ("_error", error), ("_change", change)):
                view.record(name + ending, number)
            if self.tolerance and abs(change) > max(self.tolerance * abs(first), 3 * error):
                self.memory["beyond"] = f"{name} has changed from {first:.6g} to {value:.6g} (+- {error:.1g})"

    def _first(self, measured: dict[str, tuple[float, float]]) -> dict[str, float]:
        return self.memory.setdefault("first", {name: value for name, (value, _) in measured.items()})


class SteadyState(Callback):
    """Records rate_of_change, the norm of u_t over the norm of u, and stops the run where it stays below a tolerance.

    u_t is the mean over a step. The norms are those of L2, of all outputs together; of a density they are weighted by
    1 / u, so that the rate is the root mean square of (log u)_t under u.

    tolerance: per unit of t. steps: how many steps in succession have to be below it. points: from which the norms are
    estimated.
    """

    tolerance: Positive
    steps: PositiveInt = 3
    points: PositiveInt = 4_000

    def after_step(self, view: RunView) -> None:
        rate = self._rate(view)
        view.record("rate_of_change", rate)
        below = self.memory.get("below", 0) + 1 if rate < self.tolerance else 0
        self.memory["below"] = below
        if below >= self.steps:
            view.stop(f"steady state: u changes by {rate:.2g} of itself per unit of t")

    def _rate(self, view: RunView) -> float:
        x, weights = view.points(self.points)
        u, change = view.solution(x), view.rate(x)
        if view.problem.density:
            # A density that vanishes at a point in float64 has no weight there.
            weights = np.where(u[:, 0] > 0, weights / np.where(u[:, 0] > 0, u[:, 0], 1.0), 0.0)
        squares = weights @ np.sum(change**2, axis=1), weights @ np.sum(u**2, axis=1)
        return math.sqrt(squares[0] / squares[1]) if squares[1] > 0 else math.nan


class LivePicture(Callback):
    """Draws pictures/live.png: a curve if d = 1, else an image over the first two coordinates, the others being those
    of the middle of the solution. A reader of the file sees the last picture, whole.

    seconds: of wall time between two pictures. output: number of the output that is shown, counted from 1.
    """

    seconds: NonNegative = 30.0
    output: PositiveInt = 1

    def check(self, problem: Problem) -> None:
        if self.output > problem.outputs:
            raise ValueError(f"output = {self.output}, and the problem has {problem.outputs}")

    _drawn_at = -math.inf  # by the clock of this process, which means nothing to a resumed one

    def after_step(self, view: RunView) -> None:
        if time.monotonic() - self._drawn_at >= self.seconds:
            self.draw(view)
            self._drawn_at = time.monotonic()

    def at_end(self, view: RunView) -> None:
        self.draw(view)

    def draw(self, view: RunView) -> None:
        """Draw the picture now."""
        from matplotlib.figure import Figure

        lower, upper, mean = view.window()
        figure, name = Figure(figsize=(6, 4.5), layout="constrained"), output_names(view.problem)[self.output - 1]
        axis = figure.subplots()
        if len(lower) == 1:
            x = np.linspace(lower[0], upper[0], CURVE_POINTS)
            axis.plot(x, view.solution(x[:, None])[:, self.output - 1])
            axis.set_ylabel(name)
        else:
            sides = [np.linspace(lower[i], upper[i], IMAGE_POINTS) for i in (0, 1)]
            grid = np.tile(mean, (IMAGE_POINTS**2, 1))
            grid[:, :2] = np.stack(np.meshgrid(*sides, indexing="xy"), axis=-1).reshape(-1, 2)
            u = view.solution(grid)[:, self.output - 1].reshape(IMAGE_POINTS, IMAGE_POINTS)
            figure.colorbar(axis.pcolormesh(*sides, u, shading="nearest"), ax=axis, label=name)
            axis.set_ylabel("x2")
        axis.set_xlabel("x1")
        axis.set_title(f"t = {view.t:.4g}, step {view.step}")
        folder, buffer = view.directory / "pictures", io.BytesIO()
        folder.mkdir(exist_ok=True)
        figure.savefig(buffer, format="png", dpi=110)
        write_whole(folder / "live.png", buffer.getvalue())
