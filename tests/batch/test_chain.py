"""Chains of jobs: which of them has something to do, on made-up run directories and without a scheduler."""

import pytest

from nivp_dist.batch.chain import CANNOT, CHAIN, GOES_ON, NOTHING_LEFT, decide, main
from nivp_dist.storage import run_directory
from nivp_dist.storage.metrics import read_lines

NAME = "job-001.sbatch"


@pytest.fixture
def run(tmp_path):
    """Give the run a status, and a checkpoint after some transitions; its directory."""
    (tmp_path / "config.toml").write_text("")

    def run(status, transitions=4):
        run_directory.write_summary(tmp_path, {"status": status, "t": 0.5})
        (tmp_path / f"checkpoints/{transitions}").mkdir(parents=True, exist_ok=True)
        return tmp_path

    return run


def begin(directory, chain=NAME, job="7"):
    """The exit status of the program at the beginning of a job."""
    return main([str(directory), "--chain", chain, "--job", job], standalone_mode=False)


def test_the_jobs_of_a_chain_go_on_until_the_run_has_finished(run, tmp_path, capfd):
    assert begin(tmp_path, job="7") == GOES_ON  # nothing has been written yet
    assert begin(run("stopped", 4), job="8") == GOES_ON
    assert begin(run("running", 6), job="9") == GOES_ON  # a job that was killed leaves this status
    run("finished", 8)
    assert [begin(tmp_path, job=job) for job in ("10", "11")] == [NOTHING_LEFT] * 2
    lines = [f"nivp: nothing to do for job {job}: the run has finished" for job in (10, 11)]
    assert capfd.readouterr().err.splitlines() == lines
    assert [(line["job"], line["transitions"]) for line in read_lines(tmp_path / CHAIN)] == [
        ("7", 0), ("8", 4), ("9", 6)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "status, code, why",
    [("failed", CANNOT, "the run has failed"), ("event", NOTHING_LEFT, "a callback has stopped the run")],
)
def test_a_run_that_ended_otherwise_is_not_continued(run, status, code, why):
    directory = run("stopped", 4)
    begin(directory)
    assert decide(run(status, 5), NAME) == (code, why)


def test_an_end_from_before_the_chain_says_nothing(run):
    """A run that has finished goes on to a later t_end, and the first job is killed before it has written a summary."""
    directory = run("finished", 4)
    begin(directory)
    assert decide(directory, NAME) == (GOES_ON, "")
    assert decide(run("finished", 5), NAME)[0] == GOES_ON  # the same summary: the job has saved and was killed
    run_directory.write_summary(directory, {"status": "finished", "t": 1.0})
    assert decide(directory, NAME)[0] == NOTHING_LEFT


def test_two_jobs_without_progress_end_a_chain(run):
    """One may lose a node at once. Another chain begins anew, perhaps with a longer limit."""
    directory = run("stopped", 4)
    assert [begin(directory), begin(directory), begin(directory)] == [GOES_ON, GOES_ON, CANNOT]
    assert decide(directory, NAME)[1].startswith("two jobs of the chain have not advanced the run, t = 0.5: ")
    assert decide(directory, "job-002.sbatch") == (GOES_ON, "")
    assert decide(run("stopped", 5), NAME) == (GOES_ON, "")
