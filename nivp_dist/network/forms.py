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


def with_gaussians(config: Config, problem) -> Config:
    """The configuration with a number in place of network.gaussians = 'auto': that of the components of the points."""
    settings = config.network
    if settings.gaussians != "auto":
        return config
    count = config.sampling.components if form_of(settings, problem) == "log_density" else 1
    return config.model_copy(update={"network": settings.model_copy(update={"gaussians": count})})
