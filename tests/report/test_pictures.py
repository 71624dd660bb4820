"""The pictures of a run: what each panel shows, its labels, and the files written."""

import numpy as np
import pytest
from matplotlib.image import imread
from stored_runs import make_run

from nivp_dist.api import open_run
from nivp_dist.errors import InputError
from nivp_dist.problems import View
from nivp_dist.report import panels, pictures, sections, solution
from nivp_dist.report.course import read_course
from nivp_dist.report.health import error_figure, health_figure, recorded_figure
from nivp_dist.run import window
from nivp_dist.storage import snapshots

PROBLEM_FILE = """
import jax.numpy as jnp
from nivp_dist import Problem
from nivp_dist.problems import Box

class Plain(Problem):
    "A problem without a reference, with three outputs of which two have no name."
    dimension: int = 1
    outputs = 3

    @property
    def domain(self):
        return Box(self.dimension, 0.0, 2.0)

    def initial(self, x):
        return jnp.zeros(3)

    def rhs(self, u, x, t):
        return jnp.zeros(3)
"""


def labels(figure):
    return [(axis.get_title() or axis.get_title("left"), axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes]


def curves(axis):
    return {line.get_label(): line.get_xydata() for line in axis.lines}


def test_every_picture_replaces_its_file_and_is_not_blank(tmp_path):
    path = make_run(tmp_path / "run", {"name": "linear_fokker_planck"}, times=(0.0, 0.5))
    (path / "pictures").mkdir()
    (path / "pictures" / "health.png").write_bytes(b"an older picture")
    drawn = pictures.draw(path)
    assert [file.name for file in drawn] == ["health.png", "error.png", "solution.png", "marginals.png"]
    for file in drawn:
        image = imread(file)
        assert min(image.shape[:2]) > 400 and np.var(image[..., :3]) > 1e-3
    assert sorted(file.name for file in (path / "pictures").iterdir()) == sorted(file.name for file in drawn)


def test_the_health_figure_shows_every_series_and_the_refits(tmp_path):
    path = make_run(tmp_path / "run", {"name": "heat"})
    events = [{"t": 0.2, "kind": "refit"}, {"t": 0.2, "kind": "refit"}, {"t": 0.3, "kind": "output"}]
    metrics = read_course(path)
    figure = health_figure(metrics, events)
    assert labels(figure) == [
        ("step size", "", "h"),
        ("conjugate gradients", "", "iterations of a velocity"),
        ("relative residual", "", "|J v - f| / |f|"),
        ("condition number", "", "largest / least"),
        ("rejected steps, cumulative", "", "count"),
        ("dimension of M", "", r"tr $M (M + \mu)^{-1}$"),
        ("what bounds steps", "time t", "ratio"),
        (r"share of F below $\mu$; spectra took 2 s of 16 s", "", r"share of $|F|^2$"),
        ("", "", ""),
        ("layers", "time t", r"share of those below $\mu$"),
    ]
    iterations, residual, condition, rejected, dimension, bounds = (figure.axes[i] for i in range(1, 7))
    np.testing.assert_allclose(curves(iterations)["mean"][:, 1], 9 + np.arange(1, 9))
    np.testing.assert_allclose(curves(iterations)["bound of first"][:, 1], [90] * 4)
    np.testing.assert_allclose(curves(iterations)["first"][:, 1], [8] * 4)
    assert {"fresh points", "points of the step"} < set(curves(residual))
    np.testing.assert_allclose(curves(condition)["preconditioned"][:, 1], [40] * 4)
    np.testing.assert_allclose(condition.lines[0].get_ydata(), 5e6)
    np.testing.assert_array_equal(rejected.lines[0].get_ydata(), [1, 1, 2, 2, 3, 3, 4, 4])
    (band,) = dimension.collections
    np.testing.assert_allclose(band.get_datalim(dimension.transData).intervaly, [30, 31])
    assert set(curves(bounds)) >= {r"$h \rho$ / stable", "change of J / error"}
    np.testing.assert_allclose(bounds.lines[0].get_ydata(), 0.5)
    layers = curves(figure.axes[9])
    assert list(layers)[:5] == ["layer 5", "layer 4", "layer 3", "layer 2", "others"]
    np.testing.assert_allclose(layers["others"][:, 1], 1 / 15)
    for axis in figure.axes:
        assert [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"] == [0.2]
    assert all(figure.axes[i].get_yscale() == "log" for i in (0, 2, 3))


def test_a_health_panel_without_data_shows_a_message():
    def messages(figure):
        return [axis.texts[0].get_text() if axis.texts else "" for axis in figure.axes]

    assert messages(health_figure({}, [])) == ["no steps yet"] * 8 + ["", "no steps yet"]
    t = np.linspace(0.1, 1, 5)
    direct = {"t": t, "h": t, "cg_iterations": 0 * t, "rejected_so_far": 0 * t, "residual": np.full(5, np.nan)}
    figure = health_figure(direct, [])
    missing = "not measured in this run"
    assert messages(figure) == ["", missing, missing, missing, "", missing, missing, missing]


def test_a_run_with_direct_solves_has_no_panel_of_conjugate_gradients():
    t = np.linspace(0.1, 1, 5)
    metrics = {"t": t, "cg_iterations": 0 * t, "condition": 1e8 * t, "effective_dimension": 20 * t}
    shown = [axis for axis in health_figure(metrics, []).axes if axis.get_visible()]
    titles = [axis.get_title("left") for axis in shown]
    assert len(shown) == 8 and "conjugate gradients" not in titles
    assert [axis.get_xlabel() for axis in shown] == [""] * 6 + ["time t", "time t"]
    below = [r"share of F below $\mu$", "layers"]
    assert titles[1::2] == ["condition number", "dimension of M", *below]


def test_a_run_with_implicit_steps_shows_their_order():
    t = np.linspace(0.1, 1, 5)
    metrics = {"t": t, "h": t, "order": np.array([1.0, 2, 3, 4, 4]), "cg_iterations": 0 * t, "rejected_so_far": 0 * t}
    metrics |= {"residual": t, "jacobian_share": np.full(5, np.nan)}
    figure = health_figure(metrics, [])
    titles = ["step size", "order of the method", "relative residual", "rejected steps, cumulative"]
    assert [axis.get_title("left") for axis in figure.axes] == titles
    assert figure.axes[1].lines[0].get_ydata().tolist() == [1, 2, 3, 4, 4]
    iterative = health_figure(metrics | {"cg_iterations": 60 * t, "evaluations": np.full(5, 3.0)}, [])
    shown = [axis for axis in iterative.axes if axis.get_visible()]
    assert [axis.get_title("left") for axis in shown] == [*titles, "conjugate gradients"]
    assert shown[-1].get_ylabel() == "iterations of a correction"
    np.testing.assert_allclose(shown[-1].lines[0].get_ydata(), 20 * t)


def test_numbers_of_callbacks_have_a_panel_each():
    metrics = {"t": np.arange(3.0), "h": np.ones(3), "callback_peak": np.array([np.nan, 1.0, 2.0])}
    (axis,) = recorded_figure(metrics).axes
    assert axis.get_title("left") == "peak" and axis.lines[0].get_xydata().tolist() == [[1.0, 1.0], [2.0, 2.0]]
    many = {f"callback_{number}": np.ones(3) for number in range(20)}
    assert len(recorded_figure(metrics | many).axes) == 12
    assert recorded_figure({"t": np.arange(3.0)}) is None


def test_the_error_figure_shows_what_is_known_of_the_error():
    t = np.array([0.0, 0.5, 1.0])
    assert error_figure({"t": t, "relative_l2": np.full(3, np.nan)}) is None
    (axis,) = error_figure({"t": t, "relative_l2": np.array([1e-4, np.nan, 2e-3])}).axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[0.0, 1e-4], [1.0, 2e-3]])
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_yscale()) == ("time t", "relative L2 error", "log")
    # Without a reference the estimate is shown. Parts that are zero cannot be drawn on a logarithmic axis.
    estimated = {"t": t, "estimate": np.array([1e-3, 2e-3, 3e-3]), "estimate_refits": np.zeros(3)}
    (axis,) = error_figure({"t": t, "relative_l2": np.full(3, np.nan)}, estimated).axes
    assert list(curves(axis)) == ["estimate"]


def test_the_estimate_begins_at_time_0_with_that_of_the_initial_fit():
    errors = {"t": np.array([0.0, 1.0]), "relative_l2": np.full(2, np.nan), "estimate": np.array([1e-4, 3e-4])}
    steps = {"t": np.array([0.5, 1.0]), "estimate": np.array([2e-4, 3e-4]), "estimate_initial": np.full(2, 1e-4)}
    (axis,) = error_figure(errors, steps).axes
    estimate, initial = axis.lines
    np.testing.assert_array_equal(estimate.get_xydata(), [[0.0, 1e-4], [0.5, 2e-4], [1.0, 3e-4]])
    np.testing.assert_array_equal(initial.get_xydata(), [[0.0, 1e-4], [0.5, 1e-4], [1.0, 1e-4]])


def test_a_negligible_part_of_the_estimate_does_not_stretch_the_axis():
    errors = {"t": np.array([1.0]), "relative_l2": np.array([1e-3])}
    steps = {"t": np.array([0.5, 1.0]), "estimate": np.full(2, 2e-3), "estimate_steps": np.array([1e-12, 1e-9])}
    (axis,) = error_figure(errors, steps).axes
    assert axis.get_ylim()[0] > 1e-5


def test_one_dimension_is_shown_by_curves_of_network_and_reference(tmp_path):
    run = open_run(make_run(tmp_path / "run", {"name": "advection", "parameters": {"dimension": 1}}))
    figure = solution.solution_figure(run)
    assert labels(figure) == [
        ("t = 0", "$x$", "u"),
        ("t = 0.1", "$x$", ""),
        ("t = 0.3", "$x$", ""),
        ("t = 0.5", "$x$", ""),
    ]
    for axis, t in zip(figure.axes, (0.0, 0.1, 0.3, 0.5)):
        drawn = curves(axis)
        x = drawn["network"][:, 0]
        assert (x[0], x[-1]) == (-1.0, 1.0)
        np.testing.assert_array_equal(drawn["network"][:, 1], run.solution(t)(x[:, None])[:, 0])
        np.testing.assert_allclose(drawn["reference"][:, 1], np.exp(-((x + t) ** 2) / 0.005) / (60 * np.pi * 0.0025))


def test_images_of_network_and_reference_share_a_colour_scale(tmp_path):
    run = open_run(make_run(tmp_path / "run", {"name": "wave"}, times=(0.0, 0.5)))
    figure = solution.solution_figure(run)
    grid = [axis for axis in figure.axes if axis.images]
    assert [axis.get_ylabel().split("\n")[0] for axis in grid[::2]] == [
        "network, u",
        "reference, u",
        "difference, u",
        "network, $u_{t}$",
        "reference, $u_{t}$",
        "difference, $u_{t}$",
    ]
    for column in range(2):
        network, reference, difference = (grid[2 * row + column].images[0] for row in range(3))
        assert network.get_clim() == reference.get_clim()
        low, high = difference.get_clim()
        assert low == -high
        np.testing.assert_allclose(difference.get_array(), network.get_array() - reference.get_array(), atol=1e-14)
    # x_1 runs to the right and x_2 upwards
    axis, u = grid[1], run.solution(0.5)
    assert axis.images[0].origin == "lower" and axis.images[0].get_extent() == [-1, 1, -1, 1]
    x = np.linspace(-1, 1, sections.IMAGE_POINTS)
    np.testing.assert_allclose(axis.images[0].get_array()[40, 100], u([[x[100], x[40]]])[0, 0], rtol=1e-10)


def test_the_labels_of_a_colour_bar_do_not_touch_the_next_panel(tmp_path):
    figure = solution.solution_figure(open_run(make_run(tmp_path / "run", {"name": "heat"})))
    figure.draw_without_rendering()
    bars = [child for axis in figure.axes for child in axis.child_axes]
    boxes = [(axis, axis.get_tightbbox()) for axis in figure.axes if axis not in bars]
    for bar in bars:
        right, height = bar.get_tightbbox().x1, bar.get_window_extent()
        of_row = [box for axis, box in boxes if abs(axis.get_window_extent().y0 - height.y0) < 1]
        next_panels = [box.x0 for box in of_row if box.x0 > height.x1 - 1]
        assert all(left - right > 8 for left in next_panels)


def test_at_times_past_the_reference_only_the_network_is_shown(tmp_path):
    """The reference of advection ends at t = 0.65, when the pulse meets the wall."""
    run = open_run(make_run(tmp_path / "run", {"name": "advection"}, times=(0.0, 0.9)))
    figure = solution.solution_figure(run)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["t = 0", "t = 0.9"]
    assert [bool(axis.images) for axis in figure.axes[:6]] == [True, True, True, False, True, False]
    assert run.reference(0.0) is not None and run.reference(0.9) is None


def test_slices_pass_through_the_mean_of_the_density_of_points(tmp_path):
    problem = {"name": "fokker_planck_trap", "parameters": {"dimension": 5}}
    run = open_run(make_run(tmp_path / "run", problem, times=(0.0, 1.0)))
    figure = solution.solution_figure(run)
    assert len(figure.axes) == 2 * 4
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["u at t = 0", "u at t = 1"]
    assert [axis.get_xlabel() for axis in figure.axes[4:]] == ["$x_{1}$", "$x_{2}$", "$x_{3}$", "$x_{4}$"]
    drawn = curves(figure.axes[5])
    x = np.full((len(drawn["network"]), 5), 0.25 * -0.2 + 0.75 * 0.3)
    x[:, 1] = drawn["network"][:, 0]
    np.testing.assert_allclose(drawn["network"][:, 1], run.solution(1.0)(x)[:, 0])
    np.testing.assert_allclose(drawn["reference"][:, 1], run.problem.reference(x, 1.0))


def test_a_users_problem_without_reference_and_output_names_is_drawn(tmp_path):
    file = tmp_path / "plain.py"
    file.write_text(PROBLEM_FILE)
    for d in (1, 2, 3):
        problem = {"file": str(file), "class": "Plain", "parameters": {"dimension": d}}
        run = open_run(make_run(tmp_path / f"run{d}", problem, (0.0, 1.0)))
        figure = solution.solution_figure(run)
        assert not any("reference" in curves(axis) for axis in figure.axes)
        names = [axis.get_ylabel().split("\n")[0] for axis in figure.axes if axis.get_ylabel()]
        assert (
            names
            == {
                1: ["$u_{1}$", "$u_{2}$"],
                2: ["network, $u_{1}$", "network, $u_{2}$"],
                3: ["$u_{1}$ at t = 0", "$u_{1}$ at t = 1"],
            }[d]
        )
    for axis in solution.marginals_figure(run).axes:
        assert [patch.get_label() for patch in axis.patches] == ["network"]


def test_all_times_of_an_image_have_one_colour_map(tmp_path):
    """A field that has both signs at some time is shown as signed at all: a pulse of a wave has one sign at first."""
    run = open_run(make_run(tmp_path / "run", {"name": "wave"}, times=(0.0, 0.5)))
    x = np.linspace(-1, 1, 5)
    parts = [
        sections.Section(View(), t, (x, x), low * np.eye(5) + np.eye(5)[::-1], None) for t, low in ((0, 0), (1, -1))
    ]
    assert [panels.signed_at_some_time([part], "network") for part in parts] == [False, True]
    figure = solution._rows_figure(run.problem, [parts])
    assert [axis.images[0].cmap.name for axis in figure.axes if axis.images] == ["RdBu_r"] * 2
    assert panels.colours_of(parts[:1], "network")["cmap"] == "viridis"


def test_the_views_of_a_problem_decide_what_its_pictures_show(tmp_path):
    """A trap in three dimensions: an image at given coordinates, and two marginals."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from nivp_dist.problems import View\n"
        "from nivp_dist.problems.fokker_planck_trap import FokkerPlanckTrap\n\n\n"
        "class Mine(FokkerPlanckTrap):\n"
        "    dimension: int = 3\n"
        "    views = (View(axes=(2, 0), at={1: 0.5}), View(axes=(1,), marginal=True),\n"
        "             View(axes=(0, 2), marginal=True))\n"
    )
    run = open_run(make_run(tmp_path / "run", {"file": str(file), "class": "Mine"}, times=(0.0,)))
    network, reference, _ = (axis for axis in solution.solution_figure(run).axes if axis.images)
    assert network.get_ylabel() == "network, u at $x_{2}$ = 0.5\n$x_{1}$"
    x = np.linspace(-1, 1, sections.IMAGE_POINTS)
    for axis, u in ((network, run.solution(0.0)), (reference, run.reference(0.0))):  # x_3 to the right, x_1 upwards
        np.testing.assert_allclose(axis.images[0].get_array()[30, 120], u(np.array([[x[30], 0.5, x[120]]]))[0, 0])
    # The exact marginals of the initial condition, a product of parabolas.
    fitted = {"density_means": np.zeros((2, 3)), "density_covariances": np.array([0.2 * np.eye(3)] * 2)}
    snapshots.save(run.directory, 0.0, run.snapshot(0.0) | fitted)
    moment = sections.Moment(run, 0.0)
    line, image = (moment.section(view) for view in run.problem.views[1:])
    parabolas = [np.diff(0.75 * (edges - edges**3 / 3)) / np.diff(edges) for edges in (*line.sides, *image.sides)]
    np.testing.assert_allclose(line.reference, parabolas[0], atol=0.06)
    np.testing.assert_allclose(image.reference, np.multiply.outer(parabolas[2], parabolas[1]), atol=0.1)
    assert image.network.shape == image.reference.shape == (sections.IMAGE_BINS,) * 2


def test_a_style_of_matplotlib_gives_the_colours(tmp_path):
    path = make_run(tmp_path / "run", {"name": "heat"}, times=(), steps=3)
    ours, dark = (imread(pictures.draw(path, style=style)[0]) for style in (None, "dark_background"))
    assert ours[0, 0, :3].tolist() == [1, 1, 1] and dark[0, 0, :3].tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="^--style ggplo: matplotlib has no such style; the nearest is ggplot$"):
        pictures.draw(path, style="ggplo")


def test_a_run_without_snapshots_gets_its_health_figure_only(tmp_path):
    path = make_run(tmp_path / "run", {"name": "heat"}, times=(), steps=0)
    assert [file.name for file in pictures.draw(path)] == ["health.png"]


def test_pictures_can_be_drawn_into_another_folder(tmp_path):
    path = make_run(tmp_path / "run", {"name": "heat"}, times=(), steps=0)
    (path / "pictures").write_text("a file in the way, as on a disk that cannot be written")
    line = f"^{path}/pictures: cannot be written: File exists; draw elsewhere with --output$"
    with pytest.raises(InputError, match=line):
        pictures.draw(path)
    assert pictures.draw(path, output=tmp_path / "new/folder") == [tmp_path / "new/folder/health.png"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, name):
    path = make_run(tmp_path / "run", {"name": "heat"}, times=())
    (path / name).write_text("{\n{}\n")
    with pytest.raises(InputError, match=f"^{path}/{name}, line 1: not JSON: it is damaged; move it away"):
        pictures.draw(path)


def test_a_directory_without_a_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="not the directory of a run"):
        pictures.draw(tmp_path)
    assert not list(tmp_path.iterdir())


def test_moments_of_the_mixture_agree_with_those_of_its_samples():
    random = np.random.default_rng(1)
    root = random.normal(size=(2, 3, 3))
    weights, means, covariances = np.array([0.3, 0.7]), random.normal(size=(2, 3)), root @ root.swapaxes(1, 2)
    parts = [random.multivariate_normal(means[k], covariances[k], int(4e5 * weights[k])) for k in range(2)]
    sample = np.concatenate(parts)
    stored = {"density_weights": 2 * weights, "density_means": means, "density_covariances": covariances}
    mean, covariance = window.mixture_moments(stored)
    np.testing.assert_allclose(mean, sample.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(covariance, np.cov(sample.T), atol=0.05)


def test_marginals_on_a_box_ignore_points_outside(tmp_path):
    path = make_run(tmp_path / "run", {"name": "fokker_planck_trap", "parameters": {"dimension": 3}}, times=(0.0,))
    run = open_run(path)
    fitted = {"density_weights": np.ones(1), "density_means": np.zeros((1, 3))}
    fitted["density_covariances"] = 0.2 * np.eye(3)[None]
    snapshots.save(path, 0.0, run.snapshot(0.0) | fitted)
    figure = solution.marginals_figure(run)
    assert [axis.get_xlabel() for axis in figure.axes] == ["$x_{1}$", "$x_{2}$", "$x_{3}$"]
    assert figure.axes[0].get_ylabel() == "marginal of u\nat t = 0"
    for axis in figure.axes:
        network, reference = axis.patches
        edges = reference.get_data().edges
        exact = np.diff(0.75 * (edges - edges**3 / 3)) / np.diff(edges)
        assert edges[0] >= -1 and edges[-1] <= 1
        np.testing.assert_allclose(reference.get_data().values, exact, atol=0.1 * exact.max())
        assert network.get_label() == "network" and reference.get_label() == "reference"
