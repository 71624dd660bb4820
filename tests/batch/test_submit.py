"""`nivp submit` with a stand-in for Slurm: what it writes, what the job inherits, what a refusal leaves behind."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nivp_dist import cli
from nivp_dist.batch import jobs
from nivp_dist.settings.files import read_config
from nivp_dist.storage import run_directory
from nivp_dist.storage.lock import hold
from nivp_dist.storage.metrics import Lines

HEAT = '[problem]\nname = "heat"\n'
# Stand-ins: sbatch records what it is given, or refuses with the text in REFUSE; squeue answers with QUEUED about one
# job, and about all jobs with LISTED, or not at all if DOWN is set.
SBATCH = """#!/bin/bash
[ -z "$REFUSE" ] || { printf 'sbatch: error: %s\\n' "$REFUSE" "Batch job submission failed" >&2; exit 1; }
echo "$*" >> "$STAND_IN/submitted"
env > "$STAND_IN/environment"
echo "${JOB:-42};cluster"
"""
SQUEUE = """#!/bin/bash
echo "$*" >> "$STAND_IN/asked"
case "$*" in *%F*) [ -n "$DOWN" ] && echo "slurm_load_jobs error: Timed out" >&2 && exit 1
    printf '%b' "$LISTED"; exit ;; esac
[ -n "$QUEUED" ] && echo "$QUEUED" || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
"""


@pytest.fixture
def slurm(monkeypatch, tmp_path_factory):
    """The folder with the records of the stand-ins. The working directory holds heat.toml only."""
    folder, work = tmp_path_factory.mktemp("slurm"), tmp_path_factory.mktemp("work")
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("STAND_IN", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.delenv("NIVP_SITE", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.chdir(work)
    Path("heat.toml").write_text(HEAT)
    return folder


@pytest.fixture
def submit(slurm, capsys):
    """(exit code, stdout, stderr) of nivp submit."""

    def submit(*words):
        code = cli.main(["submit", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return submit


@pytest.fixture
def refused(submit):
    """A submission that must be refused in one line, and leave nothing behind."""

    def refused(*words):
        before = sorted(Path().rglob("*"))
        code, out, err = submit(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert sorted(Path().rglob("*")) == before
        return err.removeprefix("nivp: ").strip()

    return refused


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_new_run_is_queued(submit, slurm):
    code, out, err = submit("heat.toml", "--nodes", "2", "--seed", "3")
    directory = Path("runs/heat-001").resolve()
    assert (code, out, err) == (0, "42\n", f"nivp: run directory: {directory}\n")
    # All that it needs is in its directory: heat.toml may now be edited.
    assert read_config(directory / "config.toml").seed == 3
    assert (directory / "logs").is_dir()  # Slurm would not make it, and fail the job without a word
    (line,) = lines(directory / "jobs.jsonl")
    path = directory / "job-001.sbatch"
    assert (line["job"], line["script"]) == ("42", str(path))
    assert (slurm / "submitted").read_text() == f"--parsable {path}\n"
    assert path.stat().st_mode & 0o777 == 0o600  # the variables of the site file may be secrets
    text = path.read_text()
    assert f"run={directory}\n" in text and "#SBATCH --nodes=2\n" in text and f"python=({sys.executable})\n" in text


@pytest.mark.parametrize("inside", [False, True])
def test_the_job_inherits_the_environment_of_the_shell_but_not_its_place_in_a_group(submit, slurm, monkeypatch, inside):
    """Neither the platform that is set for the check, nor the variables of a group or a job that the shell is in."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    others = {"NIVP_PROCESSES": "1", "PMI_SIZE": "1", "PMIX_RANK": "0"}
    of_the_job = {"SLURM_CPUS_PER_TASK": "64", "SLURM_NTASKS": "8"} | ({"SLURM_JOB_ID": "7"} if inside else {})
    own = {"MINE": "kept", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "physics"}
    for name, value in (others | of_the_job | own).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert submit("heat.toml")[0] == 0
    handed = dict(line.split("=", 1) for line in (slurm / "environment").read_text().splitlines() if "=" in line)
    assert handed.keys() >= own.keys() and not handed.keys() & {"JAX_PLATFORMS", *others}
    assert (handed.keys() >= of_the_job.keys()) is not inside and "SLURM_JOB_ID" not in handed
    assert dict(os.environ) == before


def test_dry_run_writes_nothing(submit, slurm):
    before = sorted(Path().rglob("*"))
    code, out, err = submit("heat.toml", "--time", "4:00:00", "--dry-run")
    assert (code, err) == (0, "") and out.startswith("#!/bin/bash\n") and "#SBATCH --time=4:00:00\n" in out
    assert f"run={Path('runs/heat-001').resolve()}\n" in out
    assert "#SBATCH --array=0-1\n" in submit("heat.toml", "--sweep", "seed=1,2", "--dry-run")[1]
    assert sorted(Path().rglob("*")) == before and not (slurm / "submitted").exists()
    assert submit("heat.toml", "--output", "here")[0] == 0
    written = sorted(Path().rglob("*"))
    assert "run=" in submit("--resume", "here", "--dry-run")[1]
    assert sorted(Path().rglob("*")) == written


def test_dry_run_needs_no_slurm(submit, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert submit("heat.toml", "--dry-run")[0] == 0


def test_the_site_file_is_used(submit, slurm):
    (slurm / "nivp").mkdir()
    (slurm / "nivp/site.toml").write_text('account = "physics"\ntime = "1:00:00"\n')
    out = submit("heat.toml", "--dry-run", "--time", "2:00:00")[1]
    assert "#SBATCH --account=physics\n" in out and "#SBATCH --time=2:00:00\n" in out


@pytest.mark.parametrize("where", [(), ("--output", "here")])
@pytest.mark.parametrize("sweep", [(), ("--sweep", "seed=1,2")])
def test_a_job_that_sbatch_refuses(refused, monkeypatch, where, sweep):
    monkeypatch.setenv("REFUSE", "invalid partition specified: x")
    Path("runs").mkdir()
    line = refused("heat.toml", "--partition", "x", *where, *sweep)
    assert line == (
        "sbatch refuses: sbatch: error: invalid partition specified: x sbatch: error: Batch job submission failed"
    )


TIMED_OUT = "Socket timed out on send/recv operation"
LOST = f"sbatch: error: {TIMED_OUT} sbatch: error: Batch job submission failed"


@pytest.fixture
def timed_out(slurm, monkeypatch):
    """sbatch loses the controller, and nobody waits between the looks into the queue."""
    monkeypatch.setenv("REFUSE", TIMED_OUT)
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)


@pytest.mark.parametrize("sweep, ids", [((), ["7"]), (("--sweep", "seed=1,2"), ["7_0", "7_1"])])
def test_a_job_that_is_queued_although_sbatch_times_out(submit, timed_out, monkeypatch, sweep, ids):
    """squeue knows it by its script; other jobs are not mistaken for it."""
    directory = Path("here").resolve()
    script = directory / "job-001.sbatch"
    monkeypatch.setenv("LISTED", f"6|{directory}/job-002.sbatch\\n7|{script}\\n8|(null)\\n")
    code, out, err = submit("heat.toml", "--output", "here", *sweep)
    assert (code, out) == (0, "7\n") and err.startswith(f"nivp: warning: {LOST}: the job is queued all the same\n")
    runs = [directory / f"000{task}" for task in (0, 1)] if sweep else [directory]
    assert script.exists() and [line["job"] for run in runs for line in lines(run / "jobs.jsonl")] == ids


@pytest.mark.parametrize(
    "down, why", [("", "squeue does not show it"), ("yes", "squeue does not answer: slurm_load_jobs error: Timed out")]
)
def test_the_directory_of_a_job_that_may_be_queued_is_kept(submit, refused, timed_out, monkeypatch, slurm, down, why):
    """The controller may queue the job later. A resume looks for it again, and goes on if it is not there."""
    directory = Path("it's").resolve()
    monkeypatch.setenv("DOWN", down)
    code, out, err = submit("heat.toml", "--output", "it's")
    later = f"if `squeue --me` does not show a job it's later: nivp submit --resume '{directory.parent}/it'\"'\"'s'"
    assert (code, out) == (1, "")
    assert err == f"nivp: {LOST}: the job may be queued, and {why}: {directory} is kept; {later}\n"
    assert (directory / "job-001.sbatch").exists() and (directory / "config.toml").exists()
    assert len((slurm / "asked").read_text().splitlines()) == len(jobs.LOOK_AFTER)

    monkeypatch.setenv("REFUSE", "")
    if down:
        assert refused("--resume", "it's").startswith("squeue does not answer: ")
    monkeypatch.setenv("DOWN", "")
    monkeypatch.setenv("LISTED", f"7|{directory}/job-001.sbatch\\n")
    monkeypatch.setenv("QUEUED", "PENDING")
    assert refused("--resume", "it's") == f"{directory}: its job 7 is pending: `scancel 7` first"
    monkeypatch.setenv("LISTED", "")
    assert submit("--resume", "it's")[:2] == (0, "42\n")


@pytest.mark.parametrize(
    "words, line",
    [
        ((), "command line: CONFIG is missing; see nivp --help"),
        (("heat.toml", "--node", "2"), "command line: unknown option --node; the nearest is --nodes"),
        (("heat.toml", "--seedd", "2"), "command line: unknown key seedd; the nearest is seed"),
        (("heat.toml", "--nodes", "0"), "Invalid value for '--nodes'"),
        (("heat.toml", "--problem.name", "haet"), "problem.name: there is no problem 'haet'; the nearest is 'heat'"),
        (("heat.toml", "--problem.parameters.dimension", "0"), "problem heat: problem.parameters.dimension must be a "),
        (("heat.toml", "--nodes", "2", "--devices", "1"), "devices = 1: a job of several processes uses all that it "),
        (("heat.toml", "--gpus-per-node", "1", "--devices", "4"), "devices = 4, but the job has 1: lower it, "),
        (("heat.toml", "--gpus-per-node", "2"), "environment: JAX_PLATFORMS=cpu would be handed on to a job with GPUs"),
        (("heat.toml", "--output", "heat.toml"), "heat.toml: a file of that name is in the way; choose another with "),
        (("heat.toml", "--output", "heat.toml", "--dry-run"), "heat.toml: a file of that name is in the way; choose "),
        (("heat.toml", "--output", "heat.toml", "--sweep", "seed=1"), "heat.toml: a file of that name is in the way"),
        (("heat.toml", "--partition", ""), 'command line: --partition must be one line and not empty, got ""'),
        (("heat.toml", "--account", "a\n#SBATCH -x"), 'command line: --account must be one line and not empty, got "a'),
        (("heat.toml", "--array-limit", "2"), "command line: --array-limit is for sweeps: add --sweep KEY=V1,V2, or "),
        (("heat.toml", "--sweep", "seed"), "command line: seed: write it as key=value,value"),
        (("heat.toml", "--sweep", "seed=1,2", "--seed", "3"), "command line: seed is given twice"),
        (("heat.toml", "--sweep", "seed=1", "--sweep", "seed=2"), "command line: seed is given twice"),
        (
            ("heat.toml", "--sweep", "seed=1,-2"),
            "command line: seed must be a whole number from 0 to 922337203",
        ),
        (("heat.toml", "--sweep", "seed=1,2,1"), "command line: seed=1,2,1: 1 stands there twice; remove one"),
        (("heat.toml", "--output", "a\nb"), "the run directory holds a line break or another control character, "),
        (("heat.toml", "--output", "a\nb", "--dry-run"), "the run directory holds a line break or another control "),
        (("heat.toml", "--sweep", "sed=1"), "command line: unknown key sed; the nearest is seed"),
        (("--resume", "none"), "{cwd}/none: not the directory of a run (it holds no config.toml)"),
        (("--resume", "x", "heat.toml"), "command line: --resume DIR goes without CONFIG, --output and --sweep"),
    ],
)
def test_bad_input(refused, words, line):
    assert refused(*words).startswith(line.format(cwd=Path.cwd()))


def test_a_mistake_in_the_parameters_of_a_network_is_found_before_the_queue(refused):
    text = "import flax.linen as nn\n\n\nclass Mine(nn.Module):\n    outputs: int\n    rank: int = 3\n"
    Path("mine.py").write_text(text)
    words = ("--network.file", "mine.py", "--network.class", "Mine", "--network.parameters.rnk", "4")
    line = f"{Path.cwd()}/mine.py: unknown key network.parameters.rnk; the nearest is rank"
    assert refused("heat.toml", *words) == line


def test_without_slurm_nothing_is_made(refused, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert refused("heat.toml").startswith("sbatch is not here: submit from a login node of a Slurm cluster, or use ")


def test_the_directory_of_a_queued_job_that_cannot_be_recorded_stays(submit, monkeypatch):
    """The job needs it."""
    monkeypatch.setenv("JOB", "43")
    submit("heat.toml", "--output", "r")

    def refuse(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Lines, "append", refuse)
    code, out, err = submit("--resume", "r")
    assert (code, out) == (1, "43\n") and err.endswith(" cannot be written: Disk quota exceeded\n")
    assert err.startswith("nivp: job 43 is queued, but ")
    assert Path("r/job-002.sbatch").exists()


@pytest.mark.parametrize(
    "times, notice",
    [([], 120), ([5.0], 120), ([0.0, 30.0, 60.0], 120), ([0.0, 20.0, 121.5, 140.0], 305), ([0.0, 1e6], 65535)],
)
def test_the_notice_of_a_run_that_is_continued_follows_its_longest_step_and_save(submit, times, notice):
    assert submit("heat.toml", "--output", "r")[0] == 0
    for number, seconds in enumerate(times, start=1):
        Lines("r/metrics.jsonl").append({"step": number, "t": 0.1 * number, "wall_seconds": seconds})
    assert f"--signal=USR2@{notice}\n" in submit("--resume", "r", "--dry-run")[1]
    assert "--signal=USR2@50\n" in submit("--resume", "r", "--dry-run", "--notice", 50)[1]


def test_a_time_limit_below_the_notice_that_a_run_needs_is_refused(submit, refused):
    submit("heat.toml", "--output", "r")
    for number, seconds in enumerate((0.0, 200.0), start=1):
        Lines("r/metrics.jsonl").append({"step": number, "wall_seconds": seconds})
    line = "a notice of 600 s is not shorter than the time limit, 10: lower --notice or raise --time"
    assert refused("--resume", "r", "--time", "10") == line
    assert submit("--resume", "r", "--time", "11", "--dry-run")[0] == 0


def test_resume(submit, refused, monkeypatch):
    submit("heat.toml", "--output", "r")
    monkeypatch.setenv("QUEUED", "PENDING")
    assert refused("--resume", "r") == f"{Path('r').resolve()}: its job 42 is pending: `scancel 42` first"
    monkeypatch.setenv("QUEUED", "")
    with hold("r"):
        assert refused("--resume", "r").startswith(f"{Path('r').resolve()}: in use by another process")
    monkeypatch.setenv("JOB", "43")
    assert submit("--resume", "r", "--nodes", "2", "--integrator.t_end", "2")[:2] == (0, "43\n")
    assert "    --integrator.t_end 2 \\\n" in Path("r/job-002.sbatch").read_text()
    assert [line["job"] for line in lines("r/jobs.jsonl")] == ["42", "43"]
    assert refused("--resume", "r", "--seed", "1").startswith("command line: seed decides the result and cannot change")
    run_directory.write_summary("r", {"status": "finished"})
    assert refused("--resume", "r") == f"{Path('r').resolve()}: nothing is left to do; --integrator.t_end goes further"
    assert submit("--resume", "r", "--integrator.t_end", "3")[0] == 0
    monkeypatch.setenv("REFUSE", "no")
    assert refused("--resume", "r", "--integrator.t_end", "3").startswith("sbatch refuses: ")


def test_a_sweep(submit, refused, slurm):
    sweep = ("--sweep", "output.times=[0.1, 0.2],[]", "--sweep", "solver.method=dual,primal", "--array-limit", "2")
    code, out, err = submit("heat.toml", *sweep)
    parent = Path("runs/heat-sweep-001").resolve()
    assert (code, out, err) == (0, "42\n", f"nivp: sweep directory: {parent}\n")
    assert "#SBATCH --array=0-3%2\n" in (parent / "job-001.sbatch").read_text()
    assert lines(parent / "sweep.jsonl")[1] == {
        "task": 1, "directory": "0001", "output.times": "[0.1, 0.2]", "solver.method": "primal"
    }  # fmt: skip
    configs = [read_config(parent / f"000{task}/config.toml") for task in range(4)]
    assert [config.output.times for config in configs] == [[0.1, 0.2], [0.1, 0.2], [], []]
    assert [config.solver.method for config in configs] == ["dual", "primal"] * 2
    assert all((parent / f"000{task}/logs").is_dir() for task in range(4))
    assert [line["job"] for line in lines(parent / "0003/jobs.jsonl")] == ["42_3"]

    # What is left of it goes on: as a whole, or one by one.
    for task in (0, 3):
        run_directory.write_summary(parent / f"000{task}", {"status": "finished"})
    assert submit("--resume", parent)[0] == 0
    assert "#SBATCH --array=1-2\n" in (parent / "job-002.sbatch").read_text()
    assert submit("--resume", parent / "0001")[0] == 0
    assert "--jobs=42_1" in (slurm / "asked").read_text()
    for task in range(4):
        run_directory.write_summary(parent / f"000{task}", {"status": "finished"})
    assert refused("--resume", parent).endswith("nothing is left to do; --integrator.t_end goes further")
    assert submit("--resume", parent, "--integrator.t_end", "2")[0] == 0
    assert "#SBATCH --array=0-3\n" in (parent / "job-003.sbatch").read_text()


def test_every_run_of_a_sweep_has_the_files_of_its_problem(submit, refused):
    """They may be edited while the job waits; a copy that was edited is another equation."""
    Path("own.py").write_text(
        "import rate\nfrom nivp_dist.problems.heat import Heat\n\n\nclass Own(Heat):\n    k = rate.K\n"
    )
    Path("rate.py").write_text("K = 1\n")
    Path("own.toml").write_text('[problem]\nfile = "own.py"\nclass = "Own"\n')
    assert submit("own.toml", "--output", "s", "--sweep", "seed=1,2")[0] == 0
    Path("rate.py").write_text("K = 2\n")
    assert [Path(f"s/000{task}/problem/rate.py").read_text() for task in (0, 1)] == ["K = 1\n"] * 2
    assert submit("--resume", "s")[0] == 0
    Path("s/0001/problem/rate.py").write_text("K = 2\n")
    assert refused("--resume", "s").startswith(
        f"{Path('s/0001/problem/rate.py').resolve()}: has changed since the run "
    )


def test_a_sweep_that_cannot_be_made_leaves_nothing(refused, monkeypatch):
    create = run_directory.create

    def full(config, directory, *rest):
        if Path(directory).name == "0001":
            raise OSError(28, "No space left on device", str(directory))
        return create(config, directory, *rest)

    monkeypatch.setattr(run_directory, "create", full)
    line = refused("heat.toml", "--output", "s", "--sweep", "seed=1,2")
    assert line == f"{Path('s').resolve()}: cannot be written: No space left on device; choose another with --output"


def test_the_gpu_of_the_login_node_stays_free(slurm):
    """In a process of its own: jax is asked for the host alone, though nothing in the environment says so."""
    code = "from nivp_dist import cli; cli.main(['submit', 'heat.toml', '--dry-run'])\nimport jax, os\n"
    code += "print(jax.config.jax_platforms, os.environ.get('JAX_PLATFORMS'))"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "cpu None"
