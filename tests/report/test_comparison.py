"""`nivp compare`: the numbers of several runs in one table, and the picture of them."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from nivp_dist import cli
from nivp_dist.report import comparison
from nivp_dist.settings.model import Config
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import Lines


def made(folder, name, factor, times, mu=1e-9, problem="heat"):
    """A run of ten steps, whose errors are `factor` times t and whose residuals are `factor` times the step."""
    config = Config(problem={"name": problem}, solver={"mu": mu}, output={"times": list(times[:-1])})
    directory = run_directory.create(config, folder / name, name)
    lines = Lines(directory / "metrics.jsonl")
    for step in range(1, 11):
        numbers = {"residual_fresh": factor * step, "h": 0.1, "estimate": 2 * factor, "wall_seconds": 30.0 * step}
        lines.append({"step": step, "t": 0.1 * step, "rejected": 0} | numbers)
    errors = [{"t": t, "relative_l2": factor * t, "estimate": 2 * factor * t} for t in times]
    summary = {"status": "finished", "problem": problem, "errors": errors, "steps": 10, "rejected": 1, "refits": 0}
    numbers = {"parameters": 100, "points": 4000, "solver": "primal", "wall_seconds": 300.0}
    run_directory.write_summary(directory, summary | numbers | {"t": 1.0, "t_end": 1.0})
    return directory


@pytest.fixture
def pair(tmp_path):
    return [
        made(tmp_path, "coarse", 1e-2, [0.0, 0.5, 1.0]),
        made(tmp_path, "fine", 1e-3, [0.0, 0.25, 0.5], mu=1e-11),
    ]


def test_errors_are_those_at_the_last_time_that_all_have(pair):
    first, second = comparison.facts(comparison.read(pair))
    assert (first["run"], first["t"], first["error"], first["estimate"]) == ("coarse", 0.5, 5e-3, 1e-2)
    assert (second["run"], second["t"], second["error"]) == ("fine", 0.5, 5e-4)
    assert first["residual"] == pytest.approx(5.5e-2) and second["residual"] == pytest.approx(5.5e-3)
    assert first["wall_seconds"] == 300.0 and first["parameters"] == 100


def test_runs_without_a_common_time_have_their_own(tmp_path):
    runs = [made(tmp_path, "a", 1e-2, [0.5]), made(tmp_path, "b", 1e-3, [1.0])]
    assert [row["t"] for row in comparison.facts(comparison.read(runs))] == [0.5, 1.0]
    assert "no time is common to all" in comparison.lines(comparison.read(runs))[0]


def test_the_table_and_the_settings_that_differ(pair, capsys, tmp_path):
    picture = tmp_path / "both.png"
    assert cli.main(["compare", *map(str, pair), "--output", str(picture)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[1][:6] == ["run", "status", "t", "error", "estimate", "residual"]
    assert shown[2][:6] == ["coarse", "finished", "0.5", "5.00e-03", "1.00e-02", "5.50e-02"]
    assert shown[3][:6] == ["fine", "finished", "0.5", "5.00e-04", "1.00e-03", "5.50e-03"]
    assert shown[2][-3:] == ["5", "min", "00"] or shown[2][-4:] == ["5", "min", "00", "s"]
    assert ["setting", "coarse", "fine"] in shown and ["solver.mu", "1e-09", "1e-11"] in shown
    assert shown[-1] == [str(picture)]
    assert imread(picture).std() > 0.01  # something is drawn


def test_the_picture_shows_every_run(pair):
    runs = comparison.read(pair)
    errors, residuals, steps, minutes = comparison.figure(runs).axes
    estimate, dots = errors.get_lines()[:2]
    np.testing.assert_allclose(dots.get_xydata(), [[0.5, 5e-3], [1.0, 1e-2]])  # an error of zero has no place there
    np.testing.assert_allclose(estimate.get_ydata(), 2e-2)
    assert len({line.get_color() for line in residuals.get_lines()}) == 2
    np.testing.assert_allclose(minutes.get_lines()[1].get_xydata()[-1], [1.0, 5.0])
    assert residuals.get_yscale() == steps.get_yscale() == "log"


def test_json_and_mistakes(pair, capsys, tmp_path):
    assert cli.main(["compare", *map(str, pair), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["error"] for row in rows] == [5e-3, 5e-4] and not (tmp_path / "comparison.png").exists()
    for words, message in (
        ([str(tmp_path)], "not the directory of a run"),
        ([str(pair[0]), "--output", str(tmp_path / "no/x.png")], "cannot be written"),
        ([str(pair[0]), "--output", str(tmp_path / "x.odd")], "x.odd: "),
    ):
        assert cli.main(["compare", *words]) == 2
        line = capsys.readouterr().err
        assert message in line and line.count("\n") == 1


def test_a_run_that_has_only_begun(pair, tmp_path):
    begun = run_directory.create(Config(problem={"name": "wave"}), tmp_path / "begun", "begun")
    row, other = comparison.facts(comparison.read([begun, pair[0]]))
    assert (row["status"], row["t"], row["error"], row["residual"]) == ("not started", None, None, None)
    assert other["t"] == 1.0  # it hides no time of the others
    assert comparison.figure(comparison.read([begun, pair[0]])).axes
