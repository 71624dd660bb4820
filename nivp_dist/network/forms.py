"""What the network represents, u or log u, and the settings that go with it."""

from nivp_dist.errors import InputError
from nivp_dist.network.embedding import check_frequencies
from nivp_dist.network.field import number_of_gaussians
from nivp_dist.problems.domains import Domain
from nivp_dist.settings.model import Config, NetworkSettings


def form_of(settings: NetworkSettings, problem) -> str:
    """network.form of a problem: "direct", "exponential" or "log_density"."""
    if settings.form != "auto":
        return settings.form
    log_density = problem.density and _has_logarithm(problem.domain) and not callable(problem.wall_data)
    return "log_density" if log_density else "direct"


def _has_logarithm(domain: Domain) -> bool:
    """Whether log u is represented well: by a quadratic form far out, and finite everywhere."""
    return not domain.bounded and not domain.has_zeros


def check(settings: NetworkSettings, problem, form: str) -> None:
    """Raises InputError if the settings do not suit the form, or the domain of the problem."""
    domain = problem.domain
    if form == "log_density" and not (_has_logarithm(domain) and problem.outputs == 1):
        raise InputError(
            "network.form = 'log_density' needs a problem with one output on the WholeSpace, or with a Real axis and "
            "u = 0 at no wall"
        )
    if form != "direct" and callable(problem.wall_data):
        raise InputError(f"network.form = '{form}' and wall_data exclude each other: leave out network.form")
    if settings.additive and not (form == "exponential" and len(domain.axes_of("wall")) == domain.dimension):
        raise InputError(
            f"network.additive = {settings.additive} needs network.form = 'exponential' on a box with walls"
        )
    if number_of_gaussians(settings) > 1 and form != "log_density":
        raise InputError(f"network.gaussians = {settings.gaussians} needs a field log u: network.form = 'log_density'")
    if number_of_gaussians(settings) == 0 and (form == "direct" or settings.additive):
        other = "network.additive = 0" if settings.additive else "network.form = 'log_density' or 'exponential'"
        raise InputError(f"network.gaussians = 0 needs {other}: leave it out, or set both")
    if settings.class_ is None:
        check_frequencies(settings, domain)


def for_problem(config: Config, problem) -> Config:
    """The configuration with what the problem decides before its network is built, in place of 'auto'.

    network.gaussians: a number, that of the components of the points. solver.norm: that of the energy which the problem
    defines, where the solver can be the direct one that it needs; with solver.method = "primal" then.
    """
    network, solver, components = config.network, config.solver, config.sampling.components
    form = form_of(network, problem)
    if network.gaussians == "auto":
        count = components if form == "log_density" and components != "auto" else 1
        network = network.model_copy(update={"gaussians": count})
    if solver.norm == "auto":
        possible = solver.method in ("auto", "primal") and solver.precision == "float64"
        energy = callable(problem.energy) and form == "direct" and possible and not config.integrator.implicit
        chosen = {"norm": "energy", "method": "primal"} if energy else {"norm": "field"}
        solver = solver.model_copy(update=chosen)
    return config.model_copy(update={"network": network, "solver": solver})
