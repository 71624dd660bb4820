"""Whether the fitted initial condition has the accuracy that a run was asked for, in the norm of the errors it reports.

A fit has a norm of its own: that of log u for a density, that of balanced outputs for a system. A narrow part of a
density that hardly counts there may be most of the error at the first output.
"""

from nivp_dist.errors import RunFailed
from nivp_dist.monitoring.advice import remedy, with_values
from nivp_dist.monitoring.evaluation import Scorer
from nivp_dist.run.state import State
from nivp_dist.settings.model import Config


def judge(config: Config, scorer: Scorer, state: State, error: float) -> list[str]:
    """Warnings about a start whose fit has ended with a relative error in its own norm.

    Raises RunFailed if the reported error is above fit.target, with an accuracy and fit.on_miss = "error".
    """
    settings, accuracy = config.fit, config.accuracy
    missed = [f"the initial fit missed fit.target = {settings.target:g}"] if error > settings.target else []
    if accuracy is None:
        return missed
    reported = scorer.error_at_start(state.theta, state.density, state.t)
    if not reported > accuracy:  # nor where u0 is zero, and the error NaN
        return missed
    components = ", sampling.components" if scorer.is_density else ""
    line = (
        f"the initial condition has a relative L2 error of {reported:.2e}, accuracy is {accuracy:.0e}: "
        f"{remedy(settings, 'fit', reported / accuracy)}{components}"
    )
    line = with_values(line, config)
    if reported > settings.target and settings.on_miss == "error":
        raise RunFailed(f"{line}, or set fit.on_miss = 'continue'")
    return [*missed, line]
