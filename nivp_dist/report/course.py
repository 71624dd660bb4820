"""The course of a run, metrics.jsonl, thinned to what a picture can show, so that any number of steps needs little
memory."""

from pathlib import Path

import numpy as np

from nivp_dist.run.stored import METRIC_NAMES
from nivp_dist.storage.columns import Columns
from nivp_dist.storage.metrics import METRICS, iterate

MOST = 1 << 16  # steps in memory, which is 20 MB; all are shown of a run with fewer
SUMS = ("rejected_so_far", "spectrum_seconds_so_far")
INTERVALS = 1000  # of the time axis, more than the pictures have pixel columns
# The metrics that pictures show. In each interval, the steps stay at which one of them is least or greatest.
SHOWN = (
    "h order residual residual_fresh rejected_so_far cg_iterations cg_iterations_bound condition "
    "condition_preconditioned cg_iterations_first effective_dimension numerical_rank rhs_below_mu h_rho jacobian_share "
    "estimate estimate_bound estimate_initial estimate_residual estimate_steps estimate_refits"
).split()


def read_course(directory: str | Path) -> dict[str, np.ndarray]:
    """The metrics of a run as ``Run.metrics`` gives them, and the sums ``rejected_so_far`` of ``rejected`` and
    ``spectrum_seconds_so_far`` of ``spectrum_seconds``: name -> (steps,), of at most MOST steps.

    Where the run has more, the steps of each interval of t are left out at which no metric of SHOWN is least or
    greatest: what stays draws the same picture, spikes of a single step included. Raises OSError, and ValueError for a
    damaged line.
    """
    columns, rejected, seconds = Columns([*METRIC_NAMES, *SUMS]), 0, 0.0
    for line in iterate(Path(directory) / METRICS):
        rejected += line.get("rejected") or 0
        seconds += line.get("spectrum_seconds") or 0.0
        columns.append(line | dict(zip(SUMS, (rejected, seconds))))
        if len(columns) == MOST:
            columns.keep(_extremes(columns.arrays()))
    return columns.arrays()


def _extremes(metrics: dict[str, np.ndarray]) -> np.ndarray:
    """The numbers (k,) of the steps at which, in its interval of t, a metric of SHOWN is least or greatest."""
    t = np.nan_to_num(metrics["t"])
    interval = np.floor(INTERVALS * (t - t.min()) / (np.ptp(t) or 1.0)).clip(max=INTERVALS - 1)
    kept = []
    for name in SHOWN:
        values = metrics.get(name, t)
        for sign in (1, -1):
            # A value that is not known, NaN, comes last in the order, and so is the least one only where all are.
            order = np.lexsort((sign * values, interval))
            kept.append(order[np.unique(interval[order], return_index=True)[1]])
    return np.unique(np.concatenate(kept))
