"""Domains: a box with zero Dirichlet data, with periodic data or without boundary data, and the whole space.

The rest of the package asks a domain through the attributes of ``Domain`` and never for its class.
"""

from typing import ClassVar, Literal

import numpy as np

Coordinates = float | tuple[float, ...] | list[float] | np.ndarray  # one number, or one for each coordinate


class Domain:
    """A domain in R^d, with a centre and a scale that define the network's coordinates (x - centre) / scale.

    Attributes:
        dimension: d.
        lower, upper: (d,), the bounds of every coordinate; -inf and inf on the whole space.
        centre: (d,), the middle of a box; on the whole space the middle of the initial condition.
        scale: (d,), half the widths of a box; on the whole space the width of the initial condition.
        walls: the data that the boundary carries: "zero", "periodic" or "none".
    """

    walls: ClassVar[Literal["zero", "periodic", "none"]]

    def __init__(self, lower: np.ndarray, upper: np.ndarray, centre: np.ndarray, scale: np.ndarray):
        self.dimension = len(centre)
        self.lower, self.upper, self.centre, self.scale = lower, upper, centre, scale
        for array in (lower, upper, centre, scale):
            array.flags.writeable = False  # a domain is hashed by its numbers

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.lower)))

    @property
    def volume(self) -> float:
        """The volume of a box, inf on the whole space."""
        return float(np.prod(2 * self.scale)) if self.bounded else np.inf

    def contains(self, x) -> np.ndarray:
        """Whether points x (n, d) lie inside, not on the boundary: (n,) booleans."""
        return np.all((x > self.lower) & (x < self.upper), axis=-1)

    def sample(self, random: np.random.Generator, n: int) -> np.ndarray:
        """n points (n, d): uniform in a box; on the whole space normal, of mean centre and standard deviation scale."""
        if self.bounded:
            return random.uniform(self.lower, self.upper, (n, self.dimension))
        return self.centre + self.scale * random.standard_normal((n, self.dimension))

    # flax compares and hashes the modules that hold a domain; arrays have no hash of their own.

    def _key(self):
        return type(self), *(tuple(array.tolist()) for array in (self.lower, self.upper, self.centre, self.scale))

    def __eq__(self, other):
        return isinstance(other, Domain) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())


class _BoundedDomain(Domain):
    """[lower, upper]^d.

    Args:
        dimension: d, at least 1.
        lower, upper: one number, or one for each coordinate.

    Raises ValueError: a bound that is not finite or of the wrong length, or lower >= upper on an axis.
    """

    def __init__(self, dimension: int, lower: Coordinates = -1.0, upper: Coordinates = 1.0):
        low, high = _vector(lower, dimension, "lower"), _vector(upper, dimension, "upper")
        if not np.all(low < high):
            raise ValueError(f"lower must be below upper on every axis, got lower = {lower}, upper = {upper}")
        super().__init__(low, high, centre=(low + high) / 2, scale=(high - low) / 2)

    def __repr__(self):
        return f"{type(self).__name__}({self.dimension}, lower={self.lower.tolist()}, upper={self.upper.tolist()})"


class Box(_BoundedDomain):
    """[lower, upper]^d with zero Dirichlet data on every wall: u = 0 there, which the network satisfies exactly."""

    walls = "zero"


class PeriodicBox(_BoundedDomain):
    """[lower, upper)^d with periodic data on every axis: the network is made of sines and cosines of the period."""

    walls = "periodic"


class OpenBox(_BoundedDomain):
    """[lower, upper]^d as a window on a solution that continues outside, without boundary data.

    Points are drawn from the box, and nothing is required of u at its walls. Where the equation carries information
    inwards (diffusion does so everywhere) it does not determine u in the box alone, because anything may enter. A
    smooth network then follows the smooth continuation across the walls. For the front of Burgers' equation with
    d = 5, to t = 0.4, the error within 3 % of a wall is two to four times the error of the inside.
    """

    walls = "none"


class WholeSpace(Domain):
    """R^d. ``centre`` and ``scale`` say where the initial condition is and how wide it is; nothing is truncated.

    They define the network's coordinates and the first draw of points.

    Args:
        dimension: d, at least 1.
        centre, scale: one number, or one for each coordinate.

    Raises ValueError: a number that is not finite, an array of the wrong length, or a scale that is not positive.
    """

    walls = "none"

    def __init__(self, dimension: int, centre: Coordinates = 0.0, scale: Coordinates = 1.0):
        middle, width = _vector(centre, dimension, "centre"), _vector(scale, dimension, "scale")
        if not np.all(width > 0):
            raise ValueError(f"scale must be positive, got {scale}")
        super().__init__(np.full(dimension, -np.inf), np.full(dimension, np.inf), middle, width)

    def __repr__(self):
        return f"WholeSpace({self.dimension}, centre={self.centre.tolist()}, scale={self.scale.tolist()})"


def _vector(value: Coordinates, dimension: int, name: str) -> np.ndarray:
    """One number, or one for each coordinate, as an array (d,) of its own."""
    if int(dimension) < 1:
        raise ValueError(f"dimension must be at least 1, got {dimension}")
    array = np.broadcast_to(np.asarray(value, np.float64), (dimension,)).copy()
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return array
