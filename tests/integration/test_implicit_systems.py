"""How the approximations of the corrections of a step are made, kept, enlarged and given up, on solves by a script."""

from types import SimpleNamespace

import numpy as np
import pytest

from nivp_dist.galerkin import pcg
from nivp_dist.galerkin.implicit import Correction, Equation
from nivp_dist.galerkin.implicit_cg import Approximation
from nivp_dist.galerkin.implicit_methods import correction_work, iterative_work, products_per_approximation
from nivp_dist.galerkin.nystrom import Sketch
from nivp_dist.integration.implicit_systems import IterativeSystems
from nivp_dist.integration.solver_choice import LastStep
from nivp_dist.integration.stages import StageFailed

RANK, LIMIT, DAMPING = 64, 300, 1e-9
BY_THE_MATRIX = Correction("delta of the matrix", None)


class Script:
    """In place of ``IterativeCorrections``: each solve takes the next number of iterations.

    A number above the limit of the solve makes it end there. least: eigenvalue of all sketches, of trace one.
    """

    def __init__(self, *iterations, residual=1e-2, code=pcg.ITERATION_LIMIT, largest_rank=0, least=0.0):
        self.todo, self.residual, self.code, self.least = list(iterations), residual, code, least
        self.steps = SimpleNamespace(correction=lambda *_: BY_THE_MATRIX)
        solver = SimpleNamespace(max_iterations=LIMIT)
        network = SimpleNamespace(size=4000, outputs=1)
        self.galerkin = SimpleNamespace(largest_rank=largest_rank, solver=solver, network=network)
        self.made, self.limits = [], []

    def approximation(self, theta, equation, key, rank):
        self.made.append(rank)
        return Approximation(Sketch(None, np.array([1.0, self.least])), 1.0)

    def correction(self, theta, equation, damping, approximation, limit, accuracy):
        self.limits.append(limit)
        iterations = self.todo.pop(0)
        if iterations <= limit:
            return Correction("delta", None, iterations, 1e-9, pcg.CONVERGED)
        return Correction("delta", None, limit, self.residual, self.code)


def systems(script, direct=False, cg_iterations=None):
    return IterativeSystems(script, None, LastStep(1, RANK, True, cg_iterations), direct)


def solve(found, gamma=0.1):
    return found(np.zeros(3), Equation(gamma, 0.5, None, None, None), DAMPING, 0.1)


def test_an_approximation_serves_until_a_new_one_would_cost_less():
    """Then it is made for each correction, until the tenth step after."""
    worth = int(products_per_approximation(RANK))
    script = Script(20, 20 + worth, 20 + worth + 1, 21, 22)
    found = systems(script)
    for expected in ([RANK], [RANK], [RANK] * 2, [RANK] * 3):
        assert solve(found).delta == "delta" and script.made == expected
    assert script.limits == [LIMIT, 20 + worth, 20 + worth, LIMIT, LIMIT]
    assert found.wasted == 20 + worth and found.iterations == 20 + 2 * (20 + worth) + 21 + 22
    assert found.approximations == 3 and not found.warnings and not found.reuse
    for step, made in ((9, 2), (10, 1)):
        script = Script(20, 21)
        found = IterativeSystems(script, None, LastStep(step, RANK, False, None), False)
        solve(found)
        solve(found)
        assert len(script.made) == made and found.reuse == (made == 1)


def test_another_step_size_has_an_approximation_of_its_own():
    script = Script(20, 20)
    found = systems(script)
    solve(found)
    solve(found, gamma=0.05)
    assert script.made == [RANK] * 2 and script.limits == [LIMIT] * 2


@pytest.mark.parametrize(
    "last, least, expected",
    [
        (100, 1e-6, [RANK, 2 * RANK]),
        (100, 1e-9, [RANK]),  # the spectrum that is left is below the damping
        (10, 1e-6, [RANK]),
        (None, 1e-6, [RANK]),
    ],
)
def test_the_rank_doubles_where_iterations_were_many_and_the_spectrum_goes_on(last, least, expected):
    script = Script(50, largest_rank=1000, least=least)
    found = systems(script, cg_iterations=last)
    solve(found)
    assert script.made == expected and found.rank == expected[-1]


def test_the_rank_doubles_where_iterations_do_not_end():
    script = Script(LIMIT + 1, LIMIT + 1, 200, largest_rank=3 * RANK)
    found = systems(script)
    assert int(solve(found).code) == pcg.CONVERGED
    assert script.made == [RANK, 2 * RANK, 3 * RANK] and found.wasted == 2 * LIMIT


def test_a_limit_that_leaves_little_is_a_warning():
    found = systems(Script(LIMIT + 1, residual=1e-5))
    assert solve(found).delta == "delta"
    assert (
        found.warnings == ["CG iteration limit: raise solver.max_iterations, max_rank or mu, or solver.rtol"]
        and found.worst == 1e-5
    )


@pytest.mark.parametrize("code", [pcg.ITERATION_LIMIT, pcg.BROKEN])
def test_a_correction_that_is_not_solved_for_is_refused_or_left_to_the_matrix(code):
    residual = 1e-2 if code == pcg.ITERATION_LIMIT else 1e-9
    with pytest.raises(
        StageFailed, match=f"CG at t = 0.5: {pcg.CODE_NAMES[code]} at a relative residual {residual:.1e}"
    ):
        solve(systems(Script(LIMIT + 1, residual=residual, code=code)))
    script = Script(LIMIT + 1, residual=residual, code=code)
    found = systems(script, direct=True)
    assert solve(found) is BY_THE_MATRIX and found.rank == 0 and found.wasted == LIMIT
    assert solve(found) is BY_THE_MATRIX and len(script.limits) == 1


@pytest.mark.parametrize("direct", [True, False])
def test_the_matrix_takes_over_where_corrections_cost_less_by_it(direct):
    """By counted operations, from the next step on, where it may."""
    script, n = Script(20, 22), 12000
    even = correction_work(script.galerkin.network, n) / iterative_work(script.galerkin.network, n, 0, 1, RANK)
    found = systems(script, direct)
    solve(found)
    solve(found)
    spent = 42 + products_per_approximation(RANK)
    for corrections in (0.9 * spent / even, 1.1 * spent / even):
        expected = 0 if direct and corrections * even < spent else RANK
        assert found.next_rank(corrections, n) == expected
