"""Failure signatures: a function each, which recognises one kind of failure in the last steps and says what to try.

A signature sees the numbers of at most WINDOW accepted steps since the last fit. The state of the run carries them, so
that a resumed run gives the same messages at the same steps. Messages change nothing in a run.

The thresholds below were set on the shipped configurations, so that a run that goes well gives no message, and on runs
made to fail in one way each (tests/monitoring/test_signatures.py).
"""

from typing import NamedTuple

import numpy as np

from nivp_dist.monitoring.findings import FINDINGS
from nivp_dist.monitoring.step_series import StepRecord, StepSeries

WINDOW = 24  # accepted steps that the signatures see
ENOUGH = 9  # accepted steps since the last fit before the first message: three for each third of the series

ITERATIONS_GROW = 3.0  # growth of the CG iterations within the window; counts below ITERATIONS_FEW count as that
ITERATIONS_FEW = 10.0
REJECTED_SHARE = 0.5  # rejected attempts per accepted step
COLLAPSE = 20.0  # ratio of the largest step size in the window to the last ones
LARGE_RESIDUAL = 0.05  # the tangent space misses a twentieth of the right-hand side
RESIDUAL_FALLS = 0.8  # ratio of the last third to the first: larger ones may be the noise of fresh points
STEPS_GROW = 2.0  # ratio of the step sizes in the last third to those in the first, in an initial transient
RESIDUAL_GROWS, RESIDUAL_SMALL = 4.0, 5e-3  # the residual grows by this ratio, to no less than this value
MATTERS = 0.1  # what a residual adds to the error in a step, over the tolerance of the step: below this it is harmless
OVERFITTED = 5.0  # ratio of the residual on fresh points to that on the points of the step
EXACT = 1e-4  # a residual on fresh points below this is no failure, whatever the ratio
FEW_POINTS = 0.02  # effective share of the points for integrals of |u|
TURNING = 0.4  # share of the steps whose velocity is opposed to the one before


class StepHistory(NamedTuple):
    """The last steps of a run.

    Attributes:
        records: (WINDOW, fields of StepRecord), the newest last; NaN for steps before the last fit.
        seen: (signatures and findings,), the step at which each of them was last present; -1 for never.
    """

    records: np.ndarray
    seen: np.ndarray

    @staticmethod
    def begin() -> "StepHistory":
        """The history of a run before its first step."""
        return StepHistory(
            np.full((WINDOW, len(StepRecord._fields)), np.nan), np.full(len(SIGNATURES) + len(FINDINGS), -1)
        )

    def after_step(self, record: StepRecord, step: int) -> tuple["StepHistory", list[str], list[str]]:
        """The history with one step more, and the messages to the user: of signatures, and of findings.

        Each gives its message when it appears, and again only after it has been absent for a whole window.
        """
        history = self._replace(records=np.concatenate([self.records[1:], [record]]))
        recent, seen = history.recent(), self.seen.copy()
        messages: tuple[list[str], list[str]] = ([], [])
        for number, signature in enumerate((*SIGNATURES, *FINDINGS)):
            message = signature(recent) if len(recent.h) >= ENOUGH else None
            if message is not None:
                if seen[number] < 0 or step - seen[number] > WINDOW:
                    messages[number >= len(SIGNATURES)].append(message)
                seen[number] = step
        return history._replace(seen=seen), *messages

    def after_fit(self) -> "StepHistory":
        """The history after a refit: earlier steps belong to another network."""
        return self._replace(records=np.full_like(self.records, np.nan))

    def unsolved(self) -> bool:
        """Whether CG missed its tolerance in any of these steps."""
        return bool(np.any(self.recent().unsolved > 0))

    def recent(self) -> StepSeries:
        """The steps since the last fit, n <= WINDOW of them, as series (n,)."""
        return StepSeries(*self.records[~np.isnan(self.records[:, 0])].T)


# Signatures: StepSeries -> message, or None -------------------------------------------------------------------------


def iterations_grow(recent: StepSeries) -> str | None:
    """The parameters drift to where M is nearly singular."""
    early, _, late = thirds(recent.iterations)
    if not _rises(recent.iterations, ITERATIONS_GROW, floor=ITERATIONS_FEW):
        return None
    return (
        f"conditioning: CG iterations grow, from {early:.0f} to {late:.0f} a velocity; "
        "try a refit (a lower restart.cg_growth, or restart.every), a larger solver.mu, or solver.max_rank"
    )


def steps_rejected(recent: StepSeries) -> str | None:
    """Stiffness where the residual stays, bad conditioning where it rises too."""
    rejected, n = int(recent.rejected.sum()), len(recent.h)
    if rejected < REJECTED_SHARE * n:
        return None
    seen = f"{rejected} rejected attempts in {n} steps"
    if _ill_conditioned(recent):
        return f"conditioning: {seen}, and the residual or the CG iterations rise; try a larger solver.mu, or a refit"
    return (
        f"stiffness: {seen} while the residual stays; the fastest modes of the network set the step: "
        "try a larger solver.mu, fewer network.frequencies, or a larger integrator.rtol"
    )


def steps_collapse(recent: StepSeries) -> str | None:
    """The step size falls and does not recover."""
    largest, last = recent.h.max(), thirds(recent.h)[2]
    if last > largest / COLLAPSE:
        return None
    seen = f"the step size fell from {largest:.1e} to {last:.1e}"
    if _ill_conditioned(recent):
        return f"conditioning: {seen}, and the residual or the CG iterations rise; try a larger solver.mu, or a refit"
    return f"stiffness: {seen} while the residual stays; try a larger solver.mu, or a larger integrator.rtol"


def residual_stays_large(recent: StepSeries) -> str | None:
    """The tangent space never contains the right-hand side: too small a network, a poor initial fit, too few points.

    There is no message while the residual falls. Nor is there one in an initial transient, such as a boundary layer
    that forms, while the steps grow: the steps so far cover less time than the next ones will. After WINDOW steps
    growing steps are no excuse any more.
    """
    residual = recent.residual_fresh
    if min(np.median(residual), thirds(residual)[2]) < LARGE_RESIDUAL or _residual_grows(recent):
        return None
    if _residual_falls(recent) or _in_initial_transient(recent) or _residual_is_harmless(recent):
        return None
    return (
        f"capacity: the residual on fresh points stays at {np.median(recent.residual_fresh):.1e}; "
        "try a larger network.width or network.frequencies, a better initial fit (fit.iterations, fit.stop_at), "
        "or more sampling.points"
    )


def residual_grows(recent: StepSeries) -> str | None:
    """The tangent space loses the right-hand side as the run goes on."""
    if not _residual_grows(recent) or _residual_is_harmless(recent):
        return None
    early, _, late = thirds(recent.residual_fresh)
    return (
        f"capacity: the residual on fresh points grows, from {early:.1e} to {late:.1e}; "
        "try refits (restart.every, a lower restart.residual_growth), a larger network.width, or more sampling.points"
    )


def points_overfitted(recent: StepSeries) -> str | None:
    """The velocity solves the equation on the points that it was fitted to, and not between them."""
    measured = ~np.isnan(recent.residual)
    if not measured.any():
        return None
    fresh, own = np.median(recent.residual_fresh[measured]), np.median(recent.residual[measured])
    if fresh < EXACT or fresh < OVERFITTED * own:
        return None
    return (
        f"points: the residual is {own:.1e} on the points of a step and {fresh:.1e} on fresh ones; "
        "try more sampling.points (at least twice the parameters), or a larger solver.mu"
    )


def points_miss_the_solution(recent: StepSeries) -> str | None:
    """Few points lie where the solution is, by the effective sample size; NaN where the solution overflows."""
    coverage = np.median(recent.coverage)
    if coverage >= FEW_POINTS:
        return None
    if np.isnan(coverage):
        return (
            "points: the solution has grown without bound where few of them lie, as a density does in its tails; "
            "try a larger sampling.uniform_fraction or sampling.inflation, or refits (restart.every)"
        )
    return (
        f"points: of 100 points only {100 * coverage:.1g} lie where the solution is; "
        "try sampling.method = 'density', more sampling.components, or more sampling.points"
    )


def velocities_turn(recent: StepSeries) -> str | None:
    """The parameters oscillate: high frequencies of the embedding are not damped."""
    turns = recent.turn[~np.isnan(recent.turn)]
    if len(turns) < ENOUGH or np.mean(turns < 0) < TURNING:
        return None
    return (
        f"oscillation: the velocity of the parameters turned back in {np.sum(turns < 0)} of {len(turns)} steps; "
        "try a larger network.alpha (the order of the equation), a larger solver.mu, or more sampling.points"
    )


SIGNATURES = (
    iterations_grow,
    steps_rejected,
    steps_collapse,
    residual_stays_large,
    residual_grows,
    points_overfitted,
    points_miss_the_solution,
    velocities_turn,
)


# Parts ----------------------------------------------------------------------------------------------------------


def thirds(series: np.ndarray) -> tuple[float, float, float]:
    """Medians of the first, middle and last third: no single step decides."""
    early, middle, late = (float(np.median(part)) for part in np.array_split(series, 3))
    return early, middle, late


def _rises(series: np.ndarray, factor: float, floor: float) -> bool:
    """Whether a series rises from third to third, by the factor in all; values below the floor count as the floor."""
    early, middle, late = (max(value, floor) for value in thirds(series))
    return early <= middle <= late and late > factor * early


def _residual_grows(recent: StepSeries) -> bool:
    return _rises(recent.residual_fresh, RESIDUAL_GROWS, floor=RESIDUAL_SMALL / RESIDUAL_GROWS)


def _residual_falls(recent: StepSeries) -> bool:
    early, _, late = thirds(recent.residual_fresh)
    return late < RESIDUAL_FALLS * early


def _residual_is_harmless(recent: StepSeries) -> bool:
    """Whether the residual is large only beside a right-hand side that is nearly zero, as close to a steady state."""
    return thirds(recent.missed)[2] < MATTERS


def _in_initial_transient(recent: StepSeries) -> bool:
    """Whether the run has begun a short while ago and its steps still grow."""
    early, _, late = thirds(recent.h)
    return len(recent.h) < WINDOW and late > STEPS_GROW * early


def _ill_conditioned(recent: StepSeries) -> bool:
    """Whether iterations or residual rise. The thresholds are lower than those of the signatures of their own, because
    this only distinguishes two causes of small steps."""
    return _rises(recent.iterations, 2.0, ITERATIONS_FEW) or _rises(recent.residual_fresh, 2.0, RESIDUAL_SMALL / 10)
