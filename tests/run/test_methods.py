"""Every method, end to end: a small run each, held against its problem's exact reference."""

import pytest

from nivp_dist import Config

BASE = {
    "seed": 1,
    "devices": 1,
    "network": {"width": 8, "depth": 1, "frequencies": 1},
    "sampling": {"points": 200},
    "solver": {"method": "primal", "mu": 1e-9},
    "integrator": {"t_end": 0.1, "initial_step": 0.01},
    "fit": {"points": 300, "iterations": 12, "target": 1e-3},
    "output": {"evaluation_points": 2000, "plots": False},
}
DENSITY = {"problem": {"name": "linear_fokker_planck", "parameters": {"dimension": 1, "separation": 1.0}}}
MISSED = {"target": 1e-9, "on_miss": "continue"}  # a solve for the last layer alone does not reach it
WAVE = {
    "problem": {"name": "wave", "parameters": {"dimension": 1, "width": 0.18}},
    "fit": {"points": 1000, "iterations": 50, "target": 2e-2},
}

# name: (bound on the relative L2 error at every output time, settings)
RUNS = {
    "pcg, heun, mixture of two, points kept": (
        2e-3,
        {
            "solver": {"method": "pcg", "mu": 1e-6},
            "integrator": {"method": "heun", "rtol": 1e-3},
            "sampling": {"components": 2, "redraw_every": 3},
        },
    ),
    "pcg, fixed rank, chunks": (
        2e-3,
        {
            "solver": {"method": "pcg", "mu": 1e-6, "rank": 40},
            "integrator": {"method": "bogacki_shampine", "rtol": 1e-3},
            "sampling": {"chunk": 64},
        },
    ),
    "dual, dormand_prince, residual": (
        2e-3,
        {
            "solver": {"method": "dual"},
            "integrator": {"method": "dormand_prince"},
            "sampling": {"method": "residual"},
        },
    ),
    "primal, bogacki_shampine, uniform, chunks": (
        2e-3,
        {"integrator": {"method": "bogacki_shampine"}, "sampling": {"method": "uniform", "chunk": 70}},
    ),
    "float32 products": (
        5e-3,
        {"solver": {"method": "primal", "mu": 1e-5, "precision": "float32"}, "integrator": {"rtol": 1e-3}},
    ),
    "float32 network, two hidden layers": (
        5e-3,
        {
            "network": {"width": 8, "depth": 2, "dtype": "float32", "activation": "tanh"},
            "solver": {"method": "primal", "mu": 1e-5},
            "integrator": {"rtol": 1e-3},
            "fit": {"target": 1e-2},
        },
    ),
    "adam": (
        5e-2,
        {"fit": {"method": "adam", "steps": 1000, "batch": 200, "learning_rate": 1e-2} | MISSED},
    ),
    "adam_then_gauss_newton": (
        2e-3,
        {"fit": {"method": "adam_then_gauss_newton", "steps": 300, "batch": 200, "learning_rate": 1e-2} | MISSED},
    ),
    "log_density, whole space": (
        1e-2,
        DENSITY
        | {"solver": {"method": "dual", "mu": 1e-9}, "fit": {"target": 2e-2}}
        | {"sampling": {"adapt_points": False}},  # with more points "dual" gives way to "primal"
    ),
    "log_density, points by the solution": (
        1e-2,
        DENSITY
        | {"solver": {"method": "primal", "mu": 1e-9}, "fit": {"target": 2e-2}}
        | {"sampling": {"method": "solution", "inflation": 1.0, "uniform_fraction": 0.02}},
    ),
    "exponential, whole space": (
        2e-3,
        DENSITY | {"network": {"form": "exponential", "width": 8, "depth": 1}, "fit": {"iterations": 25}},
    ),
    "zero slope at both ends": (
        2e-3,
        {"problem": {"name": "heat_neumann", "parameters": {"dimension": 1}}, "fit": {"iterations": 30}},
    ),
    "periodic along, walls across": (
        2e-2,
        {
            "problem": {"name": "channel"},
            "network": {"width": 12, "depth": 1, "frequencies": [1, 1]},
            "fit": {"points": 600, "target": 1e-2},
            "sampling": {"points": 600},
        },
    ),
    "wave, one network per output": (
        5e-2,
        WAVE | {"network": {"width": 12, "depth": 1, "frequencies": 2, "trunk": "separate"}},
    ),
    "wave, shared trunk": (
        5e-2,
        WAVE | {"network": {"width": 16, "depth": 1, "frequencies": 2}},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_every_method(runs, name):
    bound, settings = RUNS[name]
    data = {key: value | settings.get(key, {}) if isinstance(value, dict) else value for key, value in BASE.items()}
    own = {"file": str(runs.folder / "modes.py"), "class": "Modes"}
    ran = runs.run(Config.model_validate(data | {"problem": settings.get("problem", own)}))
    summary = ran.summary
    assert summary["status"] == "finished"
    assert max(error["relative_l2"] for error in summary["errors"]) < bound, summary
    assert summary["solver"] == data["solver"]["method"]
    # A scheme that works takes steps of the size that its tolerance allows, not of the size that its noise does.
    assert summary["steps"] < 60, summary
    if data["solver"]["method"] == "pcg":
        assert summary["cg_iterations"] > 0
