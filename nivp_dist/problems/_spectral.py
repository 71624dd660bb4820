"""Reference solutions on a periodic box: Fourier series in space, an exponential Runge-Kutta method in time."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import fft

FEWEST_MODES = 32
# Modes above this share of the highest must be small. Several are examined: symmetric data have zeros among them.
OUTER = 0.8
NEGLIGIBLE = 1e-16  # modes below this share of the largest are left out where the series is evaluated


class PeriodicSolution:
    """u_t = D lap u - H lap lap u - C sum_i d^3u/dx_i^3 + r(u) - div(F(u) (1, ..., 1)) from smooth data, at any time,
    anywhere in the box.

    The modes of an axis are doubled while those in its outer fifth exceed ``tolerance`` times the largest, and a
    step that ends so is repeated. Products then need no dealiasing, because the aliased modes are as small.
    Steps are those of ETDRK4 (Cox and Matthews 2002), fourth order, with the linear terms exact; without r and F a
    single step is exact for any time.

    A time t is reached by whole steps from 0 and one shorter step, so that the result does not depend on earlier calls.
    The states after whole steps are kept, and later times continue from them.

    Args:
        initial: points (..., d) -> values (...), numpy. lower, upper: the box, (d,) each; one period of the data.
        diffusion: D; it may be negative where H > 0. hyperdiffusion: H. dispersion: C.
        reaction, flux: r and F, functions of arrays of values; None: absent.
        step: time step. tolerance: see above.
        most: the largest number of modes of an axis (data with a kink would need infinitely many).
    """

    def __init__(
        self,
        initial: Callable,
        lower,
        upper,
        diffusion: float,
        reaction: Callable | None = None,
        flux: Callable | None = None,
        step: float = math.inf,
        tolerance: float = 1e-11,
        most: int = 1024,
        hyperdiffusion: float = 0.0,
        dispersion: float = 0.0,
    ):
        self.lower, self.length = np.asarray(lower, np.float64), np.subtract(upper, lower)
        self.diffusion, self.hyperdiffusion, self.dispersion = diffusion, hyperdiffusion, dispersion
        self.reaction, self.flux = reaction, flux
        self.step, self.tolerance, self.most = step, tolerance, most
        shape = (FEWEST_MODES,) * len(self.lower)
        spectrum = self._sampled(initial, shape)
        while (finer := self._enough(spectrum, shape)) != shape:
            shape = finer
            spectrum = self._sampled(initial, shape)
        self._reached: dict[int, Any] = {0: (spectrum, shape)}  # number of steps -> state
        self._steppers = {}

    def __call__(self, x, t: float) -> np.ndarray:
        """u at points x (n, d): (n,)."""
        spectrum, shape = self.at(t)
        return evaluate(np.asarray(x) - self.lower, spectrum, self._wavenumbers(shape))

    def at(self, t: float) -> tuple[np.ndarray, tuple[int, ...]]:
        """The modes of u at time t, as ``scipy.fft.rfftn(norm="forward")`` orders them, and the shape of the grid."""
        whole = math.floor(t / self.step)
        done = max(number for number in self._reached if number <= whole)
        spectrum, shape = self._reached[done]
        for _ in range(done, whole):
            spectrum, shape = self._step(spectrum, shape, self._kept_stepper)
        self._reached[whole] = spectrum, shape
        rest = t - whole * self.step if whole else t
        return self._step(spectrum, shape, lambda grid: self._stepper(grid, rest)) if rest > 0 else (spectrum, shape)

    # ----------------------------------------------------------------------------------------------

    def _step(self, spectrum, shape, stepper):
        """The state after one step, on a grid that is fine enough for it. stepper: shape -> function of the modes."""
        while True:
            after = stepper(shape)(spectrum)
            finer = self._enough(after, shape)
            if finer == shape:
                return after, shape
            spectrum, shape = _padded(spectrum, shape, finer), finer

    def _kept_stepper(self, shape):
        if shape not in self._steppers:
            self._steppers = {shape: self._stepper(shape, self.step)}  # coarser ones are not needed any more
        return self._steppers[shape]

    def _sampled(self, initial, shape):
        axes = [low + length * np.arange(n) / n for low, length, n in zip(self.lower, self.length, shape)]
        return fft.rfftn(initial(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)), norm="forward")

    def _enough(self, spectrum, shape):
        """The shape with twice the modes along every axis whose outer modes are not small."""
        size = np.abs(spectrum)
        allowed = self.tolerance * size.max()
        finer = []
        for axis, n in enumerate(shape):
            index = np.abs(_indices(n, axis == len(shape) - 1))
            outer = np.take(size, np.flatnonzero(index > OUTER * n / 2), axis=axis).max()
            finer.append(2 * n if outer > allowed and n < self.most else n)
        return tuple(finer)

    def _wavenumbers(self, shape):
        """k along every axis, in the order of the transform."""
        last = len(shape) - 1
        return [2 * np.pi / length * _indices(n, i == last) for i, (length, n) in enumerate(zip(self.length, shape))]

    def _stepper(self, shape, h) -> Callable:
        """One step of ETDRK4 as a function of the modes: equations (26) to (29) of Cox and Matthews."""
        open_grid = np.meshgrid(*self._wavenumbers(shape), indexing="ij", sparse=True)
        squares = sum(k**2 for k in open_grid)
        z = -self.diffusion * h * squares
        if self.hyperdiffusion:
            z = z - self.hyperdiffusion * h * squares**2
        if self.dispersion:
            z = z + 1j * self.dispersion * h * sum(k**3 for k in open_grid)
        one, two, three = _phi(z)
        whole, half, half_one = np.exp(z), np.exp(z / 2), h / 2 * _phi(z / 2)[0]
        first, middle, last = h * (one - 3 * two + 4 * three), h * (2 * two - 4 * three), h * (4 * three - two)
        slope = self._slope(shape, -1j * sum(open_grid))

        def advance(u):
            at_start, decayed = slope(u), half * u
            a = decayed + half_one * at_start
            at_a = slope(a)
            at_b = slope(decayed + half_one * at_a)
            at_c = slope(half * a + half_one * (2 * at_b - at_start))
            return whole * u + first * at_start + middle * (at_a + at_b) + last * at_c

        return advance

    def _slope(self, shape, minus_divergence) -> Callable:
        def slope(spectrum):
            if self.reaction is None and self.flux is None:
                return 0.0
            u = fft.irfftn(spectrum, shape, norm="forward")
            reaction = 0.0 if self.reaction is None else fft.rfftn(self.reaction(u), norm="forward")
            return (
                reaction if self.flux is None else reaction + minus_divergence * fft.rfftn(self.flux(u), norm="forward")
            )

        return slope


def evaluate(x, spectrum, wavenumbers, chunk=10_000_000):
    """sum_k c_k exp(i k.x), real part, at x (n, d), for the modes of a real function, half of them on the last axis.

    wavenumbers: k along every axis. A matrix product over the last axis, then sums over the others; at most about
    ``chunk`` numbers are held.
    """
    n, d = x.shape
    # A mode of the last axis stands for itself and its conjugate. The highest of an even number stands for two that
    # the grid could not tell apart: it is as small as what was left out, and is left out.
    weights = np.where(np.arange(spectrum.shape[-1]) == 0, 1.0, 2.0)
    spectrum, wavenumbers = spectrum * weights, list(wavenumbers)
    size = np.abs(spectrum)
    for axis in range(d):
        index = np.abs(wavenumbers[axis])
        largest = size.max(axis=tuple(other for other in range(d) if other != axis))
        kept = np.flatnonzero((largest > NEGLIGIBLE * size.max()) & (index < index.max()))
        spectrum, wavenumbers[axis] = np.take(spectrum, kept, axis=axis), wavenumbers[axis][kept]
        size = np.take(size, kept, axis=axis)
    matrix = spectrum.reshape(-1, spectrum.shape[-1]).T
    rows = max(1, chunk // max(matrix.shape))
    values = np.empty(n)
    for begin in range(0, n, rows):
        part = x[begin : begin + rows]
        partial = np.exp(1j * part[:, -1:] * wavenumbers[-1]) @ matrix
        for axis in reversed(range(d - 1)):
            partial = partial.reshape(len(part), -1, len(wavenumbers[axis]))
            partial = np.einsum("nak,nk->na", partial, np.exp(1j * part[:, axis, None] * wavenumbers[axis]))
        values[begin : begin + rows] = partial[:, 0].real
    return values


def _indices(n, half):
    """Mode numbers of an axis in the order of the transform. half: True for the last axis of a real transform."""
    return np.arange(n // 2 + 1) if half else np.fft.fftfreq(n, 1 / n)


def _padded(spectrum, shape, finer):
    """The modes of the same function on a finer grid."""
    for axis, (n, larger) in enumerate(zip(shape, finer)):
        if larger == n:
            continue
        half = axis == len(shape) - 1
        size = list(spectrum.shape)
        size[axis] = larger // 2 + 1 if half else larger
        padded = np.zeros(size, spectrum.dtype)
        kept = np.flatnonzero(np.abs(_indices(n, half)) < n // 2)
        place: list[Any] = [slice(None)] * len(shape)
        place[axis] = kept if half else kept + (larger - n) * (kept > n // 2)
        padded[tuple(place)] = np.take(spectrum, kept, axis=axis)
        spectrum = padded
    return spectrum


def _phi(z):
    """phi_1, phi_2, phi_3 at z with Re z < 1: phi_1 = (e^z - 1) / z, phi_(j+1) = (phi_j - 1 / j!) / z.

    The recurrence cancels near zero, where the Taylor series takes over.
    """
    near = np.abs(z) < 1
    small, large = np.where(near, z, 0.0), np.where(near, -1.0, z)
    values, value = [], np.exp(large)
    for j in (1, 2, 3):
        value = (value - 1 / math.factorial(j - 1)) / large
        series = np.zeros_like(small)
        for m in reversed(range(18)):
            series = series * small + 1 / math.factorial(m + j)
        values.append(np.where(near, series, value))
    return values
