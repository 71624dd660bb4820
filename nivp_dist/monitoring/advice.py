"""What a run advises where something falls short: words that several of its messages share."""

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from nivp_dist.settings.fits import FitSettings
from nivp_dist.settings.model import Config

# More steps of an optimiser are advised only where its fit misses the goal by less than this factor.
MOST_MORE_STEPS = 10.0
# The mass of an initial density that may be missing without a word. Points that see less than that still fit the rest.
LEAST_UNSEEN = 0.02
KEY = re.compile(r"\b(?:network|sampling|solver|integrator|fit|restart)(?:\.fit)?\.[a-z_]+\b(?! =)")


def with_values(message: str, config: Config, **now: float) -> str:
    """A message with the present values of the settings that it names, where these are numbers.

    config: of the run, resolved. now: section_key -> value, of settings that the run has changed since.
    """
    settings = config.model_dump()
    keys = dict.fromkeys(KEY.findall(message))
    values = {key: now.get(key.replace(".", "_"), functools.reduce(_entry, key.split("."), settings)) for key in keys}
    numbers = [f"{key} = {value:g}" for key, value in values.items() if type(value) in (int, float)]
    return f"{message} (now {', '.join(numbers)})" if numbers else message


def _entry(table, key: str):
    """The value of a key of a table; None of what is none, or has no such key."""
    return table.get(key) if isinstance(table, dict) else None


def remedy(settings: FitSettings, section: str, factor: float) -> str:
    """What makes the error of such a fit smaller by a factor, in words. section: of the settings, for the message.

    Measured with Adam for heat_2d and advection_2d: errors of 6.3e-3 and 6.7e-3 after 5000 steps, 2.2e-3 and 3.6e-3
    after 10000, 1.1e-3 and 1.6e-3 after 20000. They fall about as one over the number of steps.
    """
    if settings.method != "optimiser":
        return f"raise network.width, {section}.iterations or {section}.points"
    steps = float(f"{1.2 * factor * settings.steps:.1e}")  # two digits
    more = f"raise {section}.steps to about {steps:.0f}, or " if factor < MOST_MORE_STEPS else ""
    return f"{more}set {section}.method = 'optimiser_then_gauss_newton' or 'gauss_newton', which reach smaller errors"


def refit_outcome(config: Config, settings: FitSettings, error: float, bound: float, accepted: bool) -> str:
    """What became of a refit with these settings, its relative error, and the bound on that."""
    outcome = f"refit reached a relative error of {error:.2e}: "
    if accepted:
        return f"{outcome}accepted"
    return with_values(
        f"{outcome}refused, the bound is {bound:.2g}; {remedy(settings, 'restart.fit', error / bound)}", config
    )


def unseen_mass(mass: float, error: float) -> str | None:
    """A message if points see another mass than one in the start of a probability density, by more than their noise."""
    if abs(mass - 1.0) <= max(LEAST_UNSEEN, 5 * error):
        return None
    if mass > 1.0:  # points can miss a part of the mass, and not see more than there is
        return (
            f"mass: the integral of initial(x) is {mass:.3g}, and that of a probability density is 1: divide by it; "
            f"until then the mass of u is compared with {mass:.3g}"
        )
    return (
        f"points: they see a mass of {mass:.2g} of initial(x), which should be 1: parts of it were not found, or "
        "initial(x) is not normalised; raise sampling.components, or give the problem initial_samples(key, n)"
    )


class Verdict(NamedTuple):
    """Whether a run holds its accuracy, as far as is known, and that in words."""

    held: bool
    message: str


def verdict(accuracy: float | None, outputs: Mapping[float, Mapping]) -> Verdict | None:
    """Of a run that has ended; None where no accuracy was asked for.

    outputs: time -> its entry in the summary: "relative_l2", the error against the reference or None, and "estimate".
    """
    if accuracy is None:
        return None
    known = [(entry["relative_l2"], t) for t, entry in outputs.items() if entry["relative_l2"] is not None]
    estimates = [(entry["estimate"], t) for t, entry in outputs.items() if entry["estimate"] is not None]
    if not (found := known or estimates):
        return None
    asked, (error, t) = f"accuracy = {accuracy:g}", max(found)
    held = error <= accuracy
    if known:
        where = f"the largest error against the reference is {error:.2e}, at t = {t:g}"
        mend = "ask for a smaller accuracy, or raise network.width"
        return Verdict(
            held, f"{asked} is held at all outputs: {where}" if held else f"{asked} is missed: {where}; {mend}"
        )
    where = f"the estimated error is {error:.2e} at t = {t:g}"
    if held:
        return Verdict(held, f"{asked} is held, as far as the run can tell: {where}")
    doubt = "which is mostly an upper bound: compare with a run of a smaller accuracy"
    return Verdict(held, f"{asked} is not known to be held: {where}, {doubt}")
