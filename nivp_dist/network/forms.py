"""What the network represents, u or log u, and the settings that go with it."""

from nivp_dist.errors import InputError
from nivp_dist.network.field import number_of_frequencies, number_of_gaussians
from nivp_dist.settings.model import Config, NetworkSettings


def form_of(settings: NetworkSettings, problem) -> str:
    """network.form of a problem: "direct", "exponential" or "log_density"."""
    if settings.form != "auto":
        return settings.form
    return "log_density" if problem.density and not problem.domain.bounded else "direct"


def check(settings: NetworkSettings, problem, form: str) -> None:
    """Raises InputError if the settings do not suit the form, or the domain of the problem."""
    domain = problem.domain
    if form == "log_density" and (domain.bounded or problem.outputs != 1):
        raise InputError("network.form = 'log_density' needs a problem on the WholeSpace with one output")
    if settings.additive and not (form == "exponential" and domain.walls == "zero"):
        raise InputError(
            f"network.additive = {settings.additive} needs network.form = 'exponential' on a box with walls"
        )
    if number_of_gaussians(settings) > 1 and form != "log_density":
        raise InputError(f"network.gaussians = {settings.gaussians} needs a field log u: network.form = 'log_density'")
    if domain.walls == "periodic" and number_of_frequencies(settings, domain) == 0:
        raise InputError("network.frequencies = 0 on a periodic box leaves the network without inputs: set at least 1")


def with_gaussians(config: Config, problem) -> Config:
    """The configuration with a number in place of network.gaussians = 'auto': that of the components of the points."""
    settings = config.network
    if settings.gaussians != "auto":
        return config
    count = config.sampling.components if form_of(settings, problem) == "log_density" else 1
    return config.model_copy(update={"network": settings.model_copy(update={"gaussians": count})})
