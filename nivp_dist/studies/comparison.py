"""Two methods compared at equal time and at equal error, seed by seed: ours, and a PINN (``studies.parabolic``)."""

import statistics
from typing import NamedTuple

from nivp_dist.formatting import scientific
from nivp_dist.studies.study import Records

SEEDS = (0, 1, 2)
OURS, PINN = "Neural IVP", "PINN"
MIDDLE = "middle"  # the accuracy at which the two are compared, with all seeds


class Comparison(NamedTuple):
    """Of one problem, at the middle accuracy.

    Attributes:
        seconds, error: medians of ours.
        error_ratios: for each seed, the error of the PINN after as many seconds, over ours; the least so far counts,
            infinity before there is one.
        time_ratios: for each seed, the seconds that the PINN takes to our error, over ours; None if it does not get
            there. budget_ratio: of the least seconds of a whole training, over ours.
    """

    seconds: float
    error: float
    error_ratios: list[float]
    time_ratios: list[float | None]
    budget_ratio: float


def least_until(course: list, seconds: float) -> float:
    """The least error of a course [[seconds, error], ...] up to a time; inf if it has none."""
    return min((error for at, error in course if at <= seconds and error is not None), default=float("inf"))


def first_below(course: list, bound: float) -> float | None:
    """The seconds at which a course first has an error of at most `bound`, or None."""
    return next((at for at, error in course if error is not None and error <= bound), None)


def compare(ours: dict, pinn: dict) -> Comparison | None:
    """Two records of one problem, seed by seed; None where our runs did not get to the end."""
    ends = {seed: course[-1] for seed, course in ours["courses"].items() if course}
    pairs = [(ends[seed], pinn["courses"][seed]) for seed in ends if pinn["courses"].get(seed)]
    if not pairs:
        return None
    reached = [(first_below(course, error), seconds) for (seconds, error), course in pairs]
    return Comparison(
        statistics.median(seconds for (seconds, _), _ in pairs),
        statistics.median(error for (_, error), _ in pairs),
        [least_until(course, seconds) / error for (seconds, error), course in pairs],
        [None if at is None else at / seconds for at, seconds in reached],
        min(course[-1][0] / seconds for (seconds, _), course in pairs),
    )


def comparisons(records: Records) -> dict[str, Comparison]:
    """problem -> the comparison with the PINN that has most seeds."""
    found = {}
    for problem in dict.fromkeys(record["problem"] for record in records.values()):
        own = [record for record in records.values() if record["problem"] == problem]
        ours = next((record for record in own if record["method"] == OURS and record["kind"] == MIDDLE), None)
        trained = [record for record in own if record["method"] == PINN]
        if ours and trained and (comparison := compare(ours, max(trained, key=lambda each: len(each["courses"])))):
            found[problem] = comparison
    return found


def winner(comparison: Comparison) -> str | None:
    """The method with the smaller error at equal time for all of at least three seeds, or None."""
    ratios = comparison.error_ratios
    if len(ratios) < len(SEEDS):
        return None
    return OURS if min(ratios) > 1 else PINN if max(ratios) < 1 else None


def answer(records: Records) -> list[str]:
    found = comparisons(records)
    lines = [f"{problem}: {_sentence(comparison)}" for problem, comparison in found.items()]
    winners = {problem: winner(comparison) for problem, comparison in found.items()}
    parts = []
    for method in (OURS, PINN):
        if of := [problem for problem, name in winners.items() if name == method]:
            parts.append(f"{method} has the smaller error at equal time on {', '.join(of)}")
    if undecided := [problem for problem, name in winners.items() if name is None]:
        parts.append(f"it is open on {', '.join(undecided)}")
    return [*lines, f"{'; '.join(parts) or 'it is open: nothing could be compared'}."]


def _sentence(found: Comparison) -> str:
    start = f"in the {found.seconds:.3g} s in which ours has an error of {scientific(found.error)} "
    finite = [ratio for ratio in found.error_ratios if ratio < float("inf")]
    if not finite:
        start += "the PINN has none yet; "
    else:
        start += f"the PINN has {_range(finite)} times that error; "
    reached = [ratio for ratio in found.time_ratios if ratio is not None]
    if not reached:
        return f"{start}it does not reach ours in {found.budget_ratio:.2g} times that time."
    missed = len(found.time_ratios) - len(reached)
    return f"{start}it reaches ours after {_range(reached)} times that time" + (
        f", and not at all for {missed} of {len(found.time_ratios)} seeds." if missed else "."
    )


def _range(values: list[float]) -> str:
    middle = f"{statistics.median(values):.2g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2g} to {max(values):.2g})"
