"""The pair of implicit Runge-Kutta steps: order conditions, stability, its equations in fields, and observed orders."""

import numpy as np
import pytest

from nivp_dist.integration.sdirk import ALEXANDER as PAIR

A, B, EMBEDDED = PAIR.matrix, PAIR.b, np.array(PAIR.embedded)


def test_the_matrix_is_that_of_alexander():
    """gamma is a root of his cubic; the nodes are gamma, (1 + gamma) / 2 and 1; the diagonal is constant."""
    gamma = A[0, 0]
    assert abs(gamma**3 - 3 * gamma**2 + 1.5 * gamma - 1 / 6) < 1e-15
    np.testing.assert_allclose(PAIR.times, [0, gamma, (1 + gamma) / 2, 1], atol=1e-15)
    np.testing.assert_array_equal(np.diag(A), gamma)
    assert not np.triu(A, 1).any()


def defects(b, order):
    """b . Phi(t) - 1 / gamma(t) over the trees with `order` nodes (Hairer, Norsett and Wanner I, II.2)."""
    c = A.sum(axis=1)
    conditions = {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ A @ c - 1 / 6],
        4: [b @ c**3 - 1 / 4, (b * c) @ A @ c - 1 / 8, b @ A @ c**2 - 1 / 12, b @ A @ A @ c - 1 / 24],
    }
    return np.array(conditions[order])


def test_order_conditions_of_both_members():
    for weights, order in ((B, PAIR.order), (EMBEDDED, PAIR.order - 1)):
        for k in range(1, order + 1):
            np.testing.assert_allclose(defects(weights, k), 0, atol=1e-14)
        assert np.abs(defects(weights, order + 1)).max() > 1e-3  # and no higher


def stability(weights, z):
    """R(z) of the method with these weights."""
    return 1 + z * weights @ np.linalg.solve(np.eye(len(A)) - z * A, np.ones(len(A)))


def test_it_is_stiffly_accurate_and_l_stable():
    """A-stable: |R| <= 1 on the imaginary axis, and no pole on the left of it, 1 / gamma > 0. And R(inf) = 0."""
    np.testing.assert_array_equal(A[-1], B)
    imaginary = 1j * np.logspace(-3, 5, 400)
    assert max(abs(stability(B, z)) for z in imaginary) <= 1 + 1e-14 and A[0, 0] > 0
    for z in (-1e4, -1e8, 1e4j, 1e8j):
        assert abs(stability(B, z)) < 10 / abs(z)
    assert 1 - B @ np.linalg.solve(A, np.ones(len(A))) == pytest.approx(0, abs=1e-14)


def test_the_embedded_method_is_bounded_too():
    """The difference of the pair is at most twice the mode that it is the error of, however stiff that is."""
    assert max(abs(stability(EMBEDDED, z)) for z in 1j * np.logspace(-3, 5, 400)) <= 1 + 1e-14


# Through the equations in fields --------------------------------------------------------------------------------------


def step(u, t, h, matrix, forcing):
    """(u_new, difference of the pair) for u' = matrix u + forcing(t), as the equations of the stages say."""
    fields = np.zeros((len(B) + 1, len(u)))
    fields[0] = u
    for i in range(len(B)):
        gamma, earlier = PAIR.stage(i, h)
        assert not earlier[i + 1 :].any()
        target = earlier @ fields + gamma * forcing(t + PAIR.times[i + 1] * h)
        fields[i + 1] = np.linalg.solve(np.eye(len(u)) - gamma * matrix, target)
    return fields[-1], PAIR.error @ fields


def test_the_equations_in_fields_are_the_stages():
    """Against the textbook's form, with rates of change."""
    random = np.random.default_rng(0)
    matrix, u, h = random.normal(size=(4, 4)), random.normal(size=4), 0.3
    rates = np.linalg.solve(np.eye(12) - h * np.kron(A, matrix), np.tile(matrix @ u, 3)).reshape(3, 4)
    new, difference = step(u, 0.0, h, matrix, lambda t: 0.0)
    np.testing.assert_allclose(new, u + h * B @ rates, rtol=1e-12)
    np.testing.assert_allclose(difference, h * (B - EMBEDDED) @ rates, rtol=1e-11, atol=1e-13)


def solve(n, matrix, forcing, exact, t_end=2.0):
    """The largest error and the largest difference of the pair over n steps."""
    h, u, errors, differences = t_end / n, exact(0.0), [], []
    for k in range(n):
        u, difference = step(u, k * h, h, matrix, forcing)
        errors.append(np.linalg.norm(u - exact((k + 1) * h)))
        differences.append(np.linalg.norm(difference))
    return max(errors), max(differences)


@pytest.mark.parametrize(
    "matrix, orders",
    [
        (np.array([[0.0, 1.0], [-4.0, -0.3]]), (3, 3)),
        # With rates of 1e6 the stages, which are of order one, make an error of h over the rate. The other component of
        # the diffusion, which is not stiff, has a larger error.
        (np.diag([-1e6, -1.0]), (3, 2)),
        (np.array([[0.0, 1e6], [-1e6, 0.0]]), (1, 2)),
    ],
    ids=["not stiff", "diffusion", "dispersion"],
)
def test_observed_orders(matrix, orders):
    exact = lambda t: np.array([np.exp(np.sin(t)), np.cos(2 * t)])  # noqa: E731
    slope = lambda t: np.array([np.cos(t) * np.exp(np.sin(t)), -2 * np.sin(2 * t)])  # noqa: E731
    forcing = lambda t: slope(t) - matrix @ exact(t)  # noqa: E731
    counts = np.array([40, 80, 160])
    found = np.array([solve(n, matrix, forcing, exact) for n in counts])
    observed = -np.polyfit(np.log(counts), np.log(found), 1)[0]
    assert np.all(np.abs(observed - orders) < 0.2), found


def test_misfits_of_fields_are_not_multiplied_by_stiffness():
    """A perturbation of every equation of a stage changes the difference by no more than |e| says, at any rate."""
    bound = np.abs(PAIR.error[1:]).sum()
    for rate in (-1e3, -1e9, 1e3j, 1e9j):
        fields = np.zeros(len(B) + 1, complex)
        for i in range(len(B)):
            gamma, earlier = PAIR.stage(i, 1.0)
            fields[i + 1] = (earlier @ fields + 1.0) / (1 - gamma * rate)
        assert abs(PAIR.error @ fields) < bound
