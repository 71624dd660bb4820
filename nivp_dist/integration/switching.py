"""When a run of integrator.method = "auto" goes over from explicit to implicit steps and back: by counted work alone.

Explicit steps are taken as long as stability does not bound them. Where it does, a run would need rho / limit of them
for each unit of time, with rho = |lambda| of the dominant eigenvalue of d velocity / d theta (``stability``), and
implicit steps as many as their errors ask for. The length of these is estimated before the first one, from the rate at
which the solution changes; afterwards it is known, and what implicit steps take is compared with what explicit ones
would take by the present rho.
"""

from typing import NamedTuple

import numpy as np

from nivp_dist.monitoring.findings import AT_STABILITY_LIMIT

METHODS = ("explicit", "bdf", "sdirk")
WINDOW = 8  # steps that are judged together
SETTLED = 2 * WINDOW  # implicit steps before the first judgement: the first ones are short
# After a return from fewer than IN_VAIN implicit steps, these are tried again only after WAIT_LONGER times as many
# explicit steps as before: so that of n steps at most a number like log n are taken in vain.
IN_VAIN, WAIT_LONGER = 48, 4
PAYS = 1.5  # explicit over implicit work at which to go over. The return is at one: in between no method is left.
LEAST_ANGLE_OF_BDF = 120.0  # degrees. All orders are stable from 107 on (Hairer and Wanner II, V.2).
# Corrections of a step. Measured with bdf: 1.3 to 2.6 (heat, thermal waves, Burgers, Allen-Cahn, Kuramoto-Sivashinsky);
# with sdirk 5 to 6.5 (Korteweg-de Vries), to which the first steps after a change of the method add.
CORRECTIONS = {"bdf": 2.0, "sdirk": 8.0}
# The order, and the constant C, of the error C (h r)^(order + 1) of a step where the solution changes at the relative
# rate r: of the formula of order 2 (ibid.), and of the difference of the pair.
ERRORS = {"bdf": (2, 2 / 9), "sdirk": (2, 0.1)}
# While steps are implicit, rho is measured every so many of them. It takes five velocities, and the corrections of
# these steps as much work as 150 or more: 3 %.
MEASURED_EVERY = 24


class TakenStep(NamedTuple):
    """An accepted step.

    Attributes:
        h: its length. work: operations. rate: |f| / |u|, the relative rate of change of the solution.
        rho: |lambda| of the dominant eigenvalue, as an explicit step meets it, and angle: of lambda in degrees.
        limit: the largest h rho at which explicit steps are stable. All but h and work are NaN for implicit steps.
    """

    h: float
    work: float
    rate: float = np.nan
    rho: float = np.nan
    angle: float = np.nan
    limit: float = np.nan


class Switching(NamedTuple):
    """The method of the next step, and what decides about it.

    Attributes:
        method: its index in METHODS. step: accepted steps at the last switch, or at the start.
        wait: explicit steps after `step` before implicit ones may be taken.
        rho, limit: of explicit steps, as ``TakenStep`` has them; explicit_work: operations of one of them. All as last
            known, while steps are implicit.
        records: (WINDOW, fields of TakenStep), the last steps since the last switch, newest last; NaN before.
    """

    method: int
    step: int
    wait: int
    rho: float
    limit: float
    explicit_work: float
    records: np.ndarray

    @staticmethod
    def begin() -> "Switching":
        """Before the first step."""
        return Switching(0, 0, WINDOW, 0.0, np.inf, 0.0, np.full((WINDOW, len(TakenStep._fields)), np.nan))

    @property
    def name(self) -> str:
        """The name of the method of the next step."""
        return METHODS[self.method]

    @property
    def explicit_step(self) -> float:
        """The longest stable step of the explicit pair, as last known."""
        return self.limit / self.rho if self.rho > 0 else np.inf

    def after_step(self, taken: TakenStep) -> "Switching":
        """After a step of the present method."""
        return self._replace(records=np.concatenate([self.records[1:], [taken]]))

    def measures(self, step: int) -> bool:
        """Whether rho is to be measured before the next step. step: accepted steps so far."""
        return self.method != 0 and step > self.step and (step - self.step) % MEASURED_EVERY == 0

    def before_step(self, step: int, correction: float, rtol: float) -> "Switching":
        """The same with the method of the next step.

        Args:
            step: accepted steps so far. correction: operations of an implicit step's correction.
            rtol: the tolerance of a step.
        """
        recent = TakenStep(*self.records.T)
        if np.isnan(recent.h).any():
            return self
        if self.method != 0:
            back = step - self.step >= SETTLED and work_rate(recent) >= self.explicit_work / self.explicit_step
            return self._explicit(step) if back else self
        # A single step may excite the fast modes little, and its angle is then that of another mode (``stability``).
        bound = recent.rho * recent.h / recent.limit >= AT_STABILITY_LIMIT
        if step - self.step < self.wait or 2 * np.count_nonzero(bound) < WINDOW:
            return self
        met = TakenStep(*np.median(self.records[bound], axis=0).tolist())
        name = "bdf" if met.angle >= LEAST_ANGLE_OF_BDF else "sdirk"
        implicit = CORRECTIONS[name] * correction / implicit_step(name, met.rate, rtol)
        return self._implicit(name, step, met) if work_rate(recent) > PAYS * implicit else self

    def without_explicit(self, step: int, shortest: float, limit: float, work: float) -> "Switching":
        """Implicit steps from here on, because no explicit one is accepted, down to that length.

        rho is not known yet: limit / shortest, above which those steps would be unstable, stands for it until it is
        measured. limit: the largest h rho at which explicit steps are stable. work: operations of one of them.
        """
        known = {"rho": limit / shortest, "limit": limit, "explicit_work": work}
        return self.begin()._replace(method=METHODS.index("bdf"), step=step, wait=self.wait, **known)

    def _implicit(self, name: str, step: int, met: TakenStep) -> "Switching":
        known = {"rho": met.rho, "limit": met.limit, "explicit_work": met.work}
        return self.begin()._replace(method=METHODS.index(name), step=step, wait=self.wait, **known)

    def _explicit(self, step: int) -> "Switching":
        wait = WAIT_LONGER * self.wait if step - self.step < IN_VAIN else WINDOW
        return self._replace(method=0, step=step, wait=wait, records=self.begin().records)


def work_rate(recent: TakenStep) -> float:
    """Operations that the last steps have taken for a unit of time; recent: series (n,)."""
    return float(np.sum(recent.work) / np.sum(recent.h))


def implicit_step(name: str, rate: float, rtol: float) -> float:
    """The length of a step whose error is the tolerance, for a solution that changes at a relative rate."""
    order, constant = ERRORS[name]
    return (rtol / constant) ** (1 / (order + 1)) / rate
