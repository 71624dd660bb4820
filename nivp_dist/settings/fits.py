"""The settings of fits: of the initial condition in [fit], of refits in [restart] and [restart.fit]."""

from functools import partial
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from nivp_dist.settings.optimisers import adam_by_name, known_optimiser
from nivp_dist.settings.section import Section

Method = Literal["gauss_newton", "optimiser", "optimiser_then_gauss_newton"]
HeadTuning = Literal["auto"] | bool


class FitSettings(Section):
    """Fits of the network to the initial condition, and to the present solution in restarts."""

    # gauss_newton: regularised Gauss-Newton steps. optimiser: the minibatch steps of fit.optimiser, which are slower
    # and less accurate. optimiser_then_gauss_newton: one after the other. adam and adam_then_gauss_newton are other
    # names of the last two.
    method: Method = "gauss_newton"
    # Number of points of a round, over all devices; every round draws new ones.
    points: PositiveInt = 6000
    # Relative L2 error, measured on new points, that the fit of the initial condition has to reach.
    target: PositiveFloat = 5e-3
    # What a run does whose fit misses the target: end with an error, or continue with a warning.
    on_miss: Literal["error", "continue"] = "error"
    # The largest number of Gauss-Newton rounds. An initial fit that misses its target and still gains has four times as
    # many.
    iterations: PositiveInt = 100
    # Relative L2 error below which the fit stops before that.
    stop_at: PositiveFloat = 1e-6
    # Gauss-Newton: try shorter corrections as well, and take the best. The fit reaches smaller errors.
    line_search: bool = False
    # Gauss-Newton: the order of a correction in its length. 1: straight; higher orders follow the curvature of the
    # field, so that corrections can be longer, and reach far smaller errors in as many rounds (galerkin/taylor.py).
    order: int = Field(default=5, ge=1, le=8)
    # Name of the optimiser in optax, which has the default values of its other arguments (settings/optimisers.py).
    optimiser: str = "adam"
    # Optimiser: number of steps. By 10000 steps Adam reaches 2e-3 for heat_2d, 4e-3 for advection_2d, and 1e-3 for
    # wave_2d.
    steps: PositiveInt = 10_000
    # Optimiser: number of points of a step.
    batch: PositiveInt = 2000
    # Optimiser: learning rate of the first step; it decays as a cosine to a thousandth of it.
    learning_rate: PositiveFloat = 3e-3
    # Fit the time derivative of u together with u, so that the network can represent both. auto: for the problems
    # where this was measured to help (fitting/time_derivative_targets.py).
    time_derivative_targets: Literal["auto"] | bool = "auto"
    # Solve for the last layer by ridge regression towards its present values: after the last step of the optimiser,
    # and before its first, where this alone may meet the target and the optimiser is then left out. true: before and
    # after the rounds of Gauss-Newton too. auto: with the optimiser only.
    head_tuning: HeadTuning = "auto"
    # Ridge of that regression, relative to the trace of the Gram matrix of the last layer.
    head_ridge: PositiveFloat = 1e-6

    _names = model_validator(mode="before")(partial(adam_by_name, "fit"))
    _optimiser = field_validator("optimiser")(partial(known_optimiser, "fit"))


class RefitSettings(Section):
    """Settings of refits alone. Every key means what it means in [fit], and has the value that it has there by default.

    The other keys of [fit] concern the initial fit only (on_miss), or must be the same for all fits of a run
    (time_derivative_targets).
    """

    method: Method | None = None
    points: PositiveInt | None = None
    target: PositiveFloat | None = None
    iterations: PositiveInt | None = None
    stop_at: PositiveFloat | None = None
    line_search: bool | None = None
    order: int | None = Field(default=None, ge=1, le=8)
    optimiser: str | None = None
    steps: PositiveInt | None = None
    batch: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    head_tuning: HeadTuning | None = None
    head_ridge: PositiveFloat | None = None

    _names = model_validator(mode="before")(partial(adam_by_name, "restart.fit"))
    _optimiser = field_validator("optimiser")(partial(known_optimiser, "restart.fit"))


class RestartSettings(Section):
    """Refits: a new network is fitted to the present solution when the old one has become a bad one.

    The state of the run alone decides when, so that a repeated run makes the same decisions.
    """

    # Whether there are refits.
    enabled: bool = True
    # Refit when a velocity takes this many times the CG iterations that it took after the last fit.
    cg_growth: float = Field(default=4.0, gt=1.0)
    # Refit when the residual on new points is this many times as large as after the last fit, and above 1e-2.
    residual_growth: float = Field(default=20.0, gt=1.0)
    # Refit when the step size has become smaller by this factor since the last fit.
    step_shrink: float = Field(default=50.0, gt=1.0)
    # Refit at the times t = every, 2 every, 3 every and so on before integrator.t_end; steps end at these times.
    # Default: never for this reason.
    every: PositiveFloat | None = None
    # Refit after the first step at whose end this much time t has passed since the last fit; steps have the lengths
    # that they have without it. Default: never for this reason.
    max_age: PositiveFloat | None = None
    # A refit replaces the old network if its relative L2 error is below this, or below a tenth of the estimated error.
    bound: PositiveFloat = 5e-3
    # Accepted steps between two attempts, unless restart.every or restart.max_age asks for one.
    cooldown_steps: PositiveInt = 10
    # Settings of refits that differ from those of the initial fit, such as `method = "adam"` under [restart.fit].
    fit: RefitSettings = RefitSettings()

    def fits(self, initial: FitSettings) -> FitSettings:
        """The settings of refits, for those of the initial fit. A refit that misses its target is refused, and the run
        goes on."""
        return initial.model_copy(update=self.fit.model_dump(exclude_none=True) | {"on_miss": "continue"})
