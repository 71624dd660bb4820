"""What stands for 'auto' in the settings of points, of mu, of the first step, and of the method in time."""

from typing import Any, Literal

from nivp_dist.settings.model import Config, IntegratorSettings, SamplingSettings, SolverSettings

# With fewer than three points for each parameter a velocity is free between them. Most shipped configurations have
# four; those with two are in one dimension, where points are evenly spread.
POINTS_PER_PARAMETER, LEAST_POINTS = 5, 2000
# In the norm of an energy a point has an equation for each of its components, in place of one for each output, and a
# velocity takes ten times as long with as many points. A wave in the plane, p = 1,102, accuracy = 1e-3: errors at
# t = 0.1 of 7.6e-5 with five points for each parameter; at t = 0.5 of 1.6e-4 with 2.3, and 6.6e-4 in the norm of the
# field with five.
POINTS_PER_PARAMETER_IN_ENERGY = 2.5
# A network that represents u itself has to be kept near zero where u is. A density that is represented by its logarithm
# falls there by itself.
UNIFORM_FOR_FIELDS, UNIFORM = 0.5, 0.1
# With sampling.method = "auto" points for log u are drawn from u itself, and few elsewhere. Of those from larger
# Gaussians many lie where log u is large and u is not. Measured with the problem, accuracy = 1e-3 and mu = 1e-12 alone,
# points from u and from Gaussians: a Duffing oscillator 4.1e-5 in 54 steps, not half of the way after 103; a start with
# heavy tails in 6 dimensions 3.1e-5 in 22 steps, 1.4e-4 in 35; a mixture in 8 dimensions 8.2e-7, 9.2e-7; five double
# wells at t = 0.1 5.6e-4 in 55 steps, where Gaussians (mu = 1e-10) came to t = 0.034 in 82. With candidates from
# Gaussians 1.5 times as large the wells have 2.0e-3. The moving trap takes 117 steps to t = 5.5, and 104 to 8.
INFLATION = 1.5
# By whether the start is Gaussian and its rate a quadratic form: such a density needs points in its tails, and they
# cost it nothing (``points.tails``).
IN_TAILS = {
    True: {"uniform_fraction": UNIFORM, "inflation": INFLATION},
    False: {"uniform_fraction": 0.02, "inflation": 1.0},
}
# solver.mu over the accuracy asked for. Errors with 1e-7, 1e-8 and 1e-9, from the problem and accuracy = 1e-3 alone,
# and velocities: a modulated wave (kappa = 8) 1.4e-2, 1.7e-3, 8.7e-4 (368, 413 for the last two); a drum with 2,000
# points 2.3e-4, 8.7e-5, 2.7e-4 (190, 256, 529); a channel 1.3e-5, 1.8e-5, 1.1e-4 (120, 162, 238). With 1e-7 and 1e-9:
# advection in 5 dimensions at t = 0.6 1.3e-2, 9.9e-4 (as many), heavy tails in 6 5.5e-3, 1.4e-4. Asked for 1e-4,
# advection in 2 with 1e-6, 1e-8 and 1e-9: 1.4e-4, 1.9e-5, 1.5e-5 (144, 156, 180).
# A network whose matrix is too large for direct solves gets more, because iterations of CG grow as mu falls.
MU_OF_ACCURACY, MU_OF_ACCURACY_BY_CG, DIRECTLY_SOLVED = 1e-8, 1e-7, 4000
# Below the first, rounding in float64 decides; above the second, the velocity is damped so much that little moves.
LEAST_MU, LARGEST_MU = 1e-13, 1e-8
TRIAL_STEP = 0.01  # of time
EXPLICIT_PAIR = "cash_karp"  # of integrator.method = "auto"


def resolved(config: Config, parameters: int, log_density: bool) -> Config:
    """The configuration with values in place of 'auto' in sampling.points, sampling.method, sampling.components and
    solver.mu; and where that method is then "solution", in sampling.uniform_fraction and sampling.inflation too.

    parameters: of the network. log_density: whether it represents log u.
    """
    sampling, solver, found = config.sampling, config.solver, {}
    if sampling.points == "auto":
        each = POINTS_PER_PARAMETER_IN_ENERGY if solver.norm == "energy" else POINTS_PER_PARAMETER
        found["points"] = max(LEAST_POINTS, int(each * parameters))
    if sampling.method == "auto":
        follows = points_follow_density(sampling, log_density)
        found["method"] = "solution" if follows else "density"
        if follows:  # where nobody has looked at the initial condition (``run.settled``)
            found |= {key: value for key, value in IN_TAILS[False].items() if getattr(sampling, key) == "auto"}
    if sampling.components == "auto":
        found["components"] = 1
    sampling = sampling.model_copy(update=found)
    if solver.mu == "auto":
        solver = solver.model_copy(update={"mu": _mu(config.accuracy, parameters)})
    return config.model_copy(update={"sampling": sampling, "solver": solver})


def _mu(accuracy: float | None, parameters: int) -> float:
    """solver.mu for "auto"; without an accuracy that of a configuration which does not set it."""
    if accuracy is None:
        return float(SolverSettings.model_fields["mu"].default)
    share = MU_OF_ACCURACY if parameters <= DIRECTLY_SOLVED else MU_OF_ACCURACY_BY_CG
    return min(max(share * accuracy, LEAST_MU), LARGEST_MU)


def with_found(config: Config, found: dict[str, dict[str, Any]]) -> Config:
    """The configuration with other values: section -> key -> value."""
    return config.model_copy(
        update={section: getattr(config, section).model_copy(update=values) for section, values in found.items()}
    )


def as_found(wanted: Config, kept: Config) -> Config:
    """`wanted` with what the run has found out of its start and recorded (``run.settled``), where it leaves that to
    it."""
    keys = {"sampling": ("components", "uniform_fraction", "inflation"), "network": ("gaussians",)}
    left = {
        section: {key: getattr(getattr(kept, section), key) for key in names if _is_auto(wanted, section, key)}
        for section, names in keys.items()
    }
    return with_found(wanted, left)


def _is_auto(config: Config, section: str, key: str) -> bool:
    return getattr(getattr(config, section), key) == "auto"


def points_follow_density(sampling: SamplingSettings, log_density: bool) -> bool:
    """Whether sampling.method = "auto" draws points from u itself."""
    return sampling.method == "auto" and log_density and sampling.redraw_every == 1


def number_of_points(sampling: SamplingSettings) -> int:
    """sampling.points of a configuration that is ``resolved``."""
    assert sampling.points != "auto"
    return sampling.points


def number_of_components(sampling: SamplingSettings) -> int:
    """sampling.components of a configuration that is ``resolved``."""
    assert sampling.components != "auto"
    return sampling.components


def norm_of(solver: SolverSettings) -> Literal["field", "energy"]:
    """solver.norm of a configuration that the problem has decided (``network.forms.for_problem``)."""
    assert solver.norm != "auto"
    return solver.norm


def mu_of(solver: SolverSettings) -> float:
    """solver.mu of a configuration that is ``resolved``."""
    assert solver.mu != "auto"
    return solver.mu


def uniform_fraction(sampling: SamplingSettings, field: bool) -> float:
    """The share of uniform points. field: the network represents u, in a domain with a bounded axis."""
    if sampling.method == "uniform":
        return 1.0
    if sampling.uniform_fraction != "auto":
        return sampling.uniform_fraction
    return UNIFORM_FOR_FIELDS if field and sampling.method == "density" else UNIFORM


def inflation(sampling: SamplingSettings) -> float:
    """The factor on the covariances of the fitted Gaussians, of a configuration that is ``resolved``."""
    return INFLATION if sampling.inflation == "auto" else sampling.inflation


def first_step(integrator: IntegratorSettings) -> float:
    """The size of the first step, or where the integrator chooses it, of the first attempt at it."""
    return TRIAL_STEP if integrator.initial_step == "auto" else integrator.initial_step


def explicit_pair(integrator: IntegratorSettings) -> str:
    """The Runge-Kutta pair of explicit steps."""
    return EXPLICIT_PAIR if integrator.method == "auto" else integrator.method
