"""`nivp bench speed gpu`: stages and their time limits with a worker that does not measure, and tiny measurements."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nivp_dist import cli
from nivp_dist.bench import child_process, timing
from nivp_dist.bench.faults.outcome import Results
from nivp_dist.bench.gpu import accuracy, evaluation, rates, same_bits, stages, worker
from nivp_dist.bench.gpu.sizes import Size
from nivp_dist.bench.gpu.stages import Options, Screen, Stage
from nivp_dist.errors import RunFailed

TINY = Size(
    matrix=16, stream=100, n=50, d=2, depth=1, widths=(4,), columns=3, width=4, rank=4, iterations=3, rounds=1
)  # fmt: skip
# Each stage of this worker does what its name says. "patient" goes on when the test has seen its first measurement.
WORKER = """
import json, sys, time
from pathlib import Path

def write(**record):
    print(json.dumps(record), flush=True)

request = json.loads(sys.argv[1])
if request["stage"] == "crash":
    sys.exit("no device")
write(planned=["first", "second"])
if request["stage"] == "slow":
    time.sleep(1000)
write(measurement="first", seconds=1.5)
while request["stage"] == "patient" and not Path(request["trace"], "seen").exists():
    time.sleep(0.01)
write(measurement="second", **({"passed": False} if request["stage"] == "wrong" else {}))
"""


class Course:
    """What a command wrote to standard output, to standard error and to its file; complete: nothing is missing."""

    def __init__(self, folder: Path, minutes: float):
        self.folder, self.records, self.messages = folder, [], []
        output = folder / "gpu.jsonl"
        options = Options(minutes, folder, quick=True, output=output)
        self.complete = stages.run(options, Screen(self._write, self.messages.append))
        self.file = [json.loads(line) for line in output.read_text().splitlines()]
        self.ends = {record["stage"]: record for record in self.records if "outcome" in record}

    def _write(self, line: str) -> None:
        self.records.append(json.loads(line))
        if self.records[-1]["stage"] == "patient":
            (self.folder / "seen").touch()


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Four stages: one that fails, one that does not end, one that waits for the reader, one with a wrong result."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "stub_worker.py").write_text(WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
        patch.setattr(stages, "WORKER", "stub_worker")
        # A second for the stage that does not end, and minutes for the others.
        parts = {"crash": 300, "slow": 1, "patient": 300, "wrong": 300}
        patch.setattr(stages, "STAGES", tuple(Stage(*part) for part in parts.items()))
        return Course(folder, minutes=sum(parts.values()) / 60)


def test_a_line_is_written_as_soon_as_a_measurement_is_known(course):
    # The stage waits for the file that is written when its first measurement has been read.
    assert course.ends["patient"]["outcome"] == "finished"
    patient = [record.get("measurement") for record in course.records if record["stage"] == "patient"]
    assert patient == ["first", "second", None]


def test_a_stage_that_does_not_end_is_ended_and_the_later_ones_are_run(course):
    assert course.ends["slow"]["outcome"] == child_process.TIME_LIMIT
    assert list(course.ends) == ["crash", "slow", "patient", "wrong"]


def test_a_stage_that_fails_does_not_end_the_others(course):
    assert course.ends["crash"]["outcome"] == "no device (exit code 1)"
    assert course.ends["crash"]["left_out"] == ["crash"]
    assert any("no device" in line for line in course.messages)


def test_the_last_line_says_what_failed_and_what_was_left_out(course):
    last = course.records[-1]
    assert last["stage"] == "all"
    assert last["failed"] == ["crash: no device (exit code 1)", "wrong: second"]
    assert last["left_out"] == ["crash", *course.ends["slow"]["left_out"]] and course.ends["slow"]["left_out"]
    assert not course.complete


def test_the_file_holds_the_lines_of_standard_output(course):
    assert course.file == course.records


@pytest.mark.parametrize("used", [0.0, 0.25, 1.0])
def test_a_stage_gets_what_earlier_ones_did_not_need(monkeypatch, tmp_path, used):
    """The limits never exceed the minutes, and are those of STAGES, relative to each other."""
    now, limits = [0.0], []

    def follow(words, log, limit, take):
        limits.append(limit)
        now[0] += used * limit

    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(child_process, "follow", follow)
    assert stages.run(Options(13.0, tmp_path, False), Screen(lambda line: None, lambda line: None))
    whole = sum(stage.seconds for stage in stages.STAGES)
    assert limits[0] == pytest.approx(780 * stages.STAGES[0].seconds / whole)
    assert limits[-1] + now[0] - used * limits[-1] == pytest.approx(780)
    if used == 1.0:
        assert limits == pytest.approx([780 * stage.seconds / whole for stage in stages.STAGES])


def test_the_parent_leaves_the_gpu_to_its_stages():
    """A process that has started jax on a GPU holds most of its memory."""
    code = "import sys, nivp_dist.bench.gpu.stages, nivp_dist.bench.command_line; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=child_process.environment(), check=False).returncode == 0


def test_processes_that_a_stage_has_started_end_with_it(tmp_path):
    (tmp_path / "starter.py").write_text(
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(1000)']\n"
        "print(subprocess.Popen(command, stdout=subprocess.DEVNULL).pid)\n"
    )
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        assert child_process.follow(["starter"], tmp_path / "log", 200.0, lines.append) is None
    started = Path(f"/proc/{int(lines[0])}/stat")
    while started.exists() and started.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.01)  # the time limit of the test ends it if the process lives


def test_the_machine_is_described_by_a_real_worker(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "STAGES", (Stage("machine", 1),))
    records = []
    assert stages.run(
        Options(4.0, tmp_path, quick=True), Screen(lambda line: records.append(json.loads(line)), lambda line: None)
    )
    software, devices, doctor, end, last = records
    assert software["versions"]["jax"] and devices["platform"] == "cpu" and doctor["problems"] == []
    assert (end["outcome"], last["left_out"]) == ("finished", [])


# The measurements ------------------------------------------------------------------------------


def measured(plan):
    """name -> result, as the process of a stage writes them."""
    records = []
    worker.measure(plan, records.append)
    planned, *found = records
    assert planned == {"planned": [record["measurement"] for record in found]}
    return {record.pop("measurement"): record for record in found}


def test_a_measurement_that_raises_does_not_end_its_stage(capsys):
    def fail():
        raise MemoryError("RESOURCE_EXHAUSTED")

    found = measured([("large", fail), ("small", lambda: {"seconds": 1.0})])
    assert found["large"]["error"] == "MemoryError: RESOURCE_EXHAUSTED"
    assert found["small"]["seconds"] == 1.0


def test_products_agree_with_a_dense_jacobian_to_their_precision():
    double, coarse = (accuracy.product_errors(precision) for precision in ("float64", "tensorfloat32"))
    assert double["passed"] and coarse["passed"]
    assert coarse["errors"]["product"] > accuracy.BOUNDS["float32"]  # the bound of the next finer format notices


def test_a_velocity_agrees_with_a_dense_solve():
    found = accuracy.velocity_error("pcg", "float32")
    assert found["passed"] and found["error_of_rate"] < 1e-6
    assert found["iterations"] > 0


def test_rates_and_products_are_measured(monkeypatch):
    monkeypatch.setattr(timing, "SHORTEST", 1e-4)
    monkeypatch.setattr(rates, "ORDER", ("float32",))
    found = measured(rates.rates(TINY) + rates.products(TINY))
    assert [name.split(", ")[-1] for name in found] == [*rates.FORMATS, "memory", "float32"]
    assert not any("error" in line for line in found.values())
    product = found["width 4, float32"]
    for name, columns in (("product", 1), ("sketch", TINY.columns)):
        work = 4 * TINY.n * product["p"] * columns
        assert product[name]["operations_per_second"] == pytest.approx(work / product[name]["seconds"])
        assert product[name]["compile_seconds"] > 0


def test_an_evaluation_is_timed_without_its_compilation_and_profiled(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "SHORTEST", 1e-4)
    it = evaluation.Evaluation(TINY, "float32")
    found = measured(evaluation.plan(it) + evaluation.trace_plan(it, tmp_path / "trace"))
    assert not any("error" in line for line in found.values())
    assert found["compilation"]["velocity"]["compile_seconds"] > 0
    assert found["velocity"]["iterations"] == TINY.iterations
    assert found["parts"]["seconds"].keys() == {"approximation", "velocity with one product", "norms"}
    files = found["profile"]["files"]
    assert {Path(path).parent for path in files} == {tmp_path / "trace"}
    assert any(path.endswith(".xplane.pb") for path in files)


def test_large_files_of_a_profile_are_compressed_or_left_out(tmp_path):
    raw, folder = tmp_path / "raw" / "plugins" / "2026", tmp_path / "flat"
    raw.mkdir(parents=True)
    noise = random.Random(0).randbytes(3000)
    for name, content in {"small one.pb": b"x", "long.pb": bytes(3000), "noise.pb": noise}.items():
        (raw / name).write_bytes(content)
    found = evaluation.collect(tmp_path / "raw", folder, largest=1000)
    assert sorted(path.name for path in folder.iterdir()) == ["2026-long.pb.gz", "2026-small_one.pb"]
    assert list(found["left_out"]) == ["2026-noise.pb.gz"] and not found["passed"]


@pytest.mark.parametrize("changed", [False, True])
def test_the_runs_of_the_same_bits_are_compared(monkeypatch, tmp_path, changed):
    """The runs themselves are those of tests/run; here the words of their commands, and what a difference gives."""
    commands = []

    def evolve(words, log, limit):
        commands.append(words)
        return "integrator.max_steps = 9 reached at t = 0.06: raise it and resume" if "9" in words else None

    def read(directory):
        steps = {1: changed and directory.name == "again"}
        return Results({}, steps, [], {}, {"steps": 18, "cg_iterations": 100})

    monkeypatch.setattr(child_process, "evolve", evolve)
    monkeypatch.setattr(same_bits.outcome, "read", read)
    found = measured(same_bits.plan(tmp_path))
    assert [words[0] for words in commands] == ["run", "run", "resume", "run"]
    assert [words[-1] == "off" for words in commands] == [False, False, False, True]
    assert found["stopped and resumed"]["passed"]
    assert found["run again, compiled again"]["passed"] is not changed
    assert found["run again, compiled again"]["same"]["metrics"] is not changed


def test_a_run_that_fails_is_an_error_of_its_measurement(monkeypatch, tmp_path):
    monkeypatch.setattr(child_process, "evolve", lambda *arguments: "the GPU is lost")
    with pytest.raises(RunFailed, match="resumed: the GPU is lost"):
        dict(same_bits.plan(tmp_path))["stopped and resumed"]()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpu", "products"], "nivp: bench speed: the section gpu is measured alone"),
        (["products", "--minutes", "3"], "nivp: bench speed: --minutes and --profile are for the section gpu alone"),
        (["gpu", "--output", "there.jsonl"], "nivp: there.jsonl exists and is not overwritten"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").write_text("")
    assert cli.main(["bench", "speed", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1
