"""The axes of domains, each with its own boundary condition."""

import dataclasses
from typing import ClassVar, Literal

import numpy as np

Coordinates = float | tuple[float, ...] | list[float] | np.ndarray  # one number, or one for each coordinate
Kind = Literal["wall", "neumann", "robin", "periodic", "open", "real"]
# Of an end of an axis: b in du/dn + b u = g, n the outward normal; inf for u = g; None where nothing is required.
Condition = float | None


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a domain. Its centre and scale define the network's coordinate (x - centre) / scale.

    Attributes:
        conditions: what holds at the lower and at the upper end (``Condition``).
    """

    kind: ClassVar[Kind]
    conditions: ClassVar[tuple[Condition, Condition]] = (None, None)

    lower: float
    upper: float
    centre: float
    scale: float

    @property
    def mirrors(self) -> tuple[int, ...]:
        """The ends, -1 and 1, at which a slope is prescribed: features are mirrored there, so that theirs is zero."""
        return tuple(end for end, b in zip((-1, 1), self.conditions) if b is not None and np.isfinite(b))


class Interval(Axis):
    """[lower, upper]; the centre is its middle, the scale half its width.

    Raises ValueError: a bound that is not finite, or lower >= upper.
    """

    def __init__(self, lower: float = -1.0, upper: float = 1.0):
        low, high = float(lower), float(upper)
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(
                f"{type(self).__name__}({lower}, {upper}): lower must be below upper, and both finite numbers"
            )
        super().__init__(low, high, (low + high) / 2, (high - low) / 2)

    def __repr__(self):
        return f"{type(self).__name__}({self.lower}, {self.upper})"

    def normalised(self) -> "Interval":
        """The same axis in units of the network, on [-1, 1]."""
        return type(self)()


class Wall(Interval):
    """u = 0 at both ends (Dirichlet data), which the network satisfies exactly by a factor."""

    kind = "wall"
    conditions = (np.inf, np.inf)


class Neumann(Interval):
    """u_x = 0 at both ends, which the network satisfies exactly: its features are cosines of zero slope there."""

    kind = "neumann"
    conditions = (0.0, 0.0)


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Robin(Interval):
    """du/dn + b u = 0 with a number b for each end, n the outward normal. b = 0 is a Neumann end, b = inf is u = 0.

    The network satisfies it exactly: features of zero slope, times a factor that depends on x alone. With b > 0 the
    quantity leaves through the wall. Different ends are mixed data, such as Robin(0, 1, at_lower=np.inf, at_upper=0).

    Raises ValueError: bounds as for ``Wall``, or a b that is no number or -inf.
    """

    kind = "robin"

    at_lower: float
    at_upper: float

    def __init__(self, lower: float = -1.0, upper: float = 1.0, at_lower: float = 0.0, at_upper: float = 0.0):
        super().__init__(lower, upper)
        for name, b in (("at_lower", float(at_lower)), ("at_upper", float(at_upper))):
            if not b > -np.inf:
                raise ValueError(f"Robin({lower}, {upper}): {name} must be a number or inf, got {b}")
            object.__setattr__(self, name, b)  # the only way into a frozen dataclass

    @property
    def conditions(self) -> tuple[Condition, Condition]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.at_lower, self.at_upper

    def __repr__(self):
        return f"Robin({self.lower}, {self.upper}, {self.at_lower}, {self.at_upper})"

    def normalised(self) -> "Robin":
        return Robin(at_lower=self.at_lower * self.scale, at_upper=self.at_upper * self.scale)


class Periodic(Interval):
    """u and its derivatives are the same at both ends: the features are sines and cosines of the period."""

    kind = "periodic"


class Open(Interval):
    """No boundary data, see ``OpenBox``."""

    kind = "open"


class Real(Axis):
    """The real line. Centre and scale say where the initial condition is and how wide it is; nothing is truncated.

    Raises ValueError: a number that is not finite, or a scale that is not positive.
    """

    kind = "real"

    def __init__(self, centre: float = 0.0, scale: float = 1.0):
        middle, width = float(centre), float(scale)
        if not (np.isfinite([middle, width]).all() and width > 0):
            raise ValueError(f"Real({centre}, {scale}): scale must be positive, and both finite numbers")
        super().__init__(-np.inf, np.inf, middle, width)

    def __repr__(self):
        return f"Real({self.centre}, {self.scale})"
