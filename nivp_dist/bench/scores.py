"""An error of a finished run that its own outputs do not hold: on points of the problem's choice.

``python -m nivp_dist.bench.scores DIR T`` prints one number: jax starts fresh, as for every row.
"""

import sys

import numpy as np

from nivp_dist.api import open_run
from nivp_dist.errors import InputError
from nivp_dist.run.stored import Run

POINTS, SEED = 40_000, 7


def sampled_error(run: Run, t: float) -> float:
    """RMS(u - r) / RMS(r) at a stored time over the points of ``problem.samples(n, t, seed)`` (n, d), r the reference's
    outputs. For a problem whose unknown is the log of a density that is the error under the density.

    Raises InputError if the problem has no samples.
    """
    draw = getattr(run.problem, "samples", None)
    if draw is None:
        raise InputError(f"{type(run.problem).__name__} has no samples(n, t, seed) to be scored on")
    x = np.asarray(draw(POINTS, t, SEED), np.float64)
    reference = run.reference(t)(x)
    misfit = run.solution(t)(x)[:, : reference.shape[1]] - reference
    return float(np.sqrt(np.sum(misfit**2) / np.sum(reference**2)))


if __name__ == "__main__":
    print(sampled_error(open_run(sys.argv[1]), float(sys.argv[2])))
