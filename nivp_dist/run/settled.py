"""What a run finds out about its initial condition before its configuration is recorded."""

import jax

from nivp_dist.network.forms import form_of
from nivp_dist.points.components import Parts, parts_of
from nivp_dist.problems.base import Problem
from nivp_dist.settings.model import Config


def settled(config: Config, problem: Problem) -> Config:
    """The configuration with a number in place of sampling.components = "auto", and of network.gaussians = "auto" where
    points come from several Gaussians that are no parts of their own, in each of which log u is a quadratic form.
    """
    if config.sampling.components != "auto":
        return config
    parts = _parts(config, problem)
    network = config.network
    if network.gaussians == "auto" and not parts.distinct:
        network = network.model_copy(update={"gaussians": 1})
    sampling = config.sampling.model_copy(update={"components": parts.count})
    return config.model_copy(update={"sampling": sampling, "network": network})


def _parts(config: Config, problem: Problem) -> Parts:
    gaussians = config.network.gaussians
    if gaussians != "auto":
        return Parts(max(gaussians, 1), True)
    if form_of(config.network, problem) != "log_density" or problem.domain.bounded_axes:
        return Parts(1, True)
    with jax.debug_nans(False), jax.debug_infs(False):  # log u0 = -inf is a value here
        return parts_of(problem, config.seed)
