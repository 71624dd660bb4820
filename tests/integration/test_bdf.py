"""The formulas of implicit steps on steps of unequal lengths: orders, error estimates, stability, and their choice."""

import numpy as np
import pytest

from nivp_dist.integration import bdf

ORDERS = range(1, bdf.LARGEST_ORDER + 1)
# Lengths of steps with ratios up to two.
RAGGED = np.array([1.0, 1.6, 0.9, 1.2, 0.7, 1.3, 1.1, 0.8])


def times(steps):
    """d_j for a step of steps[-1] after the others."""
    return np.cumsum(steps[::-1])


def test_formulas_on_equal_steps_are_the_known_ones():
    known = {1: ([1], 1), 2: ([4 / 3, -1 / 3], 2 / 3), 3: ([18 / 11, -9 / 11, 2 / 11], 6 / 11)}
    known[4] = ([48 / 25, -36 / 25, 16 / 25, -3 / 25], 12 / 25)
    for order, (earlier, gamma) in known.items():
        found = bdf.formula(0.1 * np.arange(1, 6), order)
        assert found.gamma == pytest.approx(0.1 * gamma)
        np.testing.assert_allclose(found.earlier[:order], earlier, rtol=1e-12)
        assert not found.earlier[order:].any()


@pytest.mark.parametrize("order", ORDERS)
def test_formulas_and_predictors_are_exact_for_polynomials_of_their_order(order):
    d = times(RAGGED)[: order + 1]
    polynomial = np.polynomial.Polynomial(np.arange(1.0, order + 2))
    formula, predictor = bdf.formula(d, order), bdf.predictor(d, order)
    values = np.pad(polynomial(-d), (0, bdf.LARGEST_ORDER + 1 - len(d)))
    assert polynomial(0) - formula.gamma * polynomial.deriv()(0) == pytest.approx(formula.earlier @ values)
    assert polynomial(0) == pytest.approx(predictor.earlier @ values)


@pytest.mark.parametrize("order", ORDERS)
def test_the_error_of_a_step_by_its_predictor(order):
    """For u' = f(t) with f a polynomial of degree k. A step changes the solution by h times the error of the formula's
    derivative, and its own new value, from exact earlier ones, by gamma times that."""
    d = times(RAGGED)[: order + 1]
    exact = np.polynomial.Polynomial([0.0] * (order + 1) + [1.0])  # t^(k+1)
    formula, predictor = bdf.formula(d, order), bdf.predictor(d, order)
    values = np.pad(exact(-d), (0, bdf.LARGEST_ORDER + 1 - len(d)))
    new = formula.earlier @ values + formula.gamma * exact.deriv()(0)
    estimate = predictor.weight * abs(new - predictor.earlier @ values)
    assert estimate * formula.gamma / d[0] == pytest.approx(abs(new - exact(0)))


def solve(order, steps, rate, forcing, exact):
    """The largest error of y' = rate (y - g(t)) + g'(t), y = g, with steps of these lengths and exact first values."""
    t, known = 0.0, [exact(-np.sum(steps[1 : j + 1])) for j in range(order)]
    past, errors = list(steps[1:order]), []
    for h in steps:
        d = np.cumsum([h, *past])
        formula = bdf.formula(d, order)
        t += h
        right = formula.earlier[:order] @ known[:order] + formula.gamma * forcing(t)
        known, past = [right / (1 - formula.gamma * rate), *known], [h, *past][: order - 1]
        errors.append(abs(known[0] - exact(t)))
    return max(errors)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rate", [-1.0, -1e5], ids=["not stiff", "stiff"])
def test_observed_orders_on_an_equation_in_one_unknown(order, rate):
    exact, slope = lambda t: np.exp(np.sin(t)), lambda t: np.cos(t) * np.exp(np.sin(t))
    forcing = lambda t: slope(t) - rate * exact(t)  # noqa: E731
    errors = []
    counts = (80, 160, 320)
    for n in counts:
        steps = np.tile([0.9, 1.1], n // 2) * 2.0 / n
        errors.append(-rate * solve(order, steps, rate, forcing, exact))
    observed = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(observed - order) < 0.3, errors


@pytest.mark.parametrize("order", ORDERS)
def test_infinitely_stiff_modes_vanish_in_a_step(order):
    """L-stability: whatever the earlier values are, the new one tends to zero with one over the rate."""
    formula = bdf.formula(times(RAGGED)[:order], order)
    worst = np.abs(formula.earlier).sum() / np.abs(1 - formula.gamma * np.array([-1e3, -1e6, -1e9]))
    assert np.all(worst < 20 / np.array([1e3, 1e6, 1e9]))


def growth(order, z):
    """The largest root of the formula on equal steps for y' = lambda y, z = h lambda."""
    formula = bdf.formula(np.arange(1.0, 6.0), order)
    return np.abs(np.roots([1 - formula.gamma * z, *-formula.earlier[:order]])).max()


def test_which_orders_are_stable_where():
    """All on the negative axis; the first two on the imaginary one, as integrator.max_order says."""
    for order in ORDERS:
        assert max(growth(order, -r) for r in np.logspace(-3, 4, 50)) < 1
    imaginary = 1j * np.logspace(-2, 3, 60)
    stable = [max(growth(order, z) for z in imaginary) <= 1 + 1e-12 for order in ORDERS]
    assert stable == [True, True, False, False]


def test_the_order_with_the_longest_step_is_chosen():
    errors = {2: 0.5, 3: 0.05, 4: 1e-5}
    assert bdf.after_acceptance(0.1, 3, errors, raised=True).order == 4
    same = bdf.after_acceptance(0.1, 3, errors, raised=False)
    assert same.order == 3 and same.h == pytest.approx(0.1 * bdf.SAFETY * 0.05 ** (-1 / 4))
    assert bdf.after_acceptance(0.1, 3, {2: 1e-4, 3: 0.9, 4: 0.9}, raised=True).order == 2
    assert bdf.after_acceptance(0.1, 3, {3: 1e-9}, raised=True).h == pytest.approx(0.1 * bdf.GROW)
    assert bdf.after_acceptance(0.1, 1, {1: 1e-9}, raised=True).h == pytest.approx(0.1 * bdf.FIRST_GROW)
    assert bdf.after_acceptance(0.1, 3, {3: 0.3}, raised=True).h == 0.1  # it could grow by a tenth


def test_rejected_steps_are_shorter_and_never_of_a_higher_order():
    assert bdf.after_rejection(0.1, 2, {}) == (2, 0.1 * bdf.NOT_SOLVED)
    order, h = bdf.after_rejection(0.1, 2, {1: 50.0, 2: 8.0, 3: 1e-3})
    assert order == 2 and h == pytest.approx(0.1 * bdf.SAFETY * 8.0 ** (-1 / 3))
    assert bdf.after_rejection(0.1, 3, {2: 1.1, 3: 900.0}).order == 2
    assert bdf.after_rejection(0.1, 1, {1: 1e9}).h == pytest.approx(0.1 * bdf.SHRINK)


def test_what_is_kept_of_the_steps():
    kept = bdf.Multistep.begin()
    np.testing.assert_array_equal(kept.times(0.5), [0.5])
    kept = kept.after_step(0.5, 1e-3, 1, 1).after_step(0.25, 2e-3, 1, 2)
    np.testing.assert_array_equal(kept.times(0.1), [0.1, 0.35, 0.85])
    assert (kept.known, kept.order, kept.since) == (2, 2, 0)
    assert kept.misfit == 2e-3 and not kept.fits.any()
    assert kept.after_step(0.1, 0.0, 2, 2).since == 1
    fitted = kept.after_fit(1e-2).after_fit(1e-2).after_step(0.1, 1e-3, 2, 2)
    np.testing.assert_allclose(fitted.fits[:3], [0.0, np.sqrt(2) * 1e-2, 0.0])


def test_misfits_explain_no_more_of_an_error_than_they_add_to_the_solution():
    """Those of equations are much alike, and extrapolation of order 4 would enlarge independent ones by 31."""
    kept = bdf.Multistep.begin()
    for _ in range(bdf.LARGEST_ORDER):
        kept = kept.after_step(0.1, 1e-4, 1, 1)
    predictor = bdf.predictor(kept.times(0.1), 4)
    assert np.abs(predictor.earlier).sum() == pytest.approx(31.0)
    assert kept.explained(predictor) == pytest.approx(predictor.weight * 1e-4)
    assert kept.after_fit(1e-4).explained(predictor) == pytest.approx(predictor.weight * 5e-4)
