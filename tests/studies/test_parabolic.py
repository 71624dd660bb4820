"""The study parabolic: what it says of made-up records, and that errors of both methods are of the same points."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from nivp_dist.studies import comparison, parabolic
from nivp_dist.studies.comparison import MIDDLE, OURS, PINN


def records(ours: list[float], pinn: list[list], seconds: float = 10.0) -> dict:
    """Of one problem: the errors of our runs, and the courses of the PINN."""
    shared = {"problem": "heat", "p": 100, "compile_seconds": 5.0, "failures": []}
    runs = {str(seed): [[seconds, error]] for seed, error in enumerate(ours)}
    trainings = {str(seed): course for seed, course in enumerate(pinn)}
    return {
        "ours": shared | {"method": OURS, "kind": MIDDLE, "courses": runs},
        "pinn": shared | {"method": PINN, "kind": "gauss_newton", "courses": trainings},
    }


SLOW = [[[1.0, 1.0], [9.0, 4e-3], [40.0, 8e-4]], [[1.0, 1.0], [9.0, 2e-3], [30.0, 1e-3]], [[1.0, 1.0], [9.0, 3e-3]]]


def test_the_least_error_until_a_time():
    course = [[1.0, 0.5], [2.0, 0.1], [3.0, 0.2], [4.0, None]]
    assert comparison.least_until(course, 3.5) == 0.1 and comparison.least_until(course, 0.5) == float("inf")
    assert comparison.first_below(course, 0.1) == 2.0 and comparison.first_below(course, 0.01) is None


def test_ours_is_better_at_equal_time():
    found = records([1e-3, 1e-3, 1e-3], SLOW)
    heat = comparison.comparisons(found)["heat"]
    assert heat.error_ratios == pytest.approx([4.0, 2.0, 3.0])
    assert heat.time_ratios == [4.0, 3.0, None] and heat.budget_ratio == 0.9
    line, verdict = comparison.answer(found)
    assert "3 (2 to 4) times that error" in line and "not at all for 1 of 3 seeds" in line
    assert verdict == "Neural IVP has the smaller error at equal time on heat."


def test_the_network_is_better_at_equal_time():
    found = records([1e-2, 1e-2, 1e-2], SLOW)
    line, verdict = comparison.answer(found)
    assert "0.3 (0.2 to 0.4) times that error" in line and "after 0.9 (0.9 to 0.9) times that time" in line
    assert verdict == "PINN has the smaller error at equal time on heat."


@pytest.mark.parametrize("ours, courses", [([3e-3] * 3, SLOW), ([1e-3], SLOW[:1])])
def test_it_is_open_where_seeds_disagree_or_are_few(ours, courses):
    assert comparison.answer(records(ours, courses))[-1] == "it is open on heat."


def test_what_is_said_where_nothing_can_be_compared():
    found = records([], SLOW)
    found["ours"]["courses"] = {"0": []}
    assert comparison.answer(found) == ["it is open: nothing could be compared."]
    found = records([1e-3] * 3, [[[20.0, 0.5]]] * 3)
    line, _ = comparison.answer(found)
    assert "the PINN has none yet" in line and "does not reach ours in 2 times that time" in line


def test_tables_and_picture():
    found = records([1e-3, 2e-3, 3e-3], SLOW)
    (table,) = parabolic.tables(found)
    assert table.rows[1][1:] == ["Neural IVP, middle", "100", "3", "5", "10", "2.00e-03 (1.00e-03 to 3.00e-03)"]
    assert [row[5] for row in table.rows[2:]] == ["2.25", "4.5", "9"]
    assert table.rows[-1][-1] == "3.00e-03 (2.00e-03 to 4.00e-03)"
    figure = Figure()
    parabolic.draw(found, figure)
    assert figure.axes[0].get_legend_handles_labels()[1] == ["Neural IVP", "PINN: Adam, Gauss-Newton"]


def test_the_cases_have_three_seeds_where_methods_are_compared():
    names = [case.name for case in parabolic.cases(quick=False)]
    assert len(names) == len(set(names)) and all(name.replace("-", "").isalnum() for name in names)
    three = [case.name for case in parabolic.cases(quick=False) if len(case.measure.args[-1]) == 3]
    assert three == [f"{task}-{kind}" for task in parabolic.TASKS for kind in (f"ours-{MIDDLE}", "pinn-gauss-newton")]


class Constant:
    """A network whose solution is a number."""

    dtype = jnp.dtype("float64")

    def solution_values(self, theta, t, x):
        return jnp.full((len(x), 1), theta)

    def field(self, theta, x):
        return self.solution_values(theta, 0.0, x)


def test_errors_are_relative_to_the_reference_and_on_the_same_points():
    run = parabolic._simulation(parabolic.QUICK["heat"], {})
    x = 2 * np.pi * np.stack(np.meshgrid(*[np.arange(64) / 64] * 2), -1).reshape(-1, 2)
    reference = run.problem.reference(x, 0.5)
    by_hand = np.linalg.norm(reference - 0.3) / np.linalg.norm(reference)  # exact for a smooth periodic function
    scorer, density = parabolic._scorer(run, Constant()), run.sampler.broadest()
    found = scorer.score(jnp.asarray(0.3), density, 0.5, 0).relative_l2
    assert found == pytest.approx(by_hand, rel=1e-2)
    elsewhere = density._replace(means=jnp.ones((1, 2)))
    assert scorer.score(jnp.asarray(0.3), elsewhere, 0.5, 7).relative_l2 == found
