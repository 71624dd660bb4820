"""Failure signatures: what goes wrong in a run, recognised in its last steps and named, with what to try.

Everything here is a function of the numbers of at most WINDOW accepted steps since the last fit, which the state of the
run carries, so that a resumed run finds the same things at the same steps.
"""

from typing import NamedTuple

import numpy as np

WINDOW = 24  # accepted steps that are looked at
ENOUGH = 9  # fewer say nothing yet

ITERATIONS_GROW, ITERATIONS_FEW = 3.0, 10.0  # by this factor within the window; counts below are all the same
REJECTED_SHARE = 0.5  # rejected attempts an accepted step
COLLAPSE = 20.0  # of the step size, from the window's largest to its last
LARGE_RESIDUAL = 0.05  # a tangent space that misses a twentieth of the right-hand side at all times
RESIDUAL_GROWS, RESIDUAL_SMALL = 4.0, 5e-3  # by this factor, to no less than this
OVERFITTED, EXACT = 5.0, 1e-4  # residual on fresh points over that on the step's own, where it is no smaller than this
FEW_POINTS = 0.02  # effective share of the points for integrals of |u|
TURNING = 0.4  # share of the steps whose velocity points back against the one before


class StepRecord(NamedTuple):
    """One accepted step.

    Attributes:
        h: the step size proposed for the next one: that of the step itself may have been cut by an output.
        rejected: attempts. residual, residual_fresh: |J v - f| / |f| on the step's points, and on fresh ones; the
            first is NaN where the points were kept, and the velocity with them.
        iterations: of CG, a velocity; 0 with direct solves. coverage: see ``galerkin.velocity.ResidualCheck``.
        turn: cosine between the step's first velocity and the last one before it; NaN if there is none.
        unsolved: 1 if CG missed its tolerance in it.
    """

    h: float
    rejected: float
    residual: float
    residual_fresh: float
    iterations: float
    coverage: float
    turn: float
    unsolved: float


class StepHistory(NamedTuple):
    """What a run remembers of its last steps.

    Attributes:
        records: (WINDOW, fields of StepRecord), the newest last, NaN before the last fit.
        seen: (signatures,) the step at which each was last present, -1 never.
    """

    records: np.ndarray
    seen: np.ndarray

    @staticmethod
    def begin() -> "StepHistory":
        """Nothing has happened yet."""
        return StepHistory(np.full((WINDOW, len(StepRecord._fields)), np.nan), np.full(len(SIGNATURES), -1))

    def after_step(self, record: StepRecord, step: int) -> tuple["StepHistory", list[str]]:
        """With one step more, and what to say of it: a signature speaks when it appears, and again only after it has
        been absent for a whole window."""
        history = self._replace(records=np.concatenate([self.records[1:], [record]]))
        recent, seen, messages = history.recent(), self.seen.copy(), []
        for number, signature in enumerate(SIGNATURES):
            message = signature(recent) if len(recent.h) >= ENOUGH else None
            if message is not None:
                if seen[number] < 0 or step - seen[number] > WINDOW:
                    messages.append(message)
                seen[number] = step
        return history._replace(seen=seen), messages

    def after_fit(self) -> "StepHistory":
        """Another network: what was before says nothing of it."""
        return self._replace(records=np.full_like(self.records, np.nan))

    def unsolved(self) -> bool:
        """Whether CG missed its tolerance in any of the steps."""
        return bool(np.any(self.recent().unsolved > 0))

    def recent(self) -> StepRecord:
        """The steps since the last fit, a series (n,) each."""
        return StepRecord(*self.records[~np.isnan(self.records[:, 0])].T)


# Signatures: StepRecord of series (n,) -> what is seen and what to try, or None --------------------------------------


def iterations_grow(recent: StepRecord) -> str | None:
    """Conditioning: the parameters drift to where M is nearly singular."""
    early, _, late = thirds(recent.iterations)
    if not _rises(recent.iterations, ITERATIONS_GROW, floor=ITERATIONS_FEW):
        return None
    return (
        f"conditioning: CG iterations grow, from {early:.0f} to {late:.0f} a velocity; "
        "try a refit (a lower restart.cg_growth, or restart.every), a larger solver.mu, or solver.max_rank"
    )


def steps_rejected(recent: StepRecord) -> str | None:
    """Stiffness at a step size that stays; conditioning where the residual rises along."""
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


def steps_collapse(recent: StepRecord) -> str | None:
    """Tiny steps."""
    largest, last = recent.h.max(), thirds(recent.h)[2]
    if last > largest / COLLAPSE:
        return None
    seen = f"the step size fell from {largest:.1e} to {last:.1e}"
    if _ill_conditioned(recent):
        return f"conditioning: {seen}, and the residual or the CG iterations rise; try a larger solver.mu, or a refit"
    return f"stiffness: {seen} while the residual stays; try a larger solver.mu, or a larger integrator.rtol"


def residual_stays_large(recent: StepRecord) -> str | None:
    """A plateau: capacity, the initial fit, or points."""
    if np.median(recent.residual_fresh) < LARGE_RESIDUAL or _residual_grows(recent):
        return None
    return (
        f"capacity: the residual on fresh points stays at {np.median(recent.residual_fresh):.1e}; "
        "try a larger network.width or network.frequencies, a better initial fit (fit.iterations, fit.stop_at), "
        "or more sampling.points"
    )


def residual_grows(recent: StepRecord) -> str | None:
    """The tangent space loses the solution."""
    if not _residual_grows(recent):
        return None
    early, _, late = thirds(recent.residual_fresh)
    return (
        f"capacity: the residual on fresh points grows, from {early:.1e} to {late:.1e}; "
        "try refits (restart.every, a lower restart.residual_growth), a larger network.width, or more sampling.points"
    )


def points_overfitted(recent: StepRecord) -> str | None:
    """The velocity fits its own points only."""
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


def points_miss_the_solution(recent: StepRecord) -> str | None:
    """Effective sample size."""
    if np.median(recent.coverage) >= FEW_POINTS:
        return None
    return (
        f"points: of 100 points {100 * np.median(recent.coverage):.1g} count where the solution is; "
        "try sampling.method = 'density', more sampling.components, or more sampling.points"
    )


def velocities_turn(recent: StepRecord) -> str | None:
    """Parameters that swing to and fro: high frequencies of the embedding that nothing damps."""
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
    """Medians of its first, middle and last third: single steps decide nothing."""
    return tuple(float(np.median(part)) for part in np.array_split(series, 3))


def _rises(series: np.ndarray, factor: float, floor: float) -> bool:
    """From third to third, by a factor in all; values below the floor count as the floor."""
    early, middle, late = (max(value, floor) for value in thirds(series))
    return early <= middle <= late and late > factor * early


def _residual_grows(recent: StepRecord) -> bool:
    return _rises(recent.residual_fresh, RESIDUAL_GROWS, floor=RESIDUAL_SMALL / RESIDUAL_GROWS)


def _ill_conditioned(recent: StepRecord) -> bool:
    """Milder than the signatures of their own: it only tells two causes of small steps apart."""
    return _rises(recent.iterations, 2.0, ITERATIONS_FEW) or _rises(recent.residual_fresh, 2.0, RESIDUAL_SMALL / 10)
