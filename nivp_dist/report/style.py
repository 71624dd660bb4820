"""The style of pictures: our colours, or a style of matplotlib."""

import contextlib
import difflib
from collections.abc import Iterator

from cycler import cycler
from matplotlib import style as styles

from nivp_dist.errors import InputError

# Colours stand in figures as C0, C1, ..., the cycle of the style that they are drawn with. These are ours.
COLOURS = ("#1f5fa8", "#d9781e", "#3a8f4d", "#7a4fa3", "#888888")


@contextlib.contextmanager
def style(name: str | None) -> Iterator[None]:
    """Figures that are made and saved within this have the style of that name; None for ours. Raises InputError."""
    if name is not None and name not in styles.available:
        near = difflib.get_close_matches(name, styles.available, 1)
        known = f"the nearest is {near[0]}" if near else "it has " + ", ".join(styles.available[:4]) + ", ..."
        raise InputError(f"--style {name}: matplotlib has no such style; {known}")
    with styles.context({"axes.prop_cycle": cycler(color=COLOURS)} if name is None else name):
        yield
