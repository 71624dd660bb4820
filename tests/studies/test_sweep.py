"""`nivp sweep`: a family of tiny runs in processes of their own, an interruption, the table and the picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from whole_runs import CONFIG, PROBLEM

from nivp_dist import cli
from nivp_dist.errors import BAD_INPUT, FAILED, FINISHED, STOPPED_EARLY
from nivp_dist.studies import family, picture, table
from nivp_dist.studies.family import Result


@pytest.fixture
def modes(tmp_path, monkeypatch):
    """The name of a tiny configuration in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modes.py").write_text(PROBLEM)
    (tmp_path / "modes.toml").write_text(CONFIG)
    return "modes.toml"


def mistake(words, capsys) -> str:
    assert cli.main(["sweep", *words]) == BAD_INPUT
    return capsys.readouterr().err.strip()


def test_a_sweep_is_carried_out_and_goes_on_where_it_was_stopped(modes, tmp_path, capsys, monkeypatch):
    words = [modes, "--over", "problem.parameters.k=0.1,0.2", "--output", "both", "--integrator.t_end", "0.02"]
    real = family.evolve

    def interrupted(words, log):
        if words[1].endswith("0001"):
            raise KeyboardInterrupt
        return real(words, log)

    monkeypatch.setattr(family, "evolve", interrupted)
    assert cli.main(["sweep", *words]) == STOPPED_EARLY
    assert f"stopped; continue with `nivp sweep {tmp_path / 'both'}`" in capsys.readouterr().err
    first = (tmp_path / "both/0000/metrics.jsonl").read_text()

    carried_out = []
    monkeypatch.setattr(family, "evolve", lambda words, log: carried_out.append(words) or real(words, log))
    assert cli.main(["sweep", "both"]) == FINISHED
    assert [Path(words[1]).name for words in carried_out] == ["0001"]
    assert (tmp_path / "both/0000/metrics.jsonl").read_text() == first
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["run", "problem.parameters.k", "error", "estimate"]
    assert [row.split()[1] for row in rows] == ["0.1", "0.2"] and all(row.endswith("finished") for row in rows)
    entries = json.loads((tmp_path / "both" / table.TABLE).read_text())
    assert [entry["settings"] for entry in entries] == [{"problem.parameters.k": k} for k in ("0.1", "0.2")]
    assert all(0 < entry["error"] < 1e-2 and entry["t"] == 0.02 for entry in entries)
    assert (tmp_path / "both" / picture.PICTURE).stat().st_size > 10_000


def test_a_run_that_fails_leaves_the_others_and_is_not_repeated(modes, tmp_path, capsys, monkeypatch):
    fails = {"0000": "the initial fit reached nothing", "0001": None}
    summaries = {"0000": {"status": "failed"}, "0001": {"status": "finished", "errors": [{"t": 1.0, "estimate": 0.1}]}}

    def evolve(words, log):
        run = Path(words[1])
        (run / "summary.json").write_text(json.dumps(summaries[run.name]))
        return fails[run.name]

    monkeypatch.setattr(family, "evolve", evolve)
    assert cli.main(["sweep", modes, "--over", "fit.target=1e-9,1e-2", "--output", "both"]) == FAILED
    shown = capsys.readouterr()
    assert "the initial fit reached nothing; its output: " in shown.err
    assert [row.split()[-1] for row in shown.out.splitlines()[1:]] == ["failed", "finished"]
    monkeypatch.setattr(family, "evolve", None)
    assert cli.main(["sweep", "both"]) == FAILED


def test_mistakes_are_one_line(modes, tmp_path, capsys):
    assert mistake([modes], capsys) == "nivp: command line: nothing to sweep over: add --over key=value,value"
    assert mistake([modes, "--over", "seed"], capsys) == "nivp: command line: seed: write it as key=value,value"
    assert "unknown key sed" in mistake([modes, "--over", "sed=1,2"], capsys)
    assert not list(tmp_path.glob("runs/*"))
    (tmp_path / "empty").mkdir()
    assert "holds no sweep" in mistake(["empty"], capsys)
    assert "leave out all but empty" in mistake(["empty", "--seed", "3"], capsys)


def results() -> list[Result]:
    """Six made-up runs: widths 8, 16, 32 with two seeds each."""
    made = []
    for width in ("8", "16", "32"):
        for seed in ("0", "1"):
            error = 1 / float(width) ** 2 * (1 + float(seed))
            values = {"network.width": width, "seed": seed}
            made.append(Result(len(made), Path(f"{len(made):04d}"), values, {"error": error, "wall_seconds": 2.0}))
    return made


def test_runs_that_differ_in_the_seed_alone_are_one_point_with_a_bar():
    figure = picture.figure_of(results())
    assert figure is not None
    errors = figure.axes[0]
    (curve,) = errors.containers
    x, y = curve.lines[0].get_data()
    np.testing.assert_allclose(list(x), [8, 16, 32])
    np.testing.assert_allclose(y, [1.5 / w**2 for w in (8, 16, 32)])
    ends = np.array([segment[:, 1] for segment in curve.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, [[1 / w**2, 2 / w**2] for w in (8, 16, 32)])
    assert errors.get_yscale() == "log" and errors.get_xscale() == "linear"


def test_no_picture_without_an_error_or_an_estimate():
    without = [result._replace(numbers={"status": "failed"}) for result in results()]
    assert picture.figure_of(without) is None
