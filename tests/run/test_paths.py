"""Runs whose points lie at the ends of simulated paths: right, and the same through a crash."""

import pytest

from nivp_dist import Config

SETTINGS = {
    "seed": 1,
    "devices": 1,
    "problem": {"name": "linear_fokker_planck", "parameters": {"dimension": 1, "separation": 1.0}},
    "network": {"width": 8, "depth": 1},
    "sampling": {"method": "paths", "points": 201, "path_steps": 20},
    "solver": {"method": "primal", "mu": 1e-7},
    "integrator": {"t_end": 0.1, "initial_step": 0.01},
    "fit": {"points": 300, "iterations": 12, "target": 2e-2},
    "output": {"evaluation_points": 2000, "plots": False},
    "checkpoint": {"every_steps": 1},
}


@pytest.fixture(scope="module")
def alone(runs):
    return runs.run(Config.model_validate(SETTINGS))


def test_the_run_is_right(alone):
    assert max(error["relative_l2"] for error in alone.summary["errors"]) < 1e-2
    assert alone.summary["steps"] < 30


def test_a_crash_changes_nothing(runs, same, crash, alone):
    ran = runs.begin(crash, ("step", 2), Config.model_validate(SETTINGS))
    same(runs.resume(ran), alone)
