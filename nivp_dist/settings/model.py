"""The settings of a run: one tree of typed, frozen models. Every key, its default and its meaning.

Reading TOML, overriding from the command line and turning mistakes into one clear line is in
``nivp_dist.settings.files``; nothing here touches a disk or imports jax.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

LEAST_MU, LARGEST_MU = 1e-13, 1e-8  # below the first, rounding in float64 decides; above, little moves any more


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ProblemSettings(Section):
    """Which PDE: a name from `nivp problems`, or a class in a Python file of your own."""

    name: str | None = None
    file: str | None = None
    class_: str | None = Field(None, alias="class")
    parameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_source(self):
        if (self.name is None) == (self.file is None):
            raise ValueError("set either problem.name or problem.file (with problem.class)")
        if self.file is not None and self.class_ is None:
            raise ValueError("problem.file needs problem.class, the name of the class in that file")
        return self


class NetworkSettings(Section):
    """u(x; theta): sinusoidal embedding, MLP, boundary factor (method: arXiv 2304.14994, sec. 4)."""

    # direct: u = factor * N. exponential: u = factor * exp(quadratic form + N), residual in u.
    # log_density: log u = quadratic form + N, residual in log u. auto: log_density for densities on R^d, else direct.
    form: Literal["auto", "direct", "exponential", "log_density"] = "auto"
    frequencies: int | None = Field(None, ge=0)  # L; default 4 on boxes, 0 (plain coordinates) on the whole space
    # Exponent of the embedding's decay, one number or one per frequency. Published is 1; with it fits of narrow pulses
    # stall at 1e-2.
    alpha: float | list[float] = 0.0
    width: PositiveInt = 20  # small networks, solved directly, beat wider ones that are not
    depth: PositiveInt = 3  # hidden layers
    activation: Literal["swish", "tanh", "gelu", "sin"] = "swish"
    trunk: Literal["shared", "separate"] = "shared"  # several outputs: one trunk, or one network each
    output_scales: Literal["auto"] | list[PositiveFloat] = "auto"  # units of several outputs, see balance.py
    symmetry: bool = True  # direct: even features only along axes in which the problem says that u is even
    # exponential on a box: log u has Chebyshev polynomials T_1 .. T_K of every coordinate too, for walls that u leaves.
    additive: int = Field(0, ge=0)
    gaussians: PositiveInt = 1  # log_density: quadratic forms whose exponentials are summed, for parts far apart
    dtype: Literal["float32", "float64"] = "float64"

    @model_validator(mode="after")
    def _one_alpha_per_frequency(self):
        if isinstance(self.alpha, list) and len(self.alpha) != self.frequencies:
            raise ValueError(
                f"network.alpha has {len(self.alpha)} entries for {self.frequencies} frequencies: give one each, "
                "or one number"
            )
        return self


class SamplingSettings(Section):
    """Collocation points and their importance weights."""

    # density: from Gaussians fitted to |u|. solution: candidates of these, resampled to follow |u| itself. residual:
    # candidates again, where the equation is met worst.
    method: Literal["uniform", "density", "solution", "residual"] = "density"
    points: PositiveInt = 4000  # n, over all devices
    # Up to 4 times as many where a velocity fits its own points only, see damping.py; not with method = 'solution'.
    adapt_points: bool = True
    uniform_fraction: float = Field(0.1, gt=0.0, le=1.0)  # share drawn uniformly, so that nowhere is forgotten
    # uniform: share of the points that are uniform in boxes of all sizes about the centre, and counted as drawn. For an
    # OpenBox that is filled by what comes from its middle, which uniform points in many dimensions never see.
    nested_fraction: float = Field(0.0, ge=0.0, lt=1.0)
    components: PositiveInt = 1  # Gaussians fitted to |u|
    inflation: float = Field(1.5, ge=1.0)  # covariance of the fitted Gaussians is multiplied by this
    oversampling: PositiveInt = 10  # residual, solution: candidates a point
    redraw_every: PositiveInt = 1  # accepted steps between two draws
    chunk: int = Field(0, ge=0)  # points per device held at once; 0: all of them

    @model_validator(mode="after")
    def _selections_are_new(self):
        if self.method in ("residual", "solution") and self.redraw_every > 1:
            raise ValueError(f"sampling.redraw_every must be 1 with sampling.method = '{self.method}'")
        return self

    @model_validator(mode="after")
    def _nested_are_uniform(self):
        if self.nested_fraction > 0 and self.method != "uniform":
            raise ValueError(
                "sampling.nested_fraction is for sampling.method = 'uniform', "
                f"and it is {self.method!r}: set both, or neither"
            )
        return self


class SolverSettings(Section):
    """(M + mu I) v = F."""

    # CG or Cholesky, for the parameters (pcg, primal) or for the samples (dual_pcg, dual).
    method: Literal["auto", "pcg", "dual_pcg", "primal", "dual"] = "auto"
    mu: PositiveFloat = 1e-9  # relative to the trace of M
    equal_shares: bool = False  # of the trace, for all layers: where the derivatives of one outgrow the rest
    adapt_mu: bool = True  # raise it while steps are rejected or collapse, see damping.py
    # CG: |residual| / |right-hand side|. auto: until the velocity's rate J v is right to integrator.rtol, by an
    # estimate (pcg), or to a tenth of that, by the residual (dual_pcg).
    rtol: PositiveFloat | Literal["auto"] = "auto"
    max_iterations: PositiveInt = 300
    rank: PositiveInt | Literal["adaptive"] = "adaptive"  # of the Nystrom approximation that CG is preconditioned with
    max_rank: PositiveInt = 2000
    # Of Jacobian products: with CG of those for search directions alone, so that it bounds no accuracy; the two coarse
    # ones are for CG, and want a mu of 1e-6 or more.
    precision: Literal["bfloat16", "tensorfloat32", "float32", "float64"] = "float64"
    shard_vectors: bool = False  # pcg: a part of the sketch and of CG's vectors on each device, for p in the millions

    @model_validator(mode="after")
    def _for_cg_alone(self):
        if self.shard_vectors and self.method != "pcg":
            raise ValueError(
                f"solver.shard_vectors is for solver.method = 'pcg', and it is {self.method!r}: set both, or neither"
            )
        if self.precision in ("bfloat16", "tensorfloat32") and self.method not in ("pcg", "dual_pcg"):
            raise ValueError(
                f"solver.precision = {self.precision!r} is for solver.method = 'pcg' or 'dual_pcg' (residuals are "
                f"in float64 there), and the method is {self.method!r}: set that too, or 'float32'"
            )
        return self


class IntegratorSettings(Section):
    method: Literal["heun", "bogacki_shampine", "cash_karp", "dormand_prince"] = "cash_karp"
    rtol: PositiveFloat = 1e-4  # relative error of one step, see README: errors of a step
    t_end: PositiveFloat = 1.0
    initial_step: PositiveFloat = 1e-2
    min_step: PositiveFloat = 1e-7
    max_step: PositiveFloat = 1e6
    max_steps: PositiveInt = 100_000


class FitSettings(Section):
    """The initial condition, and the refits of restarts."""

    method: Literal["gauss_newton", "adam", "adam_then_gauss_newton"] = "gauss_newton"
    points: PositiveInt = 6000  # drawn afresh every round
    target: PositiveFloat = 5e-3  # relative L2 error on fresh points
    on_miss: Literal["error", "continue"] = "error"
    iterations: PositiveInt = 100  # Gauss-Newton, at most
    stop_at: PositiveFloat = 1e-6  # stop early below this relative error
    line_search: bool = False  # Gauss-Newton: shorter steps too; fits deeper, which is not always a better start
    adam_steps: PositiveInt = 5000
    adam_batch: PositiveInt = 2000
    learning_rate: PositiveFloat = 3e-3
    time_derivative_targets: Literal["auto"] | bool = (
        "auto"  # fit the time derivative along: where fitting/time_derivative_targets.py says it pays
    )
    head_tuning: bool = True  # after Adam: ridge regression of the last layer, towards the present head
    head_ridge: PositiveFloat = 1e-6  # relative to the trace of the head's Gram matrix


class RestartSettings(Section):
    """Refits of a fresh network to the present solution, decided by the state of the run alone."""

    enabled: bool = True
    cg_growth: float = Field(4.0, gt=1.0)  # refit when CG needs this many times its count after the last refit
    residual_growth: float = Field(20.0, gt=1.0)  # or the fresh-point residual this many times its level then
    step_shrink: float = Field(50.0, gt=1.0)  # or h has fallen by this factor
    every: PositiveFloat | None = None  # or this much time t has passed
    bound: PositiveFloat = 5e-3  # a refit is accepted below this relative L2 error, or a tenth of the estimate
    cooldown_steps: PositiveInt = 10  # accepted steps between two attempts


class CheckpointSettings(Section):
    every_steps: PositiveInt = 10
    every_minutes: PositiveFloat = 10.0  # whichever comes first
    keep: int = Field(3, ge=2)  # the newest may turn out to be damaged


class OutputSettings(Section):
    directory: str | None = None  # default: runs/NAME-NUMBER, always a new one
    times: list[float] = []  # besides 0 and t_end
    evaluation_points: PositiveInt = 20_000
    plots: bool = True


class ClusterSettings(Section):
    """Several processes of one run. Decides no result."""

    control: Literal["auto", "mpi", "coordination"] = "auto"  # how decisions travel: auto is MPI where it started us
    startup_seconds: float = Field(120.0, ge=1.0, le=3600.0)  # within which all processes must have come
    deadline_minutes: PositiveFloat = 30.0  # a process that takes longer over one command is stuck: the run ends
    compilation_cache: str = "auto"  # "auto": ~/.cache/nivp, for several processes; "off"; or a directory


def by_accuracy(accuracy: float) -> dict[str, dict[str, float]]:
    """What follows from the relative L2 error that is asked for, where it is not set: section -> key -> value.

    mu goes with it, not with its square: a smaller one leaves less residual, but velocities so large that steps do not
    carry (advection, asked for 1e-4: 1.1e-2 with mu = 1e-12, 8.5e-4 with 1e-11; README: what mu trades)."""
    mu = 1e-7 * accuracy
    return {
        "solver": {"mu": min(max(mu, LEAST_MU), LARGEST_MU)},
        "integrator": {"rtol": accuracy / 20},
        "fit": {"target": 5 * accuracy, "stop_at": accuracy / 100, "line_search": True},
        "restart": {"bound": accuracy},
    }


class Config(Section):
    """Everything that decides the result of a run."""

    problem: ProblemSettings
    accuracy: float | None = Field(None, gt=0.0, lt=1.0)
    network: NetworkSettings = NetworkSettings()
    sampling: SamplingSettings = SamplingSettings()
    solver: SolverSettings = SolverSettings()
    integrator: IntegratorSettings = IntegratorSettings()
    fit: FitSettings = FitSettings()
    restart: RestartSettings = RestartSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    output: OutputSettings = OutputSettings()
    cluster: ClusterSettings = ClusterSettings()
    seed: int = Field(0, ge=0)
    devices: int = Field(0, ge=0)  # 0: all there are

    @model_validator(mode="before")
    @classmethod
    def _follow_accuracy(cls, data):
        accuracy = data.get("accuracy") if isinstance(data, dict) else None
        if not isinstance(accuracy, float) or not 0 < accuracy < 1:
            return data  # nothing to follow, or a mistake that validation names
        filled = dict(data)
        for section, values in by_accuracy(accuracy).items():
            given = filled.get(section, {})
            if isinstance(given, dict):
                filled[section] = values | given
        return filled

    @model_validator(mode="after")
    def _a_component_a_gaussian(self):
        if self.network.gaussians not in (1, self.sampling.components):
            raise ValueError(
                f"network.gaussians = {self.network.gaussians}, but sampling.components = {self.sampling.components}: "
                "the first start from the second, set both alike"
            )
        return self

    @model_validator(mode="after")
    def _times_in_range(self):
        late = [t for t in self.output.times if not 0.0 <= t <= self.integrator.t_end]
        if late:
            raise ValueError(f"output.times must lie in [0, integrator.t_end = {self.integrator.t_end}], got {late}")
        return self
