"""The numbers of the last steps of a run, in which signatures and findings are recognised."""

from typing import NamedTuple

import numpy as np


class StepRecord(NamedTuple):
    """The numbers of one accepted step.

    Attributes:
        h: the step size proposed for the next step (the step itself may have been cut short by an output time).
        rejected: rejected attempts before it.
        residual, residual_fresh: |J v - f| / |f| on the points of the step, and on fresh points. The first is NaN where
            the points, and the velocity with them, were kept from the step before.
        iterations: CG iterations per velocity; 0 with direct solves.
        coverage: effective share of the points, see ``galerkin.norms.ResidualCheck``.
        turn: cosine of the angle between the first velocity of the step and the last one of the step before; NaN if
            there is none.
        unsolved: 1 if CG missed its tolerance in the step, else 0.
        stability: h rho over the largest one at which the pair is stable.
        jacobian_share: of the error of the step, the share that is the change of J along it.
        motion: |theta_new - theta| / |theta_new|.
        missed: what the residual adds to the relative error within the step, over integrator.rtol, which is what the
            error of the step itself may be.
    """

    h: float
    rejected: float
    residual: float
    residual_fresh: float
    iterations: float
    coverage: float
    turn: float
    unsolved: float
    stability: float
    jacobian_share: float
    motion: float
    missed: float


class StepSeries(NamedTuple):
    """The same numbers of several steps, (n,) each, the newest last."""

    h: np.ndarray
    rejected: np.ndarray
    residual: np.ndarray
    residual_fresh: np.ndarray
    iterations: np.ndarray
    coverage: np.ndarray
    turn: np.ndarray
    unsolved: np.ndarray
    stability: np.ndarray
    jacobian_share: np.ndarray
    motion: np.ndarray
    missed: np.ndarray
