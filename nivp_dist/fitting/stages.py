"""The stages of a fit: which ones there are, in which order, and how many rounds they take."""

from nivp_dist.errors import InputError
from nivp_dist.fitting.optimiser import ROUND
from nivp_dist.settings.fits import FitSettings

# In their order. TRIAL solves for the last layer of the initial network, and keeps the result only if this alone is
# enough. HEAD and LAST_HEAD do the same after the optimiser and after Gauss-Newton, and keep what has a smaller error.
TRIAL, OPTIMISER, HEAD, GAUSS_NEWTON, LAST_HEAD, DONE = range(6)
# A fit that has not reached its target takes up to this many times fit.iterations while it gains.
EXTENSION = 4


class Stages:
    """The stages for one section of settings, for a network that has a last layer of its own, or none.

    Raises InputError where fit.head_tuning asks for one that is not there.

    Attributes:
        order: ends with DONE. last_round: the most rounds that the fit takes unless it is extended; the trial is none.
        last_steps, last_iteration, last_extended: the number of the last round of the optimiser, of Gauss-Newton, and
            of Gauss-Newton in a fit that is extended.
    """

    def __init__(self, settings: FitSettings, has_head: bool = True):
        optimiser, gauss_newton = settings.method != "gauss_newton", settings.method.endswith("gauss_newton")
        always = settings.head_tuning is True
        if always and not has_head:
            raise InputError(
                "fit.head_tuning = true needs a network that returns what its last nn.Dense returns: leave it out"
            )
        tuned = always or (optimiser and settings.head_tuning == "auto" and has_head)
        wanted = {
            TRIAL: tuned,
            OPTIMISER: optimiser,
            HEAD: optimiser and tuned,
            GAUSS_NEWTON: gauss_newton,
            LAST_HEAD: gauss_newton and always,
            DONE: True,
        }
        self.order = tuple(stage for stage, present in wanted.items() if present)
        self.last_steps = optimiser * -(-settings.steps // ROUND)
        self._before_gauss_newton = self.last_steps + wanted[HEAD]
        self.last_iteration = self._before_gauss_newton + gauss_newton * settings.iterations
        self.last_extended = self._before_gauss_newton + gauss_newton * EXTENSION * settings.iterations
        self.last_round = self.last_iteration + wanted[LAST_HEAD]

    def after(self, stage: int) -> int:
        """The stage that follows."""
        return self.order[self.order.index(stage) + 1]

    def after_trial(self) -> tuple[int, int]:
        """(stage, rounds done) after a trial that was enough: the rounds left out of the optimiser count as done."""
        return GAUSS_NEWTON if GAUSS_NEWTON in self.order else DONE, self._before_gauss_newton
