"""The numbers behind a picture of the solution: what a view shows of a run at a stored time."""

import functools
from typing import NamedTuple

import numpy as np

from nivp_dist.points.densities import draw_points, marginal
from nivp_dist.problems.views import View
from nivp_dist.run.stored import Run
from nivp_dist.run.window import mixture_window, window_of

CURVE_POINTS, IMAGE_POINTS = 401, 161  # along each axis of a curve and of an image
# With 40,000 points the statistical error of each of 40 bins is a few percent (seen for fokker_planck_trap_5d). Images
# have 24 bins along each axis, and more points.
CURVE_SAMPLES, IMAGE_SAMPLES = 40_000, 160_000
CURVE_BINS, IMAGE_BINS = 40, 24

Bounds = tuple[np.ndarray, np.ndarray]  # lower and upper bounds of what is shown, along each axis of a view


class Section(NamedTuple):
    """What a view shows at time t.

    Attributes:
        sides: for each of its axes the coordinates (n,) of the values; of a marginal the edges (n + 1,) of its bins.
        network: the values (n,) along one axis, or (n of the second, n of the first) over two.
        reference: the same of the reference; None where it is not known.
    """

    view: View
    t: float
    sides: tuple[np.ndarray, ...]
    network: np.ndarray
    reference: np.ndarray | None

    def kind(self, name: str) -> np.ndarray | None:
        """The values of "network", "reference" or "difference" (network - reference); None if they are not known."""
        if name == "network" or self.reference is None:
            return self.network if name == "network" else None
        return self.reference if name == "reference" else self.network - self.reference


class Moment:
    """A run at a stored time t, from which sections are taken. Files are read, and points drawn, once.

    compared: whether the sections have the reference too. Network and reference of a marginal are evaluated on the same
    points, so that their difference has little statistical error.
    """

    def __init__(self, run: Run, t: float, compared: bool = True):
        self.t, self._run, self._compared = t, run, compared
        self._domain, self._snapshot = run.problem.domain, run.snapshot(t)
        self._samples = functools.cache(self._drawn)

    def bounds(self, view: View) -> Bounds:
        """The part that a view shows: values on the whole of a bounded axis, and on what the points fill of a real one;
        of a marginal what they fill of both."""
        lower, upper, _ = window_of(self._domain, self._snapshot)
        if view.marginal:
            low, high = mixture_window(self._snapshot)
            lower, upper = np.maximum(low, self._domain.lower), np.minimum(high, self._domain.upper)
        axes = list(view.axes)
        return lower[axes], upper[axes]

    def section(self, view: View, bounds: Bounds | None = None, points: int | None = None) -> Section:
        """What a view shows within these bounds, default: its own, with so many points along each axis."""
        make = self._marginal if view.marginal else self._values
        return make(view, self.bounds(view) if bounds is None else bounds, points)

    def _values(self, view: View, bounds: Bounds, points: int | None) -> Section:
        number = points or (CURVE_POINTS if len(view.axes) == 1 else IMAGE_POINTS)
        sides = tuple(np.linspace(low, high, number) for low, high in zip(*bounds))
        grid = np.stack(np.meshgrid(*sides), axis=-1)
        x = np.tile(window_of(self._domain, self._snapshot)[2], (*grid.shape[:-1], 1))
        for axis, value in view.at.items():
            x[..., axis] = value
        x[..., list(view.axes)] = grid
        network, reference = self._evaluate(x.reshape(-1, x.shape[-1]), view.output)
        shape = grid.shape[:-1]
        exact = None if reference is None else reference.reshape(shape)
        return Section(view, self.t, sides, network.reshape(shape), exact)

    def _marginal(self, view: View, bounds: Bounds, bins: int | None) -> Section:
        curve = len(view.axes) == 1
        number = min(bins or CURVE_BINS, CURVE_BINS if curve else IMAGE_BINS)
        x, network, reference = self._samples(view.output, CURVE_SAMPLES if curve else IMAGE_SAMPLES)
        edges = tuple(np.linspace(low, high, number + 1) for low, high in zip(*bounds))
        shown = x[:, list(view.axes)]
        exact = None if reference is None else marginal(shown, reference, edges).T
        return Section(view, self.t, edges, marginal(shown, network, edges).T, exact)

    def _drawn(self, output: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Points (n, d), and there an output of network and reference (n,) over the density of the points; zero outside
        of the domain."""
        x, inverse = draw_points(self._snapshot, number, domain=self._domain)
        inside = self._domain.contains(x)

        def weighted(u: np.ndarray) -> np.ndarray:
            whole = np.zeros(len(x))
            whole[inside] = u * inverse[inside]
            return whole

        network, reference = self._evaluate(x[inside], output)
        return x, weighted(network), None if reference is None else weighted(reference)

    def _evaluate(self, x: np.ndarray, output: int) -> tuple[np.ndarray, np.ndarray | None]:
        """An output (n,) of network and reference at x (n, d); None if the reference is not known or has fewer."""
        network, reference = self._both
        exact = None if reference is None else reference(x)
        return network(x)[:, output], None if exact is None or output >= exact.shape[1] else exact[:, output]

    @functools.cached_property
    def _both(self):
        """Network and reference, functions of points."""
        return self._run.solution(self.t), self._run.reference(self.t) if self._compared else None
