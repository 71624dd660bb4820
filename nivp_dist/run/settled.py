"""What a run finds out about its initial condition before its configuration is recorded."""

from typing import Any

import jax

from nivp_dist.network.forms import form_of
from nivp_dist.points.components import parts_of, population_of
from nivp_dist.points.tails import stays_quadratic
from nivp_dist.problems.base import Problem
from nivp_dist.settings.automatic import IN_TAILS, points_follow_density, with_found
from nivp_dist.settings.model import Config


def settled(config: Config, problem: Problem) -> Config:
    """The configuration with what is ``found`` in place of "auto"."""
    return with_found(config, found(config, problem))


def found(config: Config, problem: Problem) -> dict[str, dict[str, Any]]:
    """Values for settings that are "auto" and depend on the initial density: section -> key -> value.

    sampling.components: a number. network.gaussians: 1, where points come from several Gaussians that are no parts of
    their own. sampling.uniform_fraction and inflation: by the tails, where points are drawn from u itself.
    """
    log_density = form_of(config.network, problem) == "log_density"
    if not log_density or problem.domain.bounded_axes:
        return {"sampling": {"components": 1}} if config.sampling.components == "auto" else {}
    sampling, gaussians = config.sampling, config.network.gaussians
    count = None if sampling.components == "auto" else sampling.components
    if count is None and gaussians != "auto":
        count = max(gaussians, 1)
    follows = points_follow_density(sampling, log_density)
    spread = [key for key in ("uniform_fraction", "inflation") if follows and getattr(sampling, key) == "auto"]
    if count is not None and not spread:
        return {"sampling": {"components": count}}
    with jax.debug_nans(False), jax.debug_infs(False):  # log u0 = -inf is a value here
        return _of_density(config, problem, count, spread)


def _of_density(config: Config, problem: Problem, count: int | None, spread: list[str]) -> dict[str, dict[str, Any]]:
    population = population_of(problem, config.seed)
    if population is None:
        return {"sampling": {"components": count or 1} | {key: IN_TAILS[False][key] for key in spread}}
    parts = parts_of(problem, population, config.seed, count)
    sampling: dict[str, Any] = {"components": len(parts.mixture.weights)}
    if spread:
        start = parts.mixture, config.seed, config.integrator.t_start
        gaussian = parts.exact and parts.distinct and stays_quadratic(problem, *start)
        sampling |= {key: IN_TAILS[gaussian][key] for key in spread}
    single = config.network.gaussians == "auto" and count is None and not parts.distinct
    return {"sampling": sampling} | ({"network": {"gaussians": 1}} if single else {})
