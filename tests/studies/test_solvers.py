"""The study of solvers: conclusions from made-up records, and the dense rate against a tiny system."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from nivp_dist.studies import solvers


def solver(seconds, error=1e-6, iterations=0) -> dict:
    """What a solver takes with three seeds."""
    seconds = seconds if isinstance(seconds, list) else [seconds] * 3
    return {"iterations": [iterations] * 3, "converged": [True] * 3, "seconds": seconds, "error": [error] * 3}


def records(**systems) -> dict:
    """One record: names of shares with underscores -> {solver: what it takes}."""
    named = {name.replace("_", " < "): {"n": 50, "solvers": found} for name, found in systems.items()}
    return {"made-up": {"configuration": "heat_2d", "p": 100, "outputs": 1, "systems": named}}


def test_a_winner_is_accurate_and_clearly_faster_with_every_seed():
    assert solvers.winners({"dual, float64": solver(1.0), "primal, float64": solver(1.3)}) == ["dual, float64"]
    assert solvers.winners({"dual, float64": solver(1.3), "primal, float64": solver(1.0)}) == ["primal, float64"]
    inaccurate = {"dual, float32": solver(1.0, error=1e-3), "primal, float32": solver(0.5, error=None)}
    assert solvers.winners(inaccurate) == []
    assert solvers.winners(inaccurate | {"pcg, rank 64, float64": solver(9.0)}) == ["pcg, rank 64, float64"]
    once_as_fast = {"dual, float64": solver(1.0), "primal, float64": solver([2.0, 2.0, 1.1])}
    assert solvers.winners(once_as_fast) == ["dual, float64", "primal, float64"]


def test_the_answer_counts_the_methods_that_win():
    found = records(
        n_p={"dual, float64": solver(1.0), "primal, float64": solver(9.0), "dual, float32": solver(0.1, 1.0)}
    )
    first, _, missed = solvers.answer(found)
    assert first == "With n < p the fastest accurate method is, of 1 systems: dual in 1."
    assert missed.endswith("by: dual, float32 in 1.")
    same_method = {"pcg, rank 64, float64": solver(1.0), "pcg, rank 256, float64": solver(1.1)}
    assert solvers.answer(records(n_p=same_method))[0].endswith("pcg in 1.")
    rivals = {"pcg, rank 64, float64": solver(1.0), "primal, float64": solver(1.1)}
    assert solvers.answer(records(n_p=rivals))[0].endswith("open in 1.")
    verdict = solvers.tables(records(n_p=rivals))[0].rows[1][5:7]
    assert verdict == ["open", "pcg, rank 64, float64 or primal, float64"]


def test_the_picture_shows_accurate_solvers_alone():
    figure = Figure()
    found = records(n_p={"dual, float64": solver(1.0), "primal, float64": solver(9.0, error=1.0)})
    solvers.draw(found, figure)
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert drawn == {"primal": [], "dual": [1.0] * 3, "pcg": [], "dual_pcg": []}


@pytest.fixture(scope="module")
def tiny():
    from nivp_dist.studies import systems

    settings = {"network.width": "3", "network.depth": "1", "fit.iterations": "2", "fit.on_miss": "continue"}
    settings |= {"sampling.points": "60", "fit.points": "60", "problem.parameters.dimension": "2", "solver.mu": "1e-6"}
    run = systems.simulation("fokker_planck_trap_5d", settings)
    return run, systems.system_of(run, systems.begun(run, 1), 60)


def test_the_dense_rate_is_that_of_the_normal_equations_and_the_seed_changes_the_state(tiny):
    from nivp_dist.bench.velocity import jacobian_and_rate
    from nivp_dist.studies import systems

    run, system = tiny
    again, other = (np.asarray(systems.begun(run, seed).theta) for seed in (1, 2))
    assert np.array_equal(again, system.theta) and not np.array_equal(other, system.theta)
    solver = systems.Solver(run, {"method": "primal"}, system)
    shared = solver.prepare(system)
    program = jacobian_and_rate(run)
    reference = systems.DenseRate(run, program, system, shared)
    v = np.asarray(solver.velocity(system, shared).v)
    assert reference.error(v) < 1e-7 and reference.error(1.01 * v) == pytest.approx(0.01, rel=1e-4)

    # The same by normal equations in the network's own parameters: |w|^2 = v^T (T T^T)^-1 v for v = T w.
    j, f = program(system.theta, system.points.x, system.t)
    t = np.stack([np.asarray(run.network.from_basis(e, shared.basis)) for e in np.eye(run.network.size)], axis=1)
    weights = np.asarray(system.points.weights)
    matrix = (j * weights[:, None]).T @ j + float(shared.mu) * np.linalg.inv(t @ t.T)
    dense = np.linalg.solve(matrix, j.T @ (weights * f))
    np.testing.assert_allclose(
        reference.rate, np.sqrt(weights) * (j @ dense), atol=1e-6 * np.linalg.norm(reference.rate)
    )
    assert solver.memory > 8 * run.network.size**2


def test_processor_seconds_do_not_count_waiting():
    import time

    from nivp_dist.studies import systems

    assert systems.processor_seconds(lambda: time.sleep(0.05), rounds=1) < 0.04
