"""What follows when a run has come to its end and is saved."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nivp_dist.problems.base import Problem


class Ending(NamedTuple):
    """draw_pictures: called with the run directory and the problem, or None. part: called by every process before."""

    draw_pictures: Callable | None = None
    part: Callable[[], None] = lambda: None

    def draw(self, directory: Path, problem: Problem, reporter) -> None:
        """Draw the pictures. A run whose pictures cannot be drawn has ended well all the same."""
        if self.draw_pictures is None:
            return
        try:
            self.draw_pictures(directory, problem)
        except Exception as error:  # noqa: BLE001
            reporter.warn(f"the pictures could not be drawn ({type(error).__name__}: {error}); try: nivp plot")
