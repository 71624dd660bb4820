"""Runs in memory are the same runs as those with files, for any seed."""

import pytest
from whole_runs import Runs

from nivp_dist.problems import registry
from nivp_dist.run.simulation import Simulation
from nivp_dist.storage.metrics import plain
from nivp_dist.studies.in_memory import evolve

SHORT = {"integrator__t_end": 0.05, "output__times": [], "restart__enabled": False, "output__spectrum_every": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_memory")
    return Runs(folder, folder / "compiled")


@pytest.fixture(scope="module")
def simulation(runs):
    config = runs.config(seed=1, **SHORT)
    return Simulation(config, registry.load(config.problem))


def test_a_run_with_another_seed_is_the_run_with_that_seed(runs, simulation):
    course = evolve(simulation, 2)
    ran = runs.run(seed=2, **SHORT)
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in course.lines]
    assert plain(lines) == ran.metrics
    assert course.failure is None and course.t == 0.05 and len(course.lines) == ran.summary["steps"]
    assert course.first("residual_fresh") == ran.metrics[0]["residual_fresh"] != course.last("residual_fresh")
    # On the evaluation points of the simulation's own seed.
    first, last = (entry["relative_l2"] for entry in ran.summary["errors"])
    assert course.fit == pytest.approx(first, rel=0.3) and course.error == pytest.approx(last, rel=0.3)
    assert 0 < course.fit_seconds < course.seconds


def test_a_run_that_does_not_reach_its_end_says_why(simulation):
    most = simulation.config.integrator.model_copy(update={"max_steps": 2})
    simulation.config = simulation.config.model_copy(update={"integrator": most})
    course = evolve(simulation, 1)
    assert course.failure is not None and course.failure.startswith("2 steps reached at t = 0.0")
    assert len(course.lines) == 2 and course.error is None and 0 < course.fit < 1e-2
    course = evolve(simulation, 1, limit=0.0)
    assert course.failure == "not done in 0 s" and course.fit is None and not course.lines
