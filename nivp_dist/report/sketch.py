"""Curves, images and sparklines of text, for a terminal."""

import numpy as np
from matplotlib import colormaps
from rich.text import Text

BLOCKS = "▁▂▃▄▅▆▇█"
SHADES = " ░▒▓█"
# The bit of each dot of a braille character (U+2800 and on): four rows of two.
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def sparkline(values: np.ndarray, width: int, log: bool) -> str:
    """Numbers (n,) in their order as a line of at most so many blocks; each shows the largest of its share of them.

    log: show their logarithms, if all are positive. What is not finite is left out.
    """
    values = values[np.isfinite(values)]
    if log and np.all(values > 0):
        values = np.log(values)
    bins = np.array([part.max() for part in np.array_split(values, width) if part.size])
    levels = _levels(bins, bins.min(), bins.max()) if bins.size else bins
    return "".join(BLOCKS[round(level * (len(BLOCKS) - 1))] for level in levels)


def curve(values: np.ndarray, width: int, height: int) -> list[Text]:
    """Numbers (n,), evenly spaced, as a curve in braille, from their least to their largest: `height` lines."""
    across = np.linspace(0, 1, 2 * width)
    values = np.interp(across, np.linspace(0, 1, len(values)), values)
    seen = np.isfinite(values)
    dots = np.zeros((4 * height, 2 * width), bool)
    if seen.any():
        levels = _levels(values[seen], values[seen].min(), values[seen].max())
        rows = np.zeros(len(values), int)
        rows[seen] = np.round((1 - levels) * (4 * height - 1))
        for column in np.flatnonzero(seen):
            # A stroke from the dot beside that of the column before, so that steep parts have no gaps.
            row, before = rows[column], rows[column - 1] if column and seen[column - 1] else rows[column]
            first, last = sorted((row, before + np.sign(row - before)))
            dots[first : last + 1, column] = True
    codes = 0x2800 + np.einsum("hiwj,ij->hw", dots.reshape(height, 4, width, 2), DOTS)
    return [Text("".join(map(chr, row))) for row in codes]


def image(
    values: np.ndarray,
    width: int,
    height: int,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str | None = None,
) -> list[Text]:
    """Numbers (rows from below, columns) as an image of `height` lines.

    cmap: the name of a colour map of matplotlib, for half blocks in its colours between vmin and vmax; None: shades,
    dark for the least of the numbers.
    """
    rows = np.round(np.linspace(len(values) - 1, 0, height if cmap is None else 2 * height)).astype(int)
    columns = np.round(np.linspace(0, values.shape[1] - 1, width)).astype(int)
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    low, high = least if vmin is None else vmin, most if vmax is None else vmax
    levels = _levels(np.nan_to_num(values[np.ix_(rows, columns)], nan=low), low, high)
    if cmap is None:
        shades = np.round(levels * (len(SHADES) - 1)).astype(int)
        return [Text("".join(SHADES[shade] for shade in row)) for row in shades]
    rgba = colormaps[cmap](levels, bytes=True)
    colours = [[f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue, _ in row] for row in rgba]
    halves = zip(colours[::2], colours[1::2])
    return [Text.assemble(*(("▀", f"{up} on {down}") for up, down in zip(*pair))) for pair in halves]


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers from 0 for the lower limit to 1 for the higher one; 1/2 where the two are the same."""
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.full(values.shape, 0.5)
