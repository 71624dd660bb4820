"""The backward differentiation formulas of orders 1 to 4 on steps of any lengths; the choice of order and step size.

The formula of order k takes the derivative at the new time of the polynomial through the new value and the last k ones
(Hairer, Norsett and Wanner I, III.5). With d_j the time from value j back from the new one, j = 0 the present,

    u - gamma u' = sum_j (gamma / d_j) l_j u_j,    1 / gamma = sum_j 1 / d_j,    l_j = prod_(i != j) d_i / (d_i - d_j),

where j and i run from 0 to k - 1, and sum_j l_j u_j extrapolates the last values to the new time.
"""

from typing import NamedTuple

import numpy as np

LARGEST_ORDER = 4  # orders 5 and 6 are stable in a much smaller sector about the negative axis
# The step size changes only by factors outside of [1, KEPT]: the higher orders are less stable where it changes often.
# It may grow by FIRST_GROW with order 1, which is stable however it changes: a run begins so, with far too short steps
# where the error of its fit decays.
SAFETY, SHRINK, GROW, FIRST_GROW, KEPT = 0.8, 0.2, 2.0, 8.0, 1.2
ANOTHER_ORDER = 0.9  # factor on the step size that another order allows: it has to gain a tenth
NOT_SOLVED = 0.25  # factor on a step whose equation could not be solved


class Formula(NamedTuple):
    """u - gamma u' = sum_j earlier_j u_j for the new value, j = 0 the present one.

    Attributes:
        gamma: a time. earlier: (values,), zero for those that the order does not use.
    """

    gamma: float
    earlier: np.ndarray


class Predictor(NamedTuple):
    """The extrapolation sum_j earlier_j u_j of the last k + 1 values, and the error of the formula of order k by it.

    Attributes:
        earlier: (values,). weight: the error that the step adds to the solution is weight |u - prediction|.
    """

    earlier: np.ndarray
    weight: float


class Multistep(NamedTuple):
    """What a multistep method keeps from step to step, beside the earlier values themselves.

    Attributes:
        steps: (LARGEST_ORDER,), the lengths of the last steps, the newest first.
        fits: (LARGEST_ORDER + 1,), misfits of the fits that the present value and those before it are, relative to the
            solution; zero for those that solve an equation.
        known: how many of these steps have been taken, and with them how many earlier values there are.
        order: of the next step. since: steps taken at that order.
        misfit: of the last equation, relative to the solution.
    """

    steps: np.ndarray
    fits: np.ndarray
    known: int = 0
    order: int = 1
    since: int = 0
    misfit: float = 0.0

    @staticmethod
    def begin() -> "Multistep":
        """Before the first step."""
        return Multistep(np.zeros(LARGEST_ORDER), np.zeros(LARGEST_ORDER + 1))

    def after_step(self, h: float, misfit: float, taken: int, order: int) -> "Multistep":
        """After a step of length h at the order `taken` with that misfit; order: of the next step."""
        steps, fits = np.concatenate([[h], self.steps[:-1]]), np.concatenate([[0.0], self.fits[:-1]])
        since = self.since + 1 if taken == self.order else 1
        since = since if order == taken else 0
        return Multistep(steps, fits, min(self.known + 1, LARGEST_ORDER), order, since, misfit)

    def after_fit(self, misfit: float) -> "Multistep":
        """The present value is represented anew, with that misfit; the earlier ones stay as they are."""
        fits = self.fits.copy()
        fits[0] = np.hypot(fits[0], misfit)
        return self._replace(fits=fits)

    def explained(self, predictor: Predictor) -> float:
        """The error of a step that may come from misfits, which a shorter step would not make smaller.

        The misfits of equations change little from step to step, so that extrapolation does not enlarge them; and an
        error below what the step's own misfit adds to the solution is no reason for a shorter one. The misfits of fits
        are independent of each other, and extrapolation adds them up.
        """
        return predictor.weight * max(self.misfit, float(np.abs(predictor.earlier) @ self.fits))

    def times(self, h: float) -> np.ndarray:
        """d_j of the known values before a step of length h: (known + 1,)."""
        return h + np.concatenate([[0.0], np.cumsum(self.steps[: self.known])])


def formula(times: np.ndarray, order: int) -> Formula:
    """The formula of an order <= len(times), the d_j of the known values."""
    used = times[:order]
    gamma = 1 / np.sum(1 / used)
    return Formula(float(gamma), _filled(gamma / used * extrapolation(used)))


def predictor(times: np.ndarray, order: int) -> Predictor:
    """The predictor of an order < len(times).

    With U the divided difference of u over the new time and the order + 1 last ones, the formula changes u' by
    U d_0 ... d_(order - 1), which adds h times that to the solution; and the predictor misses the new value by
    (d_order + gamma) times that.
    """
    gamma = formula(times, order).gamma
    return Predictor(_filled(extrapolation(times[: order + 1])), float(times[0] / (times[order] + gamma)))


# A step of the implicit Euler method and one of the explicit method, from the same value, miss the solution by the same
# amount to either side.
EULER = Predictor(np.eye(LARGEST_ORDER + 1)[0], 0.5)


class Choice(NamedTuple):
    """The order of the next attempt or step, and the step size."""

    order: int
    h: float


def after_acceptance(h: float, order: int, errors: dict[int, float], raised: bool) -> Choice:
    """The order that allows the longest next step after one of length h, and that step.

    Args:
        errors: order -> error of the step at that order, relative to what is tolerated. raised: whether a higher order
            may be taken.
    """
    factors = _factors(order, {each: error for each, error in errors.items() if each <= order or raised})
    best = max(factors, key=factors.__getitem__)
    factor = float(np.clip(factors[best], SHRINK, GROW if order > 1 else FIRST_GROW))
    return Choice(best, h if 1.0 <= factor < KEPT else h * factor)


def after_rejection(h: float, order: int, errors: dict[int, float]) -> Choice:
    """The next attempt after one that was not accepted; errors: as above, empty where the equation was not solved."""
    if not errors:
        return Choice(order, h * NOT_SOLVED)
    factors = _factors(order, {each: error for each, error in errors.items() if each <= order})
    best = max(factors, key=factors.__getitem__)
    return Choice(best, h * float(np.clip(factors[best], SHRINK, 0.9)))


def _factors(order: int, errors: dict[int, float]) -> dict[int, float]:
    """The factors on the step size by order."""
    allowed = {each: SAFETY * max(error, 1e-10) ** (-1 / (each + 1)) for each, error in errors.items()}
    return {each: factor * (1.0 if each == order else ANOTHER_ORDER) for each, factor in allowed.items()}


def extrapolation(times: np.ndarray) -> np.ndarray:
    """l_j of the values at these d_j, which are not zero and not equal."""
    others = times[None] / (times[None] - times[:, None] + np.diag(np.full(len(times), np.inf)))
    return np.prod(np.where(np.eye(len(times), dtype=bool), 1.0, others), axis=1)


def _filled(coefficients: np.ndarray) -> np.ndarray:
    return np.pad(coefficients, (0, LARGEST_ORDER + 1 - len(coefficients)))
