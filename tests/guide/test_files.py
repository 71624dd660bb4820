"""The guide's chapter on files names every field that a run writes, and no other."""

import json
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from documents import blocks, content, table

import nivp_dist
from nivp_dist import cli
from nivp_dist.batch import chain, ledger, requeue
from nivp_dist.export.formats import FORMATS
from nivp_dist.settings.files import CHANGEABLE
from nivp_dist.storage import snapshots
from nivp_dist.storage.heartbeat import Beat
from nivp_dist.storage.metrics import read_lines

TINY = "--devices 1 --sampling.points 300 --fit.points 300 --fit.iterations 4 --fit.on_miss continue --network.width 4"
TINY += " --integrator.t_end 0.02 --output.times [] --output.evaluation_points 1000 --integrator.rtol 1e-2"


def fields(marker: str) -> set[str]:
    """The names in the first column of a table of the chapter."""
    return set(re.findall(r"`([^`]+)`", " ".join(row[0] for row in table("files", f"fields: {marker}"))))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directories of a run of a field, and of one of a density."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("heat_periodic_2d", "linear_fokker_planck_8d"):
        assert cli.main(["run", name, "--output", str(folder / name), *TINY.split()]) == 0
    return [folder / "heat_periodic_2d", folder / "linear_fokker_planck_8d"]


def test_summary(runs):
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    assert all(set(summary) | {"signal"} == fields("summary.json") for summary in summaries)
    entries = [entry for summary in summaries for entry in summary["errors"]]
    assert set().union(*entries) == fields("errors")


def test_lines_of_events(runs):
    assert all(set(line) == fields("events.jsonl") for run in runs for line in read_lines(run / "events.jsonl"))


def test_lines_of_metrics(runs):
    lines, always = [set(line) for run in runs for line in read_lines(run / "metrics.jsonl")], fields("metrics.jsonl")
    always -= {"callback_NAME"}  # no callback looks at these runs
    assert all(always <= line for line in lines)
    assert all(line == always for line in lines if "spectrum_seconds" not in line)
    named = {re.sub("^small_share_(?!error$).*", "small_share_LAYER", name) for name in set().union(*lines)}
    assert {"effective_dimension", "small_share_LAYER"} <= named - always <= fields("spectrum")


def test_snapshots(runs):
    stored = set().union(*(snapshots.load(entry.path) for run in runs for entry in snapshots.list_snapshots(run)))
    assert {re.sub("^invariant_.*", "invariant_NAME", name) for name in stored} == fields("snapshot")


def test_exports(runs, capsys, tmp_path):
    """The arrays that are named are those of a grid, of marginals and of samples, in every format that is named."""
    arrays = set()
    for run, *words in ((runs[0], "--grid", "4"), (runs[1], "--marginals", "3"), (runs[1], "--samples", "5")):
        assert cli.main(["export", str(run), "--to", "npz", *words]) == 0
        with np.load(capsys.readouterr().out.strip()) as file:
            assert {"Conventions", "commit", *json.loads(str(file["attributes"]))} == attributes()
            arrays |= set(file.files) - {"attributes"}
    assert {name for name in arrays if name == "x2" or not re.search("x[2-9]", name)} == fields("exports")
    assert fields("formats") == set(FORMATS)
    for name, format_ in FORMATS.items():
        assert f"`solution{format_.ending}" in content("files"), name


def attributes() -> set[str]:
    """The names of the attributes of exports in the chapter."""
    _, _, rest = content("files").partition("The attributes are ")
    return set(re.findall(r"`([^`]+)`", rest.split("\n\n")[0])) - {"config.toml"}


def test_a_run_is_read_without_this_package(runs, capsys, tmp_path):
    """By the program in the chapter."""
    (program,) = (block.body for block in blocks("files") if block.file == "read_run.py")
    assert "nivp_dist" not in program and len(program.splitlines()) <= 13
    assert cli.main(["export", str(runs[0]), "--to", "npz", "--grid", "5x4", "--overwrite"]) == 0
    run = subprocess.run([sys.executable, "-c", program, str(runs[0])], capture_output=True, text=True, check=True)
    status, steps, *_, largest, _, version = run.stdout.split()
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert (status, int(steps), version) == ("finished", summary["steps"], summary["versions"]["nivp_dist"])
    stored = nivp_dist.open_run(runs[0])
    x = np.stack(np.meshgrid(*(np.linspace(0, 2 * np.pi, n) for n in (5, 4)), indexing="ij"), axis=-1).reshape(-1, 2)
    assert float(largest) == pytest.approx(stored.solution(stored.times[-1])(x).max(), rel=1e-9)


def test_every_file_of_a_run_directory_is_named(runs):
    named = re.findall(r"`([^`]+)`", " ".join(line for line in content("files").splitlines() if line.startswith("|")))
    top = {name.split("/")[0] for name in named} - {"logs"} | {"logs"}
    for run in runs:
        assert {path.name for path in run.iterdir()} <= top
        assert "versions" in tomllib.loads((run / "config.toml").read_text())


def test_jobs_and_requeues(tmp_path):
    ledger.record("7", tmp_path / "job-001.sbatch", None)
    assert set(read_lines(tmp_path / "jobs.jsonl")[0]) == fields("jobs.jsonl")
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "summary.json").write_text('{"status": "stopped", "t": 0.5, "signal": "SIGUSR2"}')
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    requeue.record(tmp_path)
    requeue.withdraw(tmp_path)
    assert {name for line in read_lines(tmp_path / requeue.REQUEUES) for name in line} == fields("requeues.jsonl")
    chain.record(tmp_path, "job-001.sbatch", "7")
    assert set(read_lines(tmp_path / chain.CHAIN)[0]) == fields("chain.jsonl")


def test_heartbeat():
    assert set(Beat._fields) == fields(".alive")


def test_keys_that_may_change_in_a_resume():
    _, _, rest = content("files").partition("<!-- list: changeable -->\n")
    assert set(re.findall(r"`([^`]+)`", rest.split("\n\n")[0])) == set(CHANGEABLE)
