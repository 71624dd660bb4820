"""The tables and the answer of the study of conditioning."""

import statistics

from nivp_dist.formatting import MISSING, number
from nivp_dist.studies.mechanisms import (
    BASE,
    DECAY,
    GROWS,
    MECHANISMS,
    REFITS,
    Verdict,
    against,
    at_refits,
    by_problem,
    correlations,
    decays,
    ends,
    growth,
    helps,
    starts,
    verdict,
)
from nivp_dist.studies.study import Records, Table, median_and_range

SEEDS = 3  # that a conclusion rests on, at least
# Numbers along a run that those of the mechanisms are compared with, and what they are called.
BESIDE = {"residual": "residual", "h": "step", "effective_dimension": "effective dimension", "condition": "condition"}


def tables(records: Records) -> list[Table]:
    found = by_problem(records)
    tables = [_courses(name, variants) for name, variants in found.items()]
    return [*tables, *(_evidence(name, variants) for name, variants in found.items())]


def _courses(name: str, variants: dict[str, dict]) -> Table:
    titles = ("residual", "effective dimension", "rank above mu", "condition of M", "CG iterations")
    rows = [["variant", "p", *(f"{title}, end (start)" for title in titles), "steps", "refits", "error at the end"]]
    for variant, record in variants.items():
        runs = record["runs"]
        cells = [f"{_middle(ends(record, each)):g} ({_middle(starts(record, each)):g})" for each in DECAY]
        steps, refits = ([run[each] for run in runs] for each in ("steps", "refits"))
        accepted = sum(refit["accepted"] for each in refits for refit in each)
        errors = median_and_range([run["error"] for run in runs])
        rows.append(
            [
                variant,
                number(record["parameters"]),
                *cells,
                number(_middle(steps)),
                str(accepted) if accepted else "",
                errors,
            ]
        )
    base = variants[BASE]
    texts = [f"{variant}: {record['changed']}" for variant, record in variants.items() if record["changed"]]
    title = f"{name} ({base['kind']}), medians of {len(base['seeds'])} seeds; {'; '.join(texts)}"
    return Table(title, rows)


def _middle(values) -> float:
    return float(f"{statistics.median(values):.3g}")


def _evidence(name: str, variants: dict[str, dict]) -> Table:
    rows = [["mechanism", "growth in the run", *(f"with the {title}" for title in BESIDE.values())]]
    rows[0] += ["with refits", "residual with its remedy alone", "verdict"]
    base, refits = variants[BASE], variants.get(REFITS)
    for mechanism in MECHANISMS:
        measure, remedy = mechanism.measure, variants.get(mechanism.remedy or "")
        rows.append(
            [
                f"{mechanism.title} ({measure})",
                f"x {_middle(growth(base, measure)):g}",
                *(_range(correlations(base, measure, beside)) for beside in BESIDE),
                _factors(against(base, refits, measure)) if refits else MISSING,
                f"{mechanism.remedy}: {_factors(against(base, remedy))}" if remedy else MISSING,
                _word(verdict(variants, mechanism)) if concludes(base) else MISSING,
            ]
        )
    title = (
        f"{name}: each mechanism's number: growth, rank correlations along runs (range of the seeds), its factor at "
        "the end with refits; and the factor on the residual with its remedy"
    )
    return Table(title, rows)


def _factors(ratios: list[float]) -> str:
    """The factors of the seeds, in ascending order."""
    return "x " + ", ".join(f"{ratio:.2g}" for ratio in sorted(ratios))


def concludes(base: dict) -> bool:
    """Whether there is a decay to explain, and there are seeds enough."""
    return decays(base) and len(base["seeds"]) >= SEEDS


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _word(found: Verdict) -> str:
    if found.explains:
        return "explains"
    return "refuted" if found.refuted else "open"


def answer(records: Records) -> list[str]:
    found = by_problem(records)
    if not found:
        return ["open: no base run was measured"]
    return [*_over_all(found), *(line for name, variants in found.items() for line in _sentences(name, variants))]


def _over_all(found: dict[str, dict[str, dict]]) -> list[str]:
    """Whether one mechanism explains every problem that decays; nothing where there is no such problem."""
    decaying = [variants for variants in found.values() if concludes(variants[BASE])]
    if not decaying:
        return []
    words = {each.title: [_word(verdict(variants, each)) for variants in decaying] for each in MECHANISMS}
    explaining = [title for title, said in words.items() if set(said) == {"explains"}]
    if explaining:
        return [f"In all problems that decay ({len(decaying)}) this explains it: {', '.join(explaining)}."]
    some = [f"{title} ({said.count('explains')})" for title, said in words.items() if "explains" in said]
    rest = f"; of {len(decaying)} problems that decay it is explained by {', '.join(some)}" if some else ""
    return [f"Open: no mechanism explains the decay of every problem{rest}."]


def _sentences(name: str, variants: dict[str, dict]) -> list[str]:
    base, refits = variants[BASE], variants.get(REFITS)
    grown = median_and_range(growth(base, "residual"))
    if not decays(base):
        return [
            f"{name}: the residual does not grow by a factor {GROWS:g} in every run (x {grown}): nothing to explain."
        ]
    words = {mechanism.title: _word(verdict(variants, mechanism)) for mechanism in MECHANISMS}
    explaining = [title for title, word in words.items() if word == "explains"]
    if len(base["seeds"]) < SEEDS:
        explained = "one seed decides nothing: open"
    elif explaining:
        explained = f"explained by {' and '.join(explaining)}"
    else:
        candidates = [title for title, word in words.items() if word == "open"]
        rest = f"; not refuted: {', '.join(candidates)}" if candidates else "; all five mechanisms are refuted"
        explained = f"why is open{rest}"
    lines = [f"{name}: the residual grows (x {grown}); {explained}."]
    if refits is not None:
        lines.append(f"{name}: {_what_refits_say(base, refits)}")
    helping = [each for each in variants if each not in (BASE, REFITS) and helps(base, variants[each])]
    tried = [each for each in variants if each not in (BASE, REFITS)]
    if tried:
        effective = ", ".join(helping) or "none"
        lines.append(f"{name}: of the remedies {', '.join(tried)} these lower the residual at the end: {effective}.")
    return lines


def _what_refits_say(base: dict, refits: dict) -> str:
    """Whether the decay is one of the parameters or of the solution."""
    ratios = at_refits(refits)
    if not ratios:
        return "no refit was accepted, so that parameters and solution are not told apart."
    fresh = (
        f"a fresh network for the same solution has x {median_and_range(ratios)} of the residual ({len(ratios)} refits)"
    )
    ends_with = f"with refits the residual at the end is {_factors(against(base, refits))} of that without"
    if helps(base, refits):
        part = "the decay lies in the parameters"
    elif statistics.median(against(base, refits)) * GROWS > 1:
        part = "most of the decay is one of the solution, which a network of this size follows less and less well"
    else:
        part = "how much of the decay lies in the parameters is open"
    return f"{fresh}, and {ends_with}: {part}."
