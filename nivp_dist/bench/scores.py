"""The error of a finished run on samples that the problem provides, which the run itself does not compute.

``python -m nivp_dist.bench.scores DIR T`` prints that one number.
"""

import sys

import numpy as np

from nivp_dist.api import open_run
from nivp_dist.errors import InputError
from nivp_dist.run.stored import Run

POINTS, SEED = 40_000, 7  # twice the points of the runs' own errors; any fixed seed


def sampled_error(run: Run, t: float) -> float:
    """RMS(u - r) / RMS(r) at a stored time t over the points ``problem.samples(n, t, seed)`` (n, d), r the reference.

    If the unknown is the logarithm of a density and the samples are drawn from it, this is the error under the density.
    Raises InputError if the problem has no samples, or no reference at t.
    """
    draw = getattr(run.problem, "samples", None)
    if draw is None:
        raise InputError(f"{type(run.problem).__name__} has no samples(n, t, seed) to take its error on")
    x = np.asarray(draw(POINTS, t, SEED), np.float64)
    exact = run.reference(t)
    if exact is None:
        raise InputError(f"{type(run.problem).__name__} has no reference at t = {t:g} to compare with")
    reference = exact(x)
    misfit = run.solution(t)(x)[:, : reference.shape[1]] - reference
    return float(np.sqrt(np.sum(misfit**2) / np.sum(reference**2)))


if __name__ == "__main__":
    print(sampled_error(open_run(sys.argv[1]), float(sys.argv[2])))
