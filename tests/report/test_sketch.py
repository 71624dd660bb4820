"""Curves, images and sparklines of text."""

import numpy as np

from nivp_dist.report import sketch


def test_a_sparkline_shows_the_largest_number_of_each_part():
    assert sketch.sparkline(np.arange(8.0), 8, log=False) == "▁▂▃▄▅▆▇█"
    assert sketch.sparkline(10.0 ** np.arange(8), 20, log=True) == "▁▂▃▄▅▆▇█"
    assert sketch.sparkline(np.array([0, 0, 7, 0, 7 / 7, 0, np.nan]), 3, log=False) == "▁█▂"
    assert (
        sketch.sparkline(np.full(3, 2.0), 5, log=True) == "▅▅▅" or sketch.sparkline(np.full(3, 2.0), 5, True) == "▄▄▄"
    )
    assert sketch.sparkline(np.array([np.nan]), 5, log=True) == ""


def test_a_curve_runs_from_its_least_value_below_to_its_largest_above():
    lines = [line.plain for line in sketch.curve(np.linspace(-1, 3, 100), 4, 2)]
    assert lines == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]
    # A jump is one stroke; nothing is drawn where the curve is not finite.
    assert [line.plain for line in sketch.curve(np.array([0.0, 0, 1, 1]), 2, 1)] == ["⣀⠏"]
    assert [line.plain for line in sketch.curve(np.full(9, np.nan), 2, 1)] == ["⠀⠀"]


def test_an_image_has_its_first_row_below():
    values = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 4.0]])
    assert [line.plain for line in sketch.image(values, 2, 3)] == ["██", "▒▓", " ░"]
    (line,) = sketch.image(values, 2, 1, vmin=0.0, vmax=4.0, cmap="gray")
    assert line.plain == "▀▀" and [str(span.style) for span in line.spans] == [
        "#ffffff on #000000",
        "#ffffff on #404040",
    ]
