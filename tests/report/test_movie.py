"""The movie of a run: its frames, and what stays the same in all of them."""

import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from PIL import Image
from stored_runs import make_run

from nivp_dist.api import open_run
from nivp_dist.errors import InputError
from nivp_dist.report import movie
from nivp_dist.storage import snapshots


def test_a_movie_has_a_frame_for_each_stored_time(tmp_path):
    path = make_run(tmp_path / "run", {"name": "advection", "parameters": {"dimension": 1}}, times=(0.0, 0.1, 0.2))
    found = movie.draw_movie(path)
    assert found == path / "pictures/solution.gif"
    with Image.open(found) as frames:
        assert frames.n_frames == 3 and frames.info["loop"] == 0
        shown = []
        for number in range(3):
            frames.seek(number)
            shown.append(np.asarray(frames.convert("L"), int))
    # The numbers of the axis stay, but for the colours of each palette, and the curve moves.
    assert all(np.abs(frame[:, :50] - shown[0][:, :50]).max() < 20 for frame in shown)
    assert all(np.ptp(a - b) > 100 for a, b in zip(shown, shown[1:]))


def test_all_frames_have_one_range_of_axes_and_one_colour_scale(tmp_path):
    """The density of points, and with it the part that is shown, is moved at the second time."""
    path = make_run(
        tmp_path / "run", {"name": "linear_fokker_planck", "parameters": {"dimension": 2}}, times=(0.0, 0.5)
    )
    run = open_run(path)
    snapshots.save(path, 0.5, run.snapshot(0.5) | {"density_means": np.array([[1.0, 0.0], [2.0, 0.0]])})
    (view,) = movie._sections(run, run.times)
    each = [movie.Moment(run, t).bounds(view[0].view) for t in run.times]
    for section in view:
        for axis, side in enumerate(section.sides):
            assert side[0] == min(low[axis] for low, _ in each) and side[-1] == max(high[axis] for _, high in each)
    assert each[0][0][0] != each[1][0][0]
    _, shown = movie._figure(run.problem, [view])
    network, reference, difference = (artist for artist, _, _ in shown)
    values = [part for section in view for part in (section.network, section.reference)]
    low, high = network.get_clim()
    assert network.get_clim() == reference.get_clim() and (low, high) == (np.min(values), np.max(values))
    largest = max(np.abs(section.network - section.reference).max() for section in view)
    np.testing.assert_allclose(difference.get_clim(), (-largest, largest))


def test_what_cannot_be_a_movie_is_refused_in_one_line(tmp_path, monkeypatch):
    path = make_run(tmp_path / "run", {"name": "heat"}, times=())
    monkeypatch.setattr(FFMpegWriter, "isAvailable", lambda: False)
    for output, line in (
        (tmp_path / "film.avi", "film.avi: a movie is a .gif or a .mp4: name it so with --output$"),
        (
            tmp_path / "film.mp4",
            "film.mp4: needs the program ffmpeg, which is not found: install it, or name the movie",
        ),
        (None, "run: no output is stored yet, of which a movie could be made$"),
    ):
        with pytest.raises(InputError, match=line):
            movie.draw_movie(path, output=output)
    (path / "snapshots").mkdir()
    (path / "snapshots/t_0.000000.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="t_0.000000.npz: .*: it is damaged; move it away, and draw what is left$"):
        movie.draw_movie(path)
