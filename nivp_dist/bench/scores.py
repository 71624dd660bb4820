"""Errors of a finished run that its own outputs do not hold: of log u, relative to log u.

``python -m nivp_dist.bench.scores DIR T KIND`` prints one number: jax starts fresh, as for every row.
"""

import sys

import numpy as np

from nivp_dist.api import open_run
from nivp_dist.densities import draw_points
from nivp_dist.problems.domains import Box
from nivp_dist.run import Run

POINTS, SEED = 40_000, 7
REACH = 5.0  # on the whole space "uniform" means [-5, 5]^d (the log Fokker-Planck problem of SPRING, d = 9)


def log_error(run: Run, t: float, kind: str) -> float:
    """RMS(q - r) / RMS(r) at a stored time, q = log u, r that of the reference.

    kind: log_uniform, over the box; log_density, under the reference's density, importance-sampled. Points where the
    reference is zero say nothing of its logarithm and are left out.
    """
    domain, weights = run.problem.domain, np.ones(POINTS)
    if kind == "log_uniform":
        low, high = (domain.lower, domain.upper) if isinstance(domain, Box) else (-REACH, REACH)
        x = np.random.default_rng(SEED).uniform(low, high, (POINTS, domain.dimension))
    else:
        x, weights = draw_points(run.snapshot(t), POINTS, SEED)
    values, reference = run.solution(t)(x)[:, 0], run.reference(t)(x)[:, 0]
    if run.problem.density:
        with np.errstate(divide="ignore", invalid="ignore"):
            values, reference = np.log(values), np.log(reference)
    if kind == "log_density":
        weights = weights * np.exp(reference)
    known = np.isfinite(reference)
    squares = [np.sum((weights * difference**2)[known]) for difference in (values - reference, reference)]
    return float(np.sqrt(squares[0] / squares[1]))


if __name__ == "__main__":
    directory, time, kind = sys.argv[1:]
    print(log_error(open_run(directory), float(time), kind))
