"""A step of a run without any failure, for made-up histories of steps."""

from nivp_dist.monitoring.step_series import StepRecord

GOOD_STEP = StepRecord(
    h=0.01,
    rejected=0,
    residual=9e-4,
    residual_fresh=1e-3,
    iterations=20,
    coverage=0.3,
    turn=0.9,
    unsolved=0,
    stability=0.2,
    jacobian_share=0.5,
    motion=0.01,
    missed=1.0,
)
