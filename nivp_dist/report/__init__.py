"""Progress, status, tables of errors and pictures of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nivp_dist.problems.base import Problem


def draw_pictures(directory: str | Path, problem: Problem | None = None) -> list[Path]:
    """As ``pictures.draw``. matplotlib is slow to import, and a run needs it at its end only: this imports it then."""
    from nivp_dist.report import pictures

    return pictures.draw(directory, problem)
