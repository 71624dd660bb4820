"""What stands for 'auto' in the settings of points, of the first step, and of the method in time."""

from nivp_dist.settings.model import Config, IntegratorSettings, SamplingSettings

# With fewer than three points for each parameter a velocity is free between them. Most shipped configurations have
# four; those with two are in one dimension, where points are evenly spread.
POINTS_PER_PARAMETER, LEAST_POINTS = 5, 2000
# A network that represents u itself has to be kept near zero where u is. A density that is represented by its logarithm
# falls there by itself.
UNIFORM_FOR_FIELDS, UNIFORM = 0.5, 0.1
TRIAL_STEP = 0.01  # of time
EXPLICIT_PAIR = "cash_karp"  # of integrator.method = "auto"


def with_points(config: Config, parameters: int) -> Config:
    """The configuration with a number in place of sampling.points = 'auto', for so many parameters."""
    if config.sampling.points != "auto":
        return config
    points = max(LEAST_POINTS, POINTS_PER_PARAMETER * parameters)
    return config.model_copy(update={"sampling": config.sampling.model_copy(update={"points": points})})


def number_of_points(sampling: SamplingSettings) -> int:
    """sampling.points of a configuration ``with_points``."""
    assert sampling.points != "auto"
    return sampling.points


def uniform_fraction(sampling: SamplingSettings, field: bool) -> float:
    """The share of uniform points. field: the network represents u, in a domain with a bounded axis."""
    if sampling.method == "uniform":
        return 1.0
    if sampling.uniform_fraction != "auto":
        return sampling.uniform_fraction
    return UNIFORM_FOR_FIELDS if field and sampling.method == "density" else UNIFORM


def first_step(integrator: IntegratorSettings) -> float:
    """The size of the first step, or where the integrator chooses it, of the first attempt at it."""
    return TRIAL_STEP if integrator.initial_step == "auto" else integrator.initial_step


def explicit_pair(integrator: IntegratorSettings) -> str:
    """The Runge-Kutta pair of explicit steps."""
    return EXPLICIT_PAIR if integrator.method == "auto" else integrator.method
