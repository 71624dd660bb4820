"""Conjugate gradients against dense solves: answers, true residuals, and what is said when there is none."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nivp_dist.galerkin import pcg

SIZE = 60


def positive(spectrum, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(spectrum), len(spectrum))))[0]
    return (q * spectrum) @ q.T


def run(matrix, b, x0=None, preconditioner=None, dtype=np.float64, **options):
    """pcg.solve on a dense matrix; products in dtype, the result in numpy."""
    low, refined = jnp.asarray(matrix, dtype), options.pop("refined", False)

    def product(v, true):
        cheap = (low @ v.astype(dtype)).astype(jnp.float64)
        return jnp.where(true, jnp.asarray(matrix) @ v, cheap) if refined else cheap

    inverse = np.eye(len(b)) if preconditioner is None else preconditioner
    solve = jax.jit(
        partial(
            pcg.solve,
            product,
            preconditioner=lambda r: jnp.asarray(inverse) @ r,
            **({"rtol": 1e-10, "max_iterations": 2000} | options),
        )
    )
    return jax.tree.map(np.asarray, solve(b=jnp.asarray(b), x0=jnp.zeros(len(b)) if x0 is None else jnp.asarray(x0)))


def true_residual(matrix, x, b, dtype=np.float64):
    product = (np.asarray(matrix, dtype) @ x.astype(dtype)).astype(np.float64)
    return np.linalg.norm(b - product) / np.linalg.norm(b)


B = np.random.default_rng(1).standard_normal(SIZE)


def reachable(matrix):
    """A right-hand side whose solution is of size one: any other could not be met to 1e-10 by rounding."""
    return matrix @ B


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e9])
def test_ill_conditioned_systems_with_a_good_preconditioner(condition):
    spectrum = np.logspace(-np.log10(condition), 0, SIZE)
    matrix = positive(spectrum)
    # Right to 10 % in every direction: the condition number that CG sees is 1.2.
    inverse = positive(1 / (spectrum * np.random.default_rng(2).uniform(0.9, 1.1, SIZE)))
    b = reachable(matrix)
    result = run(matrix, b, preconditioner=inverse)
    assert result.code == pcg.CONVERGED and result.iterations < 20
    assert true_residual(matrix, result.x, b) < 1.01e-10
    exact = np.linalg.solve(matrix, b)
    assert np.linalg.norm(result.x - exact) <= 1e-10 * condition * np.linalg.norm(exact)


@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_ill_conditioned_systems_without_preconditioner(condition):
    matrix = positive(np.logspace(-np.log10(condition), 0, SIZE))
    b = reachable(matrix)
    result = run(matrix, b)
    assert result.code == pcg.CONVERGED
    np.testing.assert_allclose(result.residual, true_residual(matrix, result.x, b), rtol=1e-3)
    error = np.linalg.norm(result.x - np.linalg.solve(matrix, b)) / np.linalg.norm(B)
    assert error <= 1e-10 * condition


def test_looking_at_the_true_residual_does_not_start_over():
    matrix = positive(np.logspace(-4, 0, SIZE))
    b = reachable(matrix)
    often, never = run(matrix, b, refresh=10), run(matrix, b, refresh=10_000)
    # One product in eleven goes to the true residual, and replacing the recurrence's costs a little conjugacy; begun
    # afresh every ten steps it would be a method like steepest descent.
    assert often.code == never.code == pcg.CONVERGED
    assert often.iterations < 1.5 * never.iterations


def test_iterations_follow_the_textbook_bound():
    condition = 100.0
    matrix = positive(np.linspace(1 / condition, 1, SIZE))
    result = run(matrix, B, rtol=1e-6)
    # |r_k| <= sqrt(condition) |e_k|_A-relative <= 2 sqrt(condition) q^k
    q = (np.sqrt(condition) - 1) / (np.sqrt(condition) + 1)
    bound = np.log(2 * np.sqrt(condition) / 1e-6) / -np.log(q)
    # One product in 26 goes to the true residual; two more begin and end.
    assert result.iterations <= np.ceil(bound * 26 / 25) + 2


def test_float32_products_stagnate_and_say_so():
    matrix = positive(np.logspace(-3, 0, SIZE))
    b = reachable(matrix)
    result = run(matrix, b, dtype=np.float32, rtol=1e-12)
    assert result.code == pcg.STAGNATED and result.iterations < 1000
    assert 1e-9 < result.residual < 1e-5
    # Reported is what can be measured (up to the order of the sums), not what the recurrence promised.
    np.testing.assert_allclose(result.residual, true_residual(matrix, result.x, b, np.float32), rtol=0.5)


def test_exact_residuals_take_the_floor_away():
    """Directions in float32: the same system is solved to where float64 would bring it, in few products more."""
    matrix = positive(np.logspace(-3, 0, SIZE))
    b = reachable(matrix)
    result = run(matrix, b, dtype=np.float32, rtol=1e-12, refined=True)
    assert result.code == pcg.CONVERGED
    assert true_residual(matrix, result.x, b) < 1.01e-12
    assert result.iterations < 1.5 * run(matrix, b, rtol=1e-12).iterations


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("condition", [1e3, 1e6])
@pytest.mark.parametrize("energy_rtol", [1e-2, 1e-4])
def test_the_estimated_error_is_the_one_in_the_norm_of_the_matrix(condition, energy_rtol, refined):
    matrix = positive(np.logspace(-np.log10(condition), 0, SIZE))
    b = reachable(matrix)
    dtype = np.float32 if refined else np.float64
    result = run(matrix, b, dtype=dtype, rtol=1e-14, energy_rtol=energy_rtol, refined=refined)
    assert result.code == pcg.CONVERGED
    np.testing.assert_allclose(result.residual, true_residual(matrix, result.x, b), rtol=1e-6)
    exact = np.linalg.solve(matrix, b)
    norm = lambda x: np.sqrt(x @ matrix @ x)  # noqa: E731
    # Of the iterate before DELAY more of them: the one that is returned is better, and not by orders.
    assert energy_rtol / 300 < norm(result.x - exact) / norm(exact) < 1.5 * energy_rtol
    assert result.iterations < run(matrix, b, dtype=dtype, rtol=1e-10, refined=refined).iterations


def test_slow_is_not_stagnant():
    """A residual that stands still for long while the recurrence is right is CG at work on a hard system."""
    matrix = positive(np.logspace(-8, 0, SIZE))
    result = run(matrix, reachable(matrix), rtol=1e-8)
    assert result.code == pcg.CONVERGED and result.iterations > 300


def test_iteration_limit():
    matrix = positive(np.logspace(-4, 0, SIZE))
    b = reachable(matrix)
    result = run(matrix, b, max_iterations=20)
    assert result.code == pcg.ITERATION_LIMIT and result.iterations == 20
    np.testing.assert_allclose(result.residual, true_residual(matrix, result.x, b), rtol=1e-9)
    assert result.residual < 0.5


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_not_a_number_is_broken(entry):
    matrix = np.eye(SIZE)
    matrix[3, 3] = entry
    result = run(matrix, B)
    assert result.code == pcg.BROKEN and result.iterations < 5
    assert np.isfinite(result.x).all() and np.isfinite(result.residual)


def test_an_indefinite_matrix_is_broken():
    assert run(-np.eye(SIZE), B).code == pcg.BROKEN
    assert run(positive(np.linspace(-0.5, 1, SIZE)), B).code == pcg.BROKEN


def test_a_right_hand_side_that_is_not_finite_is_broken():
    b = B.copy()
    b[0] = np.nan
    result = run(np.eye(SIZE), b)
    assert result.code == pcg.BROKEN


def test_warm_start():
    matrix = positive(np.linspace(1e-2, 1, SIZE))
    exact = np.linalg.solve(matrix, B)
    cold, warm = run(matrix, B), run(matrix, B, x0=exact * (1 + 1e-6))
    # Six of ten digits are given.
    assert warm.code == pcg.CONVERGED and warm.iterations < 0.7 * cold.iterations
    assert run(matrix, B, x0=exact).iterations <= 2


def test_a_start_worse_than_zero_is_dropped():
    matrix = positive(np.logspace(-3, 0, SIZE))
    cold, far = run(matrix, B), run(matrix, B, x0=1e8 * np.ones(SIZE))
    assert far.code == pcg.CONVERGED and abs(int(far.iterations) - int(cold.iterations)) <= 1
    np.testing.assert_allclose(far.x, cold.x, rtol=1e-6, atol=1e-8)


def test_zero_right_hand_side():
    result = run(positive(np.linspace(1, 2, SIZE)), np.zeros(SIZE), x0=np.ones(SIZE))
    assert result.code == pcg.CONVERGED and not result.x.any()
