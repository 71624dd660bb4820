"""The inputs of the network: features of the coordinates, of which every axis has those of its boundary condition."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nivp_dist.errors import InputError
from nivp_dist.problems.axes import Axis
from nivp_dist.problems.domains import Domain, columns
from nivp_dist.settings.model import NetworkSettings

MIRRORED = {"both": (-1, 1), "lower": (-1,), "upper": (1,)}  # kinds of features -> the ends where they have no slope


class _Group(NamedTuple):
    """Axes with features of one kind, and of so many frequencies: "plain", "periodic", or one of MIRRORED."""

    kind: str
    frequencies: int


def embedding(xi, domain: Domain, settings: NetworkSettings, even: tuple[int, ...] = ()):
    """The features (n, k) of points xi (n, d), in units of the domain: those of ``embed``, or ``cosines``.

    even: axes whose features are even ones only.
    """
    numbers, groups = frequencies_of(settings, domain), {}
    for i, axis in enumerate(domain.axes):
        groups.setdefault(_Group(_kind(axis), numbers[i]), []).append(i)
    parts = []
    for (kind, count), axes in groups.items():
        own = tuple(position for position, axis in enumerate(axes) if axis in even)
        part = columns(xi, axes)
        if kind in MIRRORED:
            parts.append(cosines(part, count, settings.alpha, own, MIRRORED[kind]))
        else:
            parts.append(embed(part, count, settings.alpha, kind == "periodic", own))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def frequencies_of(settings: NetworkSettings, domain: Domain) -> tuple[int, ...]:
    """L for every axis: as set, else the number of the exponents in a list alpha, else 4, and 0 on real axes.

    A real axis has no length that a wave could fit.
    """
    if isinstance(settings.frequencies, list):
        return tuple(settings.frequencies)
    if settings.frequencies is not None:
        return (settings.frequencies,) * domain.dimension
    if isinstance(settings.alpha, list):
        return (len(settings.alpha),) * domain.dimension
    return tuple(0 if i in domain.real_axes else 4 for i in range(domain.dimension))


def check_frequencies(settings: NetworkSettings, domain: Domain) -> None:
    """Raises InputError unless every axis has as many frequencies as it needs."""
    counts = frequencies_of(settings, domain)
    if len(counts) != domain.dimension:
        raise InputError(
            f"network.frequencies has {len(counts)} entries for {domain.dimension} axes: give one each, or one number"
        )
    for i, axis in enumerate(domain.axes):
        if counts[i] == 0 and (axis.kind == "periodic" or axis.mirrors):
            raise InputError(
                f"network.frequencies = 0 leaves the network without an input along axis {i}, which is "
                f"{axis}: set at least 1"
            )


def highest_wave_number(settings: NetworkSettings, domain: Domain) -> float:
    """The largest w_k of all axes; that of one frequency where there is none."""
    pairs = zip(frequencies_of(settings, domain), domain.axes)
    return max(wave_numbers(max(1, count), axis.kind == "periodic")[-1] for count, axis in pairs)


def embed(xi, frequencies: int, alpha, periodic: bool, even: tuple[int, ...] = ()):
    """x and sin(w_k x) / w_k^alpha, cos(w_k x) / w_k^alpha, w_k = 2^k pi/2 (arXiv 2304.14994, eq. 9).

    Args:
        xi: (n, d), in [-1, 1] along bounded axes. On periodic axes w_k = 2^k pi, and x itself is left out.
        alpha: one number, or one for each frequency. (A derivative of order q multiplies the wave k by w_k^q.)
        even: axes whose features are even ones only, x^2 and the cosines.
    """
    if not frequencies:  # jaxlib 0.11.2 crashes when it compiles a sharded program with a constant without entries
        return _coordinates_or_squares(xi, even)
    omega = wave_numbers(frequencies, periodic)
    decay = _decay(omega, alpha, xi.dtype)
    phase = xi[:, :, None] * jnp.asarray(omega, xi.dtype)
    odd = np.setdiff1d(np.arange(xi.shape[1]), even)
    waves = [(wave(part) * decay).reshape(len(xi), -1) for wave, part in ((jnp.sin, phase[:, odd]), (jnp.cos, phase))]
    plain = _coordinates_or_squares(xi, even)
    return jnp.concatenate(waves if periodic else [plain, *waves], axis=-1)


def cosines(xi, frequencies: int, alpha, even: tuple[int, ...] = (), mirrors: tuple[int, ...] = (-1, 1)):
    """cos(w_k (x + 1)) / w_k^alpha, w_k = 2^k pi/2: every function of them has zero slope at x = -1 and x = 1.

    The first alone, w_0 = pi/2, tells all points of [-1, 1] apart, so that every function of zero slope at the ends is
    one of them. With one end in `mirrors` the slope is zero there alone: cos(w_k (x - end)), w_k = 2^k pi/4. Other
    arguments are those of ``embed``; along even axes w_k = 2^k pi.
    """
    omega = wave_numbers(frequencies, periodic=False)
    factors = np.where(np.isin(np.arange(xi.shape[1]), even), 2.0, 1.0) * (1.0 if len(mirrors) == 2 else 0.5)
    phase = (xi[:, :, None] - mirrors[0]) * jnp.asarray(factors[:, None] * omega, xi.dtype)
    return (jnp.cos(phase) * _decay(omega, alpha, xi.dtype)).reshape(len(xi), -1)


def chebyshev(xi, degree: int):
    """The polynomials T_1 .. T_degree of every coordinate, xi (n, d) in [-1, 1]^d: (n, d degree)."""
    polynomials = [jnp.ones_like(xi), xi]
    while len(polynomials) <= degree:
        polynomials.append(2 * xi * polynomials[-1] - polynomials[-2])
    return jnp.concatenate(polynomials[1:], axis=-1)


def wave_numbers(count: int, periodic: bool) -> np.ndarray:
    """w_k (count,), see ``embed``."""
    return 2.0 ** np.arange(count) * (np.pi if periodic else np.pi / 2)


def _kind(axis: Axis) -> str:
    if axis.mirrors:
        return next(kind for kind, ends in MIRRORED.items() if ends == axis.mirrors)
    return "periodic" if axis.kind == "periodic" else "plain"


def _decay(omega: np.ndarray, alpha, dtype):
    """w_k^-alpha (L,); of a list of exponents the first L, as other axes may have more frequencies."""
    exponents = np.asarray(alpha, np.float64)
    exponents = exponents[: len(omega)] if exponents.ndim else exponents
    return jnp.asarray(omega ** -np.broadcast_to(exponents, omega.shape), dtype)


def _coordinates_or_squares(xi, even: tuple[int, ...]):
    """xi (n, d), with its squares along the axes in which the solution is even."""
    return jnp.where(np.isin(np.arange(xi.shape[1]), even), xi**2, xi)
