"""Tableaus against the order conditions, and observed orders on an ODE."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from nivp_dist.integration.tableaus import TABLEAUS, attempt

ORDERS = {"heun": (2, 1), "bogacki_shampine": (3, 2), "cash_karp": (5, 4), "dormand_prince": (5, 4)}


def square(tableau):
    s = len(tableau.a)
    return np.array([[*row, *[0.0] * (s - len(row))] for row in tableau.a])


def trees(order):
    """Rooted trees with `order` nodes, as sorted tuples of subtrees."""
    if order == 1:
        return [()]
    found = set()

    def forests(nodes):
        if nodes == 0:
            yield ()
        for size in range(1, nodes + 1):
            for tree in trees(size):
                for rest in forests(nodes - size):
                    yield tuple(sorted((tree, *rest)))

    found.update(forests(order - 1))
    return sorted(found)


def nodes(tree):
    return 1 + sum(map(nodes, tree))


def gamma(tree):
    return nodes(tree) * int(np.prod([gamma(child) for child in tree], dtype=np.int64))


def stage_weights(tree, a):
    """Phi_i(tree): product over the children of sum_j a_ij Phi_j(child)."""
    value = np.ones(len(a))
    for child in tree:
        value = value * (a @ stage_weights(child, a))
    return value


def defects(a, b, order):
    """b . Phi(t) - 1 / gamma(t) over all trees with `order` nodes (Butcher; Hairer, Norsett and Wanner I, II.2)."""
    return np.array([b @ stage_weights(tree, a) - 1 / gamma(tree) for tree in trees(order)])


def test_the_trees_are_all_there():
    assert [len(trees(order)) for order in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    assert sorted(gamma(tree) for tree in trees(4)) == [4, 8, 12, 24]


@pytest.mark.parametrize("name", TABLEAUS)
def test_order_conditions_of_both_members(name):
    tableau, (high, low) = TABLEAUS[name], ORDERS[name]
    assert tableau.order == high
    a, b = square(tableau), np.array(tableau.b)
    b_low = b - np.array(tableau.b_error)
    for weights, order in ((b, high), (b_low, low)):
        for k in range(1, order + 1):
            np.testing.assert_allclose(defects(a, weights, k), 0, atol=1e-14)
        assert np.abs(defects(a, weights, order + 1)).max() > 1e-4  # and no higher
    np.testing.assert_allclose(tableau.c, a.sum(axis=1), atol=1e-15)


@pytest.mark.parametrize("name", TABLEAUS)
def test_first_same_as_last(name):
    tableau = TABLEAUS[name]
    assert tableau.fsal == (name in ("bogacki_shampine", "dormand_prince"))
    if tableau.fsal:
        assert tableau.a[-1] == tableau.b[:-1] and tableau.b[-1] == 0
        assert Fraction(tableau.c[-1]).limit_denominator(10**6) == 1


# y1 = 1 / (2 - sin t), y2 = exp(sin 2t): nonlinear and depending on t.


def slope(y, t):
    return np.array([y[0] ** 2 * np.cos(t), 2 * np.cos(2 * t) * y[1] + (y[0] * (2 - np.sin(t)) - 1)])


def solution(t):
    return np.array([1 / (2 - np.sin(t)), np.exp(np.sin(2 * t))])


def combine(theta, h, coefficients, stages):
    total = h * sum(c * k for c, k in zip(coefficients, stages))
    return total if theta is None else theta + total


def integrate(tableau, steps, t_end=2.0):
    """The largest error up to t_end, and the largest |estimate| of a step, with equal steps through ``attempt``.

    At one time alone the leading term of the error may happen to vanish.
    """
    h, y, first, evaluations, error, largest = t_end / steps, solution(0.0), None, 0, 0.0, 0.0
    for k in range(steps):
        step = attempt(tableau, slope, combine, y, k * h, h, first)
        y, first = step.theta, step.last
        evaluations += step.evaluations
        error = max(error, np.linalg.norm(y - solution((k + 1) * h)))
        largest = max(largest, np.linalg.norm(step.error))
    stages = len(tableau.a)
    assert evaluations == (stages - 1) * steps + 1 if tableau.fsal else stages * steps
    return error, largest


@pytest.mark.parametrize("name", TABLEAUS)
def test_observed_orders(name):
    tableau = TABLEAUS[name]
    steps = np.array([64, 96, 128, 192, 256])
    errors, estimates = np.array([integrate(tableau, n) for n in steps]).T
    rate = np.polyfit(np.log(1 / steps), np.log(errors), 1)[0]
    assert abs(rate - tableau.order) < 0.15
    # One step's difference of the pair is of the lower order plus one.
    rate = np.polyfit(np.log(1 / steps), np.log(estimates), 1)[0]
    assert abs(rate - (ORDERS[name][1] + 1)) < 0.15


def test_one_step_against_scipy():
    for name, method in (("bogacki_shampine", "RK23"), ("dormand_prince", "RK45")):
        step = attempt(TABLEAUS[name], slope, combine, solution(0.0), 0.0, 0.05, None)
        other = solve_ivp(
            lambda t, y: slope(y, t), (0, 0.05), solution(0.0), method=method, first_step=0.05, rtol=1e3, atol=1e3
        )
        assert len(other.t) == 2
        np.testing.assert_allclose(step.theta, other.y[:, -1], rtol=1e-13)


@pytest.mark.parametrize("name", TABLEAUS)
def test_a_known_first_stage_is_not_taken_again(name):
    tableau, y = TABLEAUS[name], solution(0.0)
    without = attempt(tableau, slope, combine, y, 0.0, 0.1, None)
    given = attempt(tableau, slope, combine, y, 0.0, 0.1, slope(y, 0.0))
    assert given.evaluations == without.evaluations - 1
    np.testing.assert_array_equal(given.theta, without.theta)
    if tableau.fsal:
        np.testing.assert_allclose(without.last, slope(without.theta, 0.1), rtol=1e-13)
    else:
        assert without.last is None
