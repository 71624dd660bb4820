"""What is shipped, as text: the problems, and the configurations with their times and errors (`nivp problems`)."""

import shutil
import textwrap
from pathlib import Path

from nivp_dist.problems import registry
from nivp_dist.settings.files import describe_config, read_config

INDENT = "    "  # of what follows a name
WIDEST = 110  # characters; longer lines are hard to read


def problems() -> list[str]:
    """Lines about each shipped problem: its name, dimension and outputs, equation, and reference."""
    lines = ["Problems (problem.name)"]
    for row in registry.catalogue():
        outputs = f", {row.outputs} outputs" if row.outputs > 1 else ""
        lines += ["", f"{row.name}  (d = {row.dimension}{outputs})"]
        lines += _wrapped(row.summary) + _wrapped(f"reference: {row.reference}")
    return lines


def configurations(files: dict[str, Path]) -> list[str]:
    """Lines about each configuration, name -> file. Time and error are those in the comments at the top of the file."""
    lines = ["Configurations (nivp run NAME)"]
    for name, path in files.items():
        problem, comments = registry.load(read_config(path).problem), describe_config(path)
        lines += ["", f"{name}  (d = {problem.domain.dimension})", *_wrapped(comments.what)]
        measured = [
            f"time: {comments.time}" if comments.time else "",
            f"error: {comments.error}" if comments.error else "",
        ]
        lines += _wrapped(", ".join(filter(None, measured)))
    return lines


def _wrapped(text: str) -> list[str]:
    """Text as indented lines that fit on the screen, no word of it broken."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return textwrap.wrap(
        text,
        width,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
