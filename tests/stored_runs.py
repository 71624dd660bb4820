"""Run directories with stored networks, for the tests of pictures, movies and `nivp watch`."""

import json

import jax
import numpy as np

from nivp_dist.api import open_run
from nivp_dist.network.network import build_network
from nivp_dist.problems.registry import load
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory, snapshots


def make_run(directory, problem: dict, times=(0.0, 0.1, 0.2, 0.3, 0.5), steps=8):
    """A run directory as the controller leaves it, with a random small network at every output time."""
    config = Config(problem=problem, network={"width": 6, "depth": 1}, output={"times": list(times)})
    path = run_directory.create(config, directory, "run")
    config = open_run(path).config
    network = build_network(config.network, load(config.problem))
    d = network.dimension
    for number, t in enumerate(times):
        theta = np.asarray(network.initialise(jax.random.key(number)))
        arrays = {
            "theta": 0.3 * theta,
            "step": number,
            "relative_l2": 1e-3 * (1 + t),
            "density_weights": np.array([0.25, 0.75]),
            "density_means": np.array([np.full(d, -0.2), np.full(d, 0.3)]),
            "density_covariances": np.array([0.04 * np.eye(d), 0.09 * np.eye(d)]),
        }
        snapshots.save(path, t, arrays)
    with open(path / "metrics.jsonl", "w") as file:
        for step in range(1, steps + 1):
            line = {"step": step, "t": 0.5 * step / steps, "h": 0.5 / steps, "residual": 1e-3, "residual_fresh": 2e-3}
            line |= {"cg_iterations": 60 + 6 * step, "cg_wasted": 6, "evaluations": 6, "wall_seconds": 2.0 * step}
            if step % 2:
                line |= {"condition": 5e6, "condition_preconditioned": 40.0, "cg_iterations_bound": 90}
                line |= {"cg_iterations_first": 8}
                line |= {"effective_dimension": 30.5, "effective_dimension_error": 0.5, "rhs_below_mu": 1e-3}
                line |= {f"small_share_layer_{number}": number / 15 for number in range(6)}
                line |= {"small_share_error": 0.1, "spectrum_seconds": 0.5}
            line |= {"rejected": step % 2, "h_rho": 1.8, "h_rho_limit": 3.6, "jacobian_share": 0.25}
            file.write(json.dumps(line) + "\n")
    return path
