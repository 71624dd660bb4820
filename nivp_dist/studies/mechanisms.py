"""Mechanisms that may make the systems of a run ill-conditioned, and what measurements along runs say for each.

The records are those of ``conditioning``: lists over the measurements along a run, for each run of a variant.
"""

import math
import statistics
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from nivp_dist.studies.study import Records

BASE, REFITS = "base", "refits"  # variants


class Mechanism(NamedTuple):
    """A suspected reason.

    Attributes:
        title: in words. measure: its number, of ``along``. remedy: the variant that acts on it, or None.
    """

    title: str
    measure: str
    remedy: str | None


MECHANISMS = (
    Mechanism("growth of the parameters", "theta", "mu"),
    Mechanism("dead or duplicate units", "dependence", "width"),
    Mechanism("imbalance of the layers", "imbalance", "equal_shares"),
    Mechanism("drift out of the embedding's band", "wavenumber", "frequencies"),
    Mechanism("symmetries", "null", None),
)
# What decays: measures of ``along``.
DECAY = ("residual", "effective_dimension", "numerical_rank", "condition", "cg_iterations")
MEASURES = (*DECAY, *(mechanism.measure for mechanism in MECHANISMS), "alike", "idle")

GROWS = 2.0  # factor on the residual of every run from which on it decays, and by which a remedy has to lower it
MOVES = 1.5  # factor by which the number of a mechanism has to grow in every run to be a reason at all
TOGETHER = 0.7  # rank correlation from which on two numbers grow together


def by_problem(records: Records) -> dict[str, dict[str, dict]]:
    """problem -> variant -> record, of the problems whose base is known."""
    found: dict[str, dict[str, dict]] = {}
    for record in records.values():
        found.setdefault(record["problem"], {})[record["variant"]] = record
    return {name: variants for name, variants in found.items() if BASE in variants}


def ends(record: dict, measure: str = "residual") -> list[float]:
    """The median of the last quarter of a run, of each run."""
    return [statistics.median(run[measure][-_quarter(run) :]) for run in record["runs"]]


def starts(record: dict, measure: str) -> list[float]:
    """The median of the first quarter of a run, of each run."""
    return [statistics.median(run[measure][: _quarter(run)]) for run in record["runs"]]


def _quarter(run: dict) -> int:
    return max(1, len(run["t"]) // 4)


def growth(record: dict, measure: str) -> list[float]:
    """The last quarter of a run over its first, of each run."""
    return [ratio(end, start) for start, end in zip(starts(record, measure), ends(record, measure))]


def ratio(after: float, before: float) -> float:
    """After over before; one if both are zero."""
    return after / before if before else (math.inf if after else 1.0)


def correlations(record: dict, measure: str, other: str = "residual") -> list[float]:
    """The rank correlation (Spearman) of two numbers along each run; 0 where one of them is constant."""
    pairs = [(run[measure], run[other]) for run in record["runs"]]
    return [
        0.0 if min(len(set(each)) for each in pair) < 2 else float(np.corrcoef(*map(rankdata, pair))[0, 1])
        for pair in pairs
    ]


def at_refits(record: dict) -> list[float]:
    """The residual after over that before, of every accepted refit: of two networks with the same solution."""
    refits = [each for run in record["runs"] for each in run["refits"] if each["accepted"]]
    return [ratio(each["after"]["residual"], each["before"]["residual"]) for each in refits]


def against(base: dict, other: dict, measure: str = "residual") -> list[float]:
    """A number at the end of the runs of a variant, over that of the base with the same seed."""
    return [ratio(changed, kept) for kept, changed in zip(ends(base, measure), ends(other, measure))]


class Verdict(NamedTuple):
    """What speaks for a mechanism in a problem; None where it was not measured.

    Attributes:
        together: it grows with the residual in every run. falls: refits lower it in every run, where they lower the
            residual too. acts: its remedy alone lowers both.
    """

    together: bool
    falls: bool | None
    acts: bool | None

    @property
    def explains(self) -> bool:
        return bool(self.together and self.falls and self.acts)

    @property
    def refuted(self) -> bool:
        return not self.together or False in (self.falls, self.acts)


def verdict(variants: dict[str, dict], mechanism: Mechanism) -> Verdict:
    """Of a mechanism in a problem, from the records of its variants."""
    base, refits, remedy = variants[BASE], variants.get(REFITS), variants.get(mechanism.remedy or "")
    moves = min(growth(base, mechanism.measure)) >= MOVES
    together = moves and min(correlations(base, mechanism.measure)) >= TOGETHER
    lowers = lambda other: max(against(base, other, mechanism.measure)) < 1  # noqa: E731
    falls = lowers(refits) if refits is not None and helps(base, refits) else None
    return Verdict(together, falls, None if remedy is None else helps(base, remedy) and lowers(remedy))


def helps(base: dict, other: dict) -> bool:
    """Whether a variant lowers the residual at the end by the factor GROWS, in every run."""
    return max(against(base, other)) * GROWS <= 1


def decays(record: dict) -> bool:
    """Whether the residual grows in every run."""
    return min(growth(record, "residual")) >= GROWS
