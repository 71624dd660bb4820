"""Effects of a setting against a base, over seeds: what exceeds the spread, and what the error at the end goes with.

A family is a base and the networks that differ from it: (choice, value) -> record, the base being ("", ""). A record
has a list over the seeds for each of ``NUMBERS``, None where a run has failed before.
"""

import math
import statistics
from typing import Any, NamedTuple

from scipy import stats

from nivp_dist.studies.study import Records

# The numbers of a run that are told apart, and what they are called.
NUMBERS = {"fit": "error of the fit", "tangent": "residual of the first step", "error": "error at the end"}
Family = dict[tuple[str, str], dict]
FALSE_ALARMS = 0.065
FEWEST = 5  # networks of a correlation
BY_CHANCE = 0.05  # the probability of a correlation by chance from which on it is called so


class Effect(NamedTuple):
    """What a network does to a number, against the base.

    Attributes:
        factor: ratio of the medians over the seeds; infinite where most of its runs have failed before the number.
        spread: ratio of the largest to the least value of the base over the seeds.
        apart: whether no value of the one lies within the range of the other.
    """

    factor: float
    spread: float
    apart: bool

    @property
    def size(self) -> float:
        """The factor, up or down, as a number above one."""
        return max(self.factor, 1 / self.factor)

    @property
    def matters(self) -> bool:
        """Whether it is larger than the spread of the seeds, and no seed contradicts it.

        Of numbers that differ in their seeds alone (three each, log-normal) a share of FALSE_ALARMS is taken for
        different.
        """
        return math.isinf(self.factor) or (self.apart and self.size > self.spread)


def effect(base: list[float | None], other: list[float | None]) -> Effect | None:
    """The effect of a network with these values of a number over the seeds. None where most runs of the base failed."""
    one, two = ([math.inf if value is None else value for value in each] for each in (base, other))
    middle = statistics.median(one)
    if math.isinf(middle):
        return None
    apart = max(one) < min(two) or max(two) < min(one)
    return Effect(statistics.median(two) / middle, max(one) / min(one), apart)


def by_problem(records: Records) -> dict[str, Family]:
    """problem -> (choice, value) -> record, of the problems whose base is known; the base is ("", "")."""
    found: dict[str, Family] = {}
    for record in records.values():
        found.setdefault(record["problem"], {})[record["choice"], record["value"]] = record
    return {name: networks for name, networks in found.items() if ("", "") in networks}


def effects_on(networks: Family, measure: str) -> dict[tuple[str, str], Effect]:
    base = networks["", ""][measure]
    found = {key: effect(base, record[measure]) for key, record in networks.items() if key != ("", "")}
    return {key: each for key, each in found.items() if each is not None}


def largest(networks: Family, measure: str, choice: str) -> tuple[str, Effect] | None:
    """Of the values of a choice the one whose effect is the largest of those that matter, and the effect."""
    found = effects_on(networks, measure).items()
    known = [(value, each) for (name, value), each in found if name == choice and each.matters]
    return max(known, key=lambda each: each[1].size, default=None)


def correlations(networks: Family) -> str | None:
    """With which of the first two numbers the error at the end goes, over all networks; None for a few of them."""
    known = [
        [statistics.median(record[measure]) for measure in NUMBERS]
        for record in networks.values()
        if all(None not in record[measure] for measure in NUMBERS)
    ]
    if len(known) < FEWEST:
        return None
    fits, tangents, errors = zip(*known)
    texts = []
    for title, values in (("fit", fits), ("first residual", tangents)):
        found: Any = stats.spearmanr(values, errors)
        correlation, chance = found.statistic, found.pvalue
        texts.append(f"{correlation:.2f} with the {title}{'' if chance < BY_CHANCE else ', which may be chance'}")
    return f"over {len(known)} networks the rank correlation of the error at the end is {' and '.join(texts)}."
