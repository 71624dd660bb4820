"""The study of conditioning on made-up records: what its numbers make it say, in both directions."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from nivp_dist.studies import conditioning, mechanisms
from nivp_dist.studies.conditioning import STUDY
from nivp_dist.studies.mechanisms import MEASURES, MECHANISMS, verdict

N = 12
THETA = MECHANISMS[0]


def run(seed: int, residual: float = 100.0, theta: float = 5.0, refits=()) -> dict:
    """A run whose residual and |theta| grow by these factors; its other numbers stay."""
    t = np.linspace(0, 1, N)
    numbers = dict.fromkeys(MEASURES, [3.0] * N) | {
        "residual": list(1e-3 * (1 + 0.01 * seed) * residual**t),
        "theta": list(2.0 * theta**t),
        "null": [0] * N,
    }
    facts = {"t": list(t), "h": [0.1] * N, "steps": 40, "error": 0.01, "failure": None}
    return facts | numbers | {"refits": [*refits]}


def refit(factor: float, accepted: bool = True) -> dict:
    """One that multiplies the residual by this factor."""
    before = dict.fromkeys(MEASURES, 3.0)
    after = before | {"residual": 3.0 * factor}
    return {"t": 0.5, "accepted": accepted, "error": 1e-3, "before": before, "after": after}


def record(variant: str, seeds: int = 3, changed: str = "", **numbers) -> dict:
    facts = {"problem": "wave", "kind": "hyperbolic", "variant": variant, "changed": changed, "parameters": 200}
    return facts | {"seeds": list(range(seeds)), "runs": [run(seed, **numbers) for seed in range(seeds)]}


def records(base: dict, **others: dict) -> dict:
    return {each["variant"]: each for each in (base, *others.values())}


HELPED = [refit(0.1), refit(0.2)]


def test_a_mechanism_explains_what_grows_with_it_falls_with_it_and_yields_to_its_remedy():
    found = records(
        record("base"),
        refits=record("refits", residual=3.0, theta=2.0, refits=HELPED),
        mu=record("mu", residual=5.0, theta=2.0),
    )
    assert verdict(found, THETA).explains
    said = " ".join(STUDY.answer(found))
    assert "explained by growth of the parameters" in said and "lies in the parameters" in said
    assert "these lower the residual at the end: mu." in said
    assert STUDY.answer(found)[0] == "In all problems that decay (1) this explains it: growth of the parameters."
    other = {f"other-{name}": each | {"problem": "other"} for name, each in found.items() if name == "base"}
    first = STUDY.answer(found | other)[0]
    assert first.startswith("Open: no mechanism explains the decay of every problem") and "parameters (1)." in first


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"theta": 1.0}, "does not grow"),
        ({"theta": 1.05, "with_refits": 1.0}, "hardly grows"),
        ({"with_refits": 6.0}, "does not fall"),
        ({"remedy": 110.0}, "the remedy does nothing"),
        ({"with_remedy": 6.0}, "the remedy does something else"),
    ],
)
def test_one_failed_test_refutes_a_mechanism(numbers, reason):
    base = record("base", theta=numbers.get("theta", 5.0))
    refits = record("refits", residual=3.0, theta=numbers.get("with_refits", 0.5), refits=HELPED)
    found = records(
        base, refits=refits, mu=record("mu", residual=numbers.get("remedy", 5.0), theta=numbers.get("with_remedy", 0.5))
    )
    assert verdict(found, THETA).refuted, reason
    said = " ".join(STUDY.answer(found))
    assert "why is open" in said and "explained by" not in said


def test_what_was_not_measured_is_open():
    found = records(record("base"))
    assert verdict(found, THETA) == mechanisms.Verdict(True, None, None)
    assert "why is open; not refuted: growth of the parameters" in " ".join(STUDY.answer(found))
    assert "one seed decides nothing: open" in " ".join(STUDY.answer(records(record("base", seeds=1))))
    assert STUDY.answer({"refits": record("refits")}) == ["open: no base run was measured"]


def test_a_residual_that_stays_needs_no_reason():
    (said,) = STUDY.answer(records(record("base", residual=1.5)))
    assert "nothing to explain" in said


@pytest.mark.parametrize(
    ("residuals", "said"),
    [
        ([3.0, 3.0, 3.0], "the decay lies in the parameters"),
        ([90.0, 80.0, 5.0], "most of the decay is one of the solution"),
        ([5.0, 5.0, 90.0], "how much of the decay lies in the parameters is open"),
    ],
)
def test_refits_tell_a_decay_of_the_parameters_from_one_of_the_solution(residuals, said):
    refits = record("refits", refits=[refit(0.9), refit(0.01, accepted=False)])
    refits["runs"] = [run(seed, residual, refits=[refit(0.9)]) for seed, residual in enumerate(residuals)]
    answer = " ".join(STUDY.answer(records(record("base"), refits=refits)))
    assert said in answer and "x 9.00e-01 (9.00e-01 to 9.00e-01) of the residual (3 refits)" in answer
    if said != "the decay lies in the parameters":  # refits that do not help say nothing for or against a mechanism
        assert verdict(records(record("base"), refits=refits), THETA).falls is None


def test_refused_refits_tell_nothing():
    refits = record("refits", refits=[refit(0.01, accepted=False)])
    assert "no refit was accepted" in " ".join(STUDY.answer(records(record("base"), refits=refits)))


def test_the_tables_show_starts_ends_and_evidence(tmp_path):
    found = records(record("base"), refits=record("refits", residual=3.0, theta=2.0, refits=HELPED))
    courses, evidence = STUDY.tables(found)
    assert len(courses.rows) == 3 and len(evidence.rows) == 1 + len(MECHANISMS)
    assert {len(row) for row in evidence.rows} == {len(evidence.rows[0])}
    theta = dict(zip(evidence.rows[0], evidence.rows[1]))
    assert (
        theta["with the residual"] == "1.00 to 1.00" and theta["with refits"] == "x 0.43, 0.43, 0.43"
    )  # (2 / 5)^(10 / 11)
    assert theta["verdict"] == "open"
    figure = Figure()
    STUDY.draw(found, figure)
    assert len(figure.axes) == 2
    figure.savefig(tmp_path / "picture.png")


@pytest.mark.parametrize("name", conditioning.PROBLEMS)
def test_every_variant_is_a_configuration_that_differs_from_the_base(name):
    base = conditioning.configuration(name, "base")
    for variant in conditioning.PROBLEMS[name].variants:
        config = conditioning.configuration(name, variant)
        assert (config == base) == (variant == "base")
        assert config.restart.enabled == (variant == "refits")
    remedies = {mechanism.remedy for mechanism in MECHANISMS if mechanism.remedy}
    assert remedies <= {variant for problem in conditioning.PROBLEMS.values() for variant in problem.variants}
