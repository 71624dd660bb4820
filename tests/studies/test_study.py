"""The frame of `nivp study`, with a tiny study: processes of cases, interruptions, failures, what is written."""

import json
import signal
from pathlib import Path

import pytest

from nivp_dist import cli
from nivp_dist.bench import machine
from nivp_dist.errors import BAD_INPUT, FAILED, FINISHED, STOPPED_EARLY
from nivp_dist.studies import measurements, registry
from nivp_dist.studies.study import median_and_range

# Case 0 measures. Case 1 interrupts the study when it is first tried, and case 2 fails until it is told not to.
STUDY = """
import os, signal, time
from functools import partial
from nivp_dist.errors import RunFailed
from nivp_dist.studies.study import Case, Study, Table

def measure(index, folder):
    tries = folder / "tries"
    first = not tries.exists()
    with tries.open("a") as file:
        file.write("x")
    print("a line that is no record")
    if index == 1 and first and not os.environ.get("CALM"):
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
    if index == 2 and not os.environ.get("CALM"):
        raise RunFailed("nothing\\nto measure")
    return {"square": index**2, "undefined": float("nan"), "cores": sorted(os.sched_getaffinity(0))}

def cases(quick):
    return [Case(f"case-{i}", partial(measure, i)) for i in range(2 if quick else 3)]

def tables(records):
    return [Table("Squares", [["case", "square"]] + [[name, str(r["square"])] for name, r in records.items()])]

def draw(records, figure):
    figure.subplots().plot([record["square"] for record in records.values()])

STUDY = Study("tiny", "What are the squares?", cases, tables, lambda r: [f"There are {len(r)} squares."], draw)
"""


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    """The study `tiny` of a module on the path, also of the processes of its cases, in the working directory."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "tiny_study.py").write_text(STUDY)
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setitem(registry.MODULES, "tiny", "tiny_study")
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def tries(directory: str) -> list[int]:
    return [len(path.read_text()) for path in sorted(Path(directory).glob("cases/*/tries"))]


def mistake(words, capsys) -> str:
    capsys.readouterr()
    assert cli.main(["study", *words]) == BAD_INPUT
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    return message


def test_an_interrupted_study_goes_on_and_a_case_that_failed_is_tried_again(capsys, monkeypatch):
    assert cli.main(["study", "tiny", "--at-once", "1"]) == STOPPED_EARLY
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert tries("studies/tiny") == [1, 1]

    assert cli.main(["study", "tiny"]) == FAILED
    shown = capsys.readouterr()
    assert "case-2: failed: nothing to measure" in shown.err and "There are 2 squares." in shown.out
    assert shown.out.splitlines()[-1] == "case-2: failed: nothing to measure"
    assert tries("studies/tiny") == [1, 2, 1]

    monkeypatch.setenv("CALM", "1")
    assert cli.main(["study", "tiny", "--markdown"]) == FINISHED
    assert tries("studies/tiny") == [1, 2, 2]
    assert (
        "| case | square |\n| --- | --- |\n| case-0 | 0 |\n| case-1 | 1 |\n| case-2 | 4 |\n" in capsys.readouterr().out
    )

    whole = json.loads(Path("studies/tiny/tiny.json").read_text())
    assert [record["square"] for record in whole["records"].values()] == [0, 1, 4]
    assert all(record["undefined"] is None for record in whole["records"].values())
    assert whole["question"] == "What are the squares?" and whole["answer"] == ["There are 3 squares."]
    assert whole["tables"][0]["rows"][-1] == ["case-2", "4"] and not whole["quick"]
    assert Path("studies/tiny/tiny.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(measurements, "_Running", None)  # nothing is left to measure
    assert cli.main(["study", "tiny"]) == FINISHED


def test_cases_at_once_have_different_cores(capsys, monkeypatch):
    """Where there is one core, they take turns on it."""
    cores = machine.cores()
    monkeypatch.setenv("CALM", "1")
    assert cli.main(["study", "tiny", "--quick", "--at-once", "2"]) == FINISHED
    first, second = cores_of_cases("studies/tiny-quick")
    assert sorted({*first, *second}) == cores and len(cores) == len(first if first == second else first + second)
    assert (first == second) == (len(cores) == 1)


def test_cases_that_measure_time_run_alone_on_one_core(tmp_path, monkeypatch):
    monkeypatch.setenv("CALM", "1")
    study = registry.find("tiny")._replace(timed=True)
    directory, left = measurements.opened(tmp_path / "timed", study, quick=True), []
    measurements.take(directory, None, left.append)
    assert cores_of_cases("timed") == [machine.cores()[:1]] * 2
    assert [line[-6:] for line in left] == ["1 left", "0 left"] and left[0].startswith("case-0: ")


def cores_of_cases(directory: str) -> list[list[int]]:
    found = measurements.opened(Path(directory).resolve(), registry.find("tiny"), quick=True).records()
    return [record["cores"] for record in found.values()]


def test_mistakes_are_one_line(capsys, tmp_path):
    assert mistake(["scalin"], capsys) == "nivp: study: there is no study 'scalin'; the nearest is scaling"
    assert "there are scaling, solvers" in mistake(["xyzzy"], capsys)

    measurements.opened(tmp_path / "known", registry.find("tiny"), quick=False)
    known = f"nivp: {tmp_path / 'known'}: "
    assert mistake(["tiny", "--quick", "--output", "known"], capsys) == (
        f"{known}was begun with quick = False, not True; choose --output"
    )
    (tmp_path / "known/study.json").write_text('{"study": "other", "quick": false}')
    assert "was begun with study = other, not tiny" in mistake(["tiny", "--output", "known"], capsys)
    for damage in ("{", "[1]"):
        (tmp_path / "known/study.json").write_text(damage)
        assert mistake(["tiny", "--output", "known"], capsys).startswith(f"{known}its files are damaged")

    (tmp_path / "full").mkdir()
    (tmp_path / "full/diary").write_text("mine")
    assert "holds no study" in mistake(["tiny", "--output", "full"], capsys)
    assert "holds no study" in mistake(["tiny", "--output", "full/diary"], capsys)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["diary"]


def test_a_median_has_the_range_of_several_values():
    assert median_and_range([]) == median_and_range([None]) == "-"
    assert median_and_range([2e-3, None]) == "2.00e-03"
    assert median_and_range([4.0, 1.0, 2.0]) == "2.00e+00 (1.00e+00 to 4.00e+00)"
