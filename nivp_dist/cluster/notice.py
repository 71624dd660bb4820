"""The notice that a job gets before its time limit, beside what a step with its save takes."""

import math
import os

from nivp_dist.settings.job_environment import NOTICE_FACTOR, NOTICE_SECONDS


class Notice:
    """Says once that a step and its save take longer than the notice, so that the limit may come before the save.

    seconds: between the notice and the limit; None outside of a job of `nivp submit`. It decides nothing in the run.
    """

    def __init__(self):
        text = os.environ.get(NOTICE_SECONDS, "")
        self.seconds = int(text) if text.isdigit() else None
        self._steps = 0

    def warnings(self, needed: float) -> list[str]:
        """A line, or none, after a step that took so many seconds with its save. The first one is left out, because it
        is compiled."""
        self._steps += 1
        if self.seconds is None or self._steps == 1 or needed <= self.seconds:
            return []
        has, self.seconds = f"the job has {self.seconds} s from its notice to its limit", None
        advice = f"submit it with --notice {math.ceil(NOTICE_FACTOR * needed)}"
        return [f"a step and its save take {math.ceil(needed)} s, and {has}: {advice}"]
