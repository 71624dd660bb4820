"""The settings of a run: every key, its default and its meaning.

A configuration file has a section for each class below, and a command line sets a key as `--section.key value`. The
sections [fit] and [restart] stand in ``nivp_dist.settings.fits``.
Lengths of time t and of space are in the units of the problem. Relative L2 error means |u - u*| / |u*| with
|u|^2 = integral of u^2 over the domain (of all outputs together). Reading files, and turning a mistake into one line,
is in ``nivp_dist.settings.files``, what must hold between keys in ``nivp_dist.settings.rules``; nothing here reads a
file or imports jax.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from nivp_dist.settings import rules
from nivp_dist.settings.fits import FitSettings, RestartSettings
from nivp_dist.settings.section import Section

LARGEST_SEED = 2**63 - 1  # what numpy and jax both take

DType = Literal["float32", "float64"]
Precision = Literal["bfloat16", "tensorfloat32", "float32", "float64"]


class ProblemSettings(Section):
    """The PDE: a shipped problem by its name (`nivp problems` lists them), or a class in a Python file of your own."""

    # Name of a shipped problem.
    name: str | None = None
    # Python file that defines the problem; a relative path starts at the folder of the configuration file.
    file: str | None = None
    # Name of the class in that file; written `class` in the configuration.
    class_: str | None = Field(default=None, alias="class")
    # Parameters of the problem, name = value; the class says which there are.
    parameters: dict[str, Any] = {}

    _rules = model_validator(mode="after")(rules.one_source)


class NetworkSettings(Section):
    """The network u(x; theta): sinusoidal embedding, MLP, boundary factor (arXiv 2304.14994, section 4).

    A module of your own may take the place of embedding and MLP (`nivp guide first_problem`); width, depth, activation,
    trunk, frequencies and alpha then have no meaning, and are refused.
    """

    # Python file that defines a network of your own, a module of flax.linen; a relative path starts at the folder of
    # the configuration file.
    file: str | None = None
    # Name of the class in that file, or of a ready-made one, which are FourierResNet, Particles and Separable; written
    # `class` in the configuration.
    class_: str | None = Field(default=None, alias="class")
    # Parameters of that class, name = value.
    parameters: dict[str, Any] = {}
    # How u follows from the network N. direct: u = factor * N. exponential: u = factor * exp(quadratic form + N), with
    # the residual in u. log_density: log u = quadratic form + N, with the residual in log u. auto: log_density for
    # densities on a domain with a real axis and no wall, otherwise direct.
    form: Literal["auto", "direct", "exponential", "log_density"] = "auto"
    # Number L of frequencies of the embedding, 2^0 to 2^(L-1) times pi/2 per half width of an axis: one number, or one
    # for each axis. Default: 4; on real axes 0, which passes the coordinate on as it is.
    frequencies: NonNegativeInt | list[NonNegativeInt] | None = None
    # Exponent by which the embedding decays with the frequency: one number, or one for each frequency, whose number
    # is then the default of frequencies. The paper has 1; with it, fits of narrow pulses stall at an error of 1e-2.
    alpha: float | list[float] = 0.0
    # Neurons in a hidden layer. Small networks, whose matrix is solved directly, were more accurate than wide ones.
    width: PositiveInt = 20
    # Number of hidden layers.
    depth: PositiveInt = 3
    # Activation function of the hidden layers.
    activation: Literal["swish", "tanh", "gelu", "sin"] = "swish"
    # Problems with several outputs: one network for all of them, or one network for each.
    trunk: Literal["shared", "separate"] = "shared"
    # Units in which the outputs of a system are measured against each other, one for each; auto: network/balance.py.
    output_scales: Literal["auto"] | list[PositiveFloat] = "auto"
    # form = direct: use even features only, along the axes in which the problem declares u even.
    symmetry: bool = True
    # form = exponential on a box: add the Chebyshev polynomials T_1 to T_K of every coordinate to log u, K being this
    # number. Useful where the solution moves off a wall.
    additive: int = Field(default=0, ge=0)
    # form = log_density: number of quadratic forms whose exponentials are summed, for densities in distant parts. auto:
    # sampling.components. 0: none, with a network of your own that decays far out by itself; also with form =
    # exponential.
    gaussians: NonNegativeInt | Literal["auto"] = "auto"
    # Precision of the parameters and of the network.
    dtype: DType = "float64"

    _rules = model_validator(mode="after")(rules.network_keys_agree)


class SamplingSettings(Section):
    """Collocation points, at which the equation is to hold, and their importance weights."""

    # How points are drawn. uniform: uniformly in the domain. density: from Gaussians fitted to |u|. solution: from
    # |u| itself, by resampling candidates of the Gaussians. residual: where the equation is violated most, by
    # resampling candidates in the same way, at the cost of one more velocity a step. paths: at the ends of simulated
    # paths of particles, samples of u; for densities on the whole space whose problem defines drift. auto: solution
    # where the network represents log u, else density.
    method: Literal["auto", "uniform", "density", "solution", "residual", "paths"] = "density"
    # Number n of points, over all devices. auto: five times as many as the network has parameters, at least 2,000.
    points: PositiveInt | Literal["auto"] = "auto"
    # Draw up to 4 times as many points while the velocity satisfies the equation at its own points only
    # (monitoring/adaptation.py). Has no effect with method = 'solution' or 'paths'.
    adapt_points: bool = True
    # Share of the points that is drawn uniformly with the other methods, so that no part of the domain stays without.
    # auto: 0.5 with method = density for a field u in a domain with a bounded axis, which the network has to keep small
    # elsewhere; where method = auto resamples, 0.02 or 0.1 by the tails of the start (points/tails.py); else 0.1.
    # method = paths: share of the paths that reach into the tails of u, with larger noise and from larger Gaussians.
    uniform_fraction: Annotated[float, Field(gt=0.0, le=1.0)] | Literal["auto"] = "auto"
    # method = uniform: share of the points drawn uniformly from concentric boxes of all sizes about the centre,
    # without weights. For an OpenBox whose solution is carried outward from the middle, which uniform points miss.
    nested_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    # Number of Gaussians that are fitted to |u|. auto: by the initial density on the whole space, and recorded, or 1.
    components: PositiveInt | Literal["auto"] = 1
    # Factor on the covariance of the fitted Gaussians, so that points lie in the tails of u too. method = paths: for
    # the share uniform_fraction, at t = 0 and of the noise. auto: 1 or 1.5 where method = auto resamples, else 1.5.
    inflation: Annotated[float, Field(ge=1.0)] | Literal["auto"] = "auto"
    # method = residual or solution: number of candidates for each point; paths: for each start of a path.
    oversampling: PositiveInt = 10
    # method = paths: number of time steps of the paths from t = 0 to the time of a draw.
    path_steps: PositiveInt = 100
    # Accepted steps that use the same points.
    redraw_every: PositiveInt = 1
    # Points whose layer factors a device holds at once; 0: all of them. With fewer, factors are made again for each
    # product of CG. auto: as many as fit into a quarter of the device's memory.
    chunk: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"

    _rules = model_validator(mode="after")(rules.sampling_keys_agree)


class SolverSettings(Section):
    """The linear system (M + mu trace(M) I) v = F for the velocity v = d theta / dt."""

    # pcg and dual_pcg: conjugate gradients with a Nystrom preconditioner, for the p parameters or for the n points.
    # primal and dual: Cholesky factorisation of the p by p or n by n matrix. auto: the one that needs the fewest
    # operations.
    method: Literal["auto", "pcg", "dual_pcg", "primal", "dual"] = "auto"
    # Regularisation, relative to the trace of M. Smaller values leave less residual, and make the velocity larger in
    # directions that the points hardly determine, so that steps become shorter. auto: by accuracy and parameters.
    mu: PositiveFloat | Literal["auto"] = 1e-9
    # Scale the parameters so that every layer has the same share of the trace of M; for networks in which the
    # derivatives of one layer are far larger than those of the others.
    equal_shares: bool = False
    # The norm in which the residual of the velocity is least: that of the field, or that of the energy that the problem
    # defines, in which waves are stable; it needs method = primal. auto: that, if there is one and method allows it.
    norm: Literal["auto", "field", "energy"] = "field"
    # Raise mu while steps are rejected or their size collapses, and lower it again afterwards
    # (monitoring/adaptation.py).
    adapt_mu: bool = True
    # Conjugate gradients: relative residual at which they stop. auto: when the rate J v is accurate to integrator.rtol
    # by an estimate (pcg), or to a tenth of that by the residual (dual_pcg); with implicit steps, as the step needs.
    rtol: PositiveFloat | Literal["auto"] = "auto"
    # Conjugate gradients: the largest number of iterations for one velocity or correction.
    max_iterations: PositiveInt = 300
    # Rank of the Nystrom preconditioner; adaptive: doubled while that saves iterations, up to max_rank.
    rank: PositiveInt | Literal["adaptive"] = "adaptive"
    # The largest rank of the Nystrom preconditioner.
    max_rank: PositiveInt = 2000
    # Precision of products with the Jacobian. With conjugate gradients it is that of search directions alone, while
    # residuals are in float64, so that it does not limit the accuracy. bfloat16 and tensorfloat32 need conjugate
    # gradients, and a mu of 1e-6 or more.
    precision: Precision = "float64"
    # method = pcg: split the sketch and the vectors of the iteration over the devices, for p in the millions.
    shard_vectors: bool = False

    _rules = model_validator(mode="after")(rules.solver_keys_agree)


class IntegratorSettings(Section):
    """The method in time, with an error estimate and step-size control."""

    # Explicit Runge-Kutta pairs of orders 2(1), 3(2), 5(4) and 5(4); rk23 means bogacki_shampine, rk45 dormand_prince.
    # Implicit steps, where stability bounds explicit ones: bdf, of orders 1 to 4, for diffusion and fourth derivatives;
    # sdirk, of orders 3(2), for dispersion. auto: cash_karp, or one of these two where that costs less.
    method: Literal["heun", "bogacki_shampine", "cash_karp", "dormand_prince", "bdf", "sdirk", "auto"] = "cash_karp"
    # method = bdf: the largest order. Orders 3 and 4 are unstable where solutions oscillate fast without being damped
    # (waves, dispersion): set 2 there.
    max_order: int = Field(default=4, ge=1, le=4)
    # Tolerated error of one step: the L2 norm of its error in u, relative to u.
    rtol: PositiveFloat = 1e-4
    # Tolerated error of one step where u is so small that rtol would ask for less: the root mean square over the
    # domain, in the units of u (of a system: those of network.output_scales). Errors of fits are relative to atol over
    # rtol where u is smaller than that. Default: atol / rtol is a millionth of |u0|; where u0 = 0 it is initial_step
    # times the largest |L[u0]| of the run. Not for networks that represent log u.
    atol: PositiveFloat | None = None
    # Time at which the run starts, with the initial condition of the problem.
    t_start: float = 0.0
    # Time at which the run ends.
    t_end: float = 1.0
    # Size of the first step. "auto": 0.01 is tried, and its error decides.
    initial_step: PositiveFloat | Literal["auto"] = "auto"
    # A run that needs a shorter step than this fails.
    min_step: PositiveFloat = 1e-7
    # The longest step.
    max_step: PositiveFloat = 1e6
    # A run that needs more steps than this fails.
    max_steps: PositiveInt = 100_000

    _names = field_validator("method", mode="before")(rules.runge_kutta_method)
    _rules = model_validator(mode="after")(rules.times_and_steps_are_ordered)

    @property
    def implicit(self) -> bool:
        """Whether all steps are implicit."""
        return self.method in ("bdf", "sdirk")


class CheckpointSettings(Section):
    """When the state of the run is saved.

    If neither interval is given, the run measures how long a save takes, and saves so often that this takes a hundredth
    of its time, but at least every 30 minutes. If both are given, the first that is over counts.
    """

    # Largest number of transitions (steps, rounds of a fit, outputs) between two checkpoints.
    every_steps: PositiveInt | None = None
    # Longest time between two checkpoints, in minutes of wall time.
    every_minutes: PositiveFloat | None = None
    # Number of checkpoints that are kept; more than one, because the newest may turn out to be damaged.
    keep: int = Field(default=3, ge=2)


class OutputSettings(Section):
    """What the run writes for the reader."""

    # The run directory, new or empty. Default: runs/NAME-NUMBER, with the next free number.
    directory: str | None = None
    # Times t at which the solution is stored and compared with the reference, besides integrator.t_start and t_end.
    times: list[float] = []
    # The same at the multiples of this time: at every, 2 every, 3 every and so on. Default: at none.
    every: PositiveFloat | None = None
    # Number of accepted steps from one measurement of the spectrum of M to the next, beside those at output times
    # (guide: method). auto: so many that they take about a fiftieth of the time of the steps. 0: none at all. With
    # implicit steps there are none, because M is not formed.
    spectrum_every: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    # Number of points on which it is compared with the reference.
    evaluation_points: PositiveInt = 20_000
    # Draw pictures when the run has finished.
    plots: bool = True


class ClusterSettings(Section):
    """The processes of a run. But for the last bits, which `reproducible` decides, no key here changes a result."""

    # The same bits on 1, 2, 4, ..., 64 devices, of any number of processes.
    reproducible: bool = False
    # How the processes tell each other their decisions: MPI, or the coordination service of JAX. auto: MPI where the
    # processes were started by it.
    control: Literal["auto", "mpi", "coordination"] = "auto"
    # Seconds within which all processes have to start.
    startup_seconds: float = Field(default=120.0, ge=1.0, le=3600.0)
    # Minutes after which a process that is still busy with one command is taken for stuck, and the run ended.
    deadline_minutes: PositiveFloat = 30.0
    # Seconds after which a host whose system does not answer is taken for lost, and the run ended. How busy a process
    # is does not matter.
    silence_seconds: float = Field(default=30.0, ge=1.0, le=86_400.0)
    # Seconds that the other processes wait at the end for process 0, which draws the pictures.
    shutdown_seconds: float = Field(default=600.0, ge=1.0)
    # Directory in which compiled programs are kept for later runs. off: none. auto: ~/.cache/nivp, of which a run
    # keeps the latest gigabyte when it starts.
    compilation_cache: str = "auto"


class CallbackSettings(Section):
    """Classes that look at the run while it goes (`nivp guide python`). No key here changes a result."""

    # Python file with classes of your own; a relative path starts at the folder of the configuration file.
    file: str | None = None
    # Names of the classes, in the order in which they are called: of that file, or of the ready-made ones, which are
    # Conserved, LivePicture, Probes and SteadyState. An empty list switches all of them off.
    classes: list[str] | None = None
    # Parameters of the classes: a table for each, by its name.
    parameters: dict[str, dict[str, Any]] = {}

    _rules = model_validator(mode="after")(rules.callbacks_are_named)


class Config(Section):
    """A whole configuration: the sections above, and the keys that stand before them in a file."""

    problem: ProblemSettings
    # Relative L2 error to aim at, no bound. solver.mu, integrator.rtol, integrator.method, fit.target, fit.stop_at,
    # fit.line_search and restart.bound follow from it where they are not set (nivp_dist/settings/rules.py).
    accuracy: float | None = Field(default=None, gt=0.0, lt=1.0)
    network: NetworkSettings = NetworkSettings()
    sampling: SamplingSettings = SamplingSettings()
    solver: SolverSettings = SolverSettings()
    integrator: IntegratorSettings = IntegratorSettings()
    fit: FitSettings = FitSettings()
    restart: RestartSettings = RestartSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    output: OutputSettings = OutputSettings()
    cluster: ClusterSettings = ClusterSettings()
    callbacks: CallbackSettings = CallbackSettings()
    # Seed of all random numbers of the run.
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    # Number of devices to use; 0: all of them.
    devices: int = Field(default=0, ge=0)

    _filled = model_validator(mode="before")(rules.fill_in_from_accuracy)
    _rules = model_validator(mode="after")(rules.sections_agree)
