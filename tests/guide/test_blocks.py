"""Every fenced block and every command of README and guide: what a reader copies must work."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import click
import jax
import pytest
from documents import DOCUMENTS, ROOT, Block, blocks, spans

from nivp_dist import cli
from nivp_dist.settings.command_line import parse
from nivp_dist.settings.files import shipped, shipped_configs
from nivp_dist.settings.keys import known_keys, sections

SMALL = "--sampling.points 600 --fit.points 600 --output.evaluation_points 2000 --solver.method primal"
# command -> what is added to it here, so that it takes seconds
SHORTER = {
    "nivp run linear_fokker_planck_8d": f"{SMALL} --network.width 6 --integrator.rtol 1e-2 --fit.iterations 15"
    " --fit.on_miss continue --devices 1",
    "nivp run drum.toml --output drum": f"{SMALL} --accuracy 3e-2 --network.width 8 --devices 1 --fit.iterations 20"
    " --output.plots false",
    "launch/local 2 drum.toml --output both": f"{SMALL} --accuracy 3e-2 --network.width 4 --integrator.t_end 0.02"
    " --output.times [] --fit.iterations 3 --fit.on_miss continue --output.plots false",
    "nivp run mixture.toml --output mixture": f"{SMALL} --network.width 6 --integrator.rtol 1e-2 --devices 1"
    " --integrator.t_end 0.2 --fit.iterations 20 --fit.on_miss continue --output.plots false",
    "nivp run flock.toml --output flock": f"{SMALL} --accuracy 3e-2 --integrator.t_end 0.05 --devices 1"
    " --fit.iterations 8 --fit.on_miss continue --output.plots false",
}
# prefix of a command -> why it is not run. Its words are checked all the same if it is one of ours.
NOT_RUN = {
    "nivp run drum.toml --output slow": "the command before it is the same run",
    "nivp run heat_periodic_2d --accuracy": "other documents run such a command",
    "nivp run advection_2d --restart.every": "tests/run/test_refits.py makes such a run",
    "python -m nivp_dist.guide.examples.": "tests/guide/test_examples.py runs every example",
    "jupytext ": "tests/guide/test_examples.py checks the format of the cells",
    "nivp doctor --compile-for": "tests/bench/test_compile_check.py does, where the plugin of jax for CUDA is",
    "pip install": "the continuous integration runs it",
    "pytest": "this is a part of it",
    "ruff ": "the continuous integration runs it",
    "pyright": "the continuous integration runs it",
    ".ci/run": "it runs this test",
    "mpirun ": "tests/cluster/test_processes.py runs it",
    "srun ": "tests/cluster/test_slurm.py runs it",
    "launch/local 2 fokker_planck_trap_5d": "first_problem runs a smaller one",
    "launch/local 2 doctor": "tests/cluster/test_doctor.py runs it",
    "export NIVP_SECRET": "tests/cluster/test_secret.py has this variable",
    "export XLA_FLAGS=--xla_cpu_max_isa": "tests/cluster/test_agreement.py has this variable",
    "NIVP_PROCESSES=1": "tests/cluster/test_topology.py has these variables",
    "nivp status runs/fokker_planck_trap_5d-001": "it needs the run of the job before it",
    "nivp watch runs/fokker_planck_trap_5d-001": "it needs the run of the job before it",
    "nivp submit --resume": "it needs the run of the job before it",
    "nivp resume runs/fokker_planck_trap_5d-001": "it needs the run of the job before it",
    "nivp run wave_2d_long": "it takes minutes",
    "nivp run heat_2d --cluster.reproducible": "tests/run/test_reproducible.py makes such runs",
    "nivp run wave_3d": "it takes minutes",
    "nivp sweep heat_2d": "tests/studies/test_sweep.py carries out a smaller one",
    "nivp study scaling": "tests/test_cli.py runs the quick one",
    "nivp bench accuracy --markdown": "it takes two hours",
    "nivp bench held": "it takes hours; tests/bench/test_held.py has made-up runs",
    "nivp bench faults": "tests/bench/test_faults.py runs every kind",
    "nivp bench speed": "tests/bench/test_speed.py and test_gpu.py run every section",
    "PYTHONPATH=site:. python -m nivp_dist bench speed gpu": "tests/bench/test_gpu.py runs it from the source",
}


@pytest.fixture
def cache(compiled):
    """Programs are compiled once for a run and its continuations, also in the processes of a launcher."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(compiled), 0.0)):
        jax.config.update(name, value)
    yield compiled
    for name, value in zip(names, before):
        jax.config.update(name, value)


@pytest.mark.timeout(600)  # first_problem has five runs, one of them on two processes
@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_are_executed(document, tmp_path, monkeypatch, capsys, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NIVP_SITE", raising=False)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    names, shown = {"__name__": "guide_block"}, ""
    for block in blocks(document):
        if block.file is not None:
            Path(block.file).write_text(block.body)
        elif block.language == "python":
            exec(compile(block.body, block.place, "exec"), names)
        elif block.language == "sh":
            shown = "".join(run(command, block, capsys) for command in block.commands())
        else:
            assert block.language == "text", f"{block.place}: a block of {block.language} without a file"
            assert_shown(block, shown)


def run(command: str, block: Block, capsys) -> str:
    """Execute a command as far as it can be; what it writes."""
    if block.mark != "fails":
        for part in command.split(" && "):
            check_words(part, block.place)
    if any(command.startswith(prefix) for prefix in NOT_RUN):
        return ""
    words = shlex.split(f"{command} {SHORTER.get(command, '')}")
    if words[:2] == ["nivp", "submit"] and "--dry-run" not in words:
        words.append("--dry-run")
    capsys.readouterr()
    if words[0] == "nivp":
        with mock.patch.dict(os.environ):
            if words[1] == "submit":  # it refuses to hand this on to a job with GPUs
                os.environ.pop("JAX_PLATFORMS", None)
            code = cli.main(words[1:])
    else:
        assert words[0] == "launch/local", f"{block.place}: {command}: neither run nor listed as not run"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
        launcher = [sys.executable, str(shipped("launch") / "local")]
        code = subprocess.run([*launcher, *words[1:]], env=environment, timeout=300).returncode
    captured = capsys.readouterr()
    assert (code != 0) is (block.mark == "fails"), f"{block.place}: {command}: exit code {code}\n{captured.err}"
    return captured.out + captured.err


def assert_shown(block: Block, shown: str) -> None:
    """The output in the document has the form of what was written; numbers and paths may differ."""
    lines = {form(line) for line in shown.splitlines()}
    for line in block.body.splitlines():
        if form(line) and line.strip() != "...":
            assert form(line) in lines, f"{block.place}: nothing like this was written: {line}\n{shown}"


def form(line: str) -> str:
    """A line without its numbers, paths, leading time and spacing."""
    line = re.sub(r"^\d:\d\d:\d\d ", "", line)
    line = re.sub(r"(?<!\w)/\S+", "PATH", line)
    line = re.sub(r"[-+]?\d[\d.]*(e[-+]\d+)?", "#", line)
    line = re.sub(r"(# min )?# s\b", "# s", line)
    return re.sub(r"\b(step|refit)s\b", r"\1", " ".join(line.split()))


# ---------------------------------------------------------------------------------------------- words


def check_words(command: str, place: str) -> None:
    """A command of ours has a name, options and keys that exist."""
    words = shlex.split(command)
    while words and "=" in words[0]:
        words.pop(0)
    if words[:1] == ["launch/local"]:
        words = ["nivp", *(words[2:] if words[2] in ("resume", "doctor") else ["run", *words[2:]])]
    elif "nivp" in words:  # after srun, mpirun and their options
        words = words[words.index("nivp") :]
    if words[:1] != ["nivp"] or len(words) == 1 or words[1] == "--help":
        return
    group, words = cli.nivp, words[1:]
    while isinstance(group, click.Group) and words:
        assert words[0] in group.commands, f"{place}: {command}: there is no command {words[0]}"
        group = group.commands[words.pop(0)]
    if not words:
        return
    context = group.make_context(group.name, list(words))
    if group.name in ("run", "resume", "submit", "sweep"):
        positional, overrides = parse(context.params["arguments"])
        unknown = [key for key in overrides if key not in known_keys() and not key.startswith("problem.parameters.")]
        assert not unknown, f"{place}: {command}: unknown keys {unknown}"
        if group.name == "run":
            (name,) = positional
            assert name in ("CONFIG", "DIR/config.toml") or name.endswith(".toml") or name in shipped_configs(), command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_the_text_exist(document):
    for span in spans(document):
        if re.match(r"(nivp|srun nivp|mpirun|launch/local \d) ", span) and "TOPIC" not in span:
            check_words(span, document)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_keys_in_the_text_exist(document):
    for span in spans(document):
        key = re.match(r"([\w.]+)\.(\w+)(?= =|$)", span)
        if key and key[1] in sections() and not span.endswith((".py", ".md", ".toml")):
            assert key[0] in known_keys() or key[0] == "problem.parameters", f"{document}: {span}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_in_the_text_exist(document):
    written = {block.file for block in blocks(document)}
    for span in spans(document):
        if span not in written and re.fullmatch(r"[\w./]+/[\w.]*\.(py|toml|md)|[\w/]+\.py", span):
            assert any((folder / span).exists() for folder in (ROOT, ROOT / "nivp_dist")), f"{document}: {span}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_in_the_text_exist(document):
    """Classes, functions and constants in code spans stand somewhere in the code, or in a block of the document."""
    files = [*ROOT.glob("nivp_dist/**/*.py"), *ROOT.glob("configs/*.toml"), *ROOT.glob("slurm/*"), *ROOT.glob("*.toml")]
    known = " ".join(path.read_text() for path in [*files, ROOT / "launch/local"])
    known += " ".join(block.body for block in blocks(document))
    for span in spans(document):
        if " --" in span or "/" in span or span.endswith(".py") or span in shipped_configs():
            continue  # commands and files have tests of their own
        for name in re.findall(r"\b[A-Z]\w*[a-z]\w*\b|\b\w+_\w+\b|\b[A-Z_]{4,}\b", span):
            variable = name in ("CONFIG", "TOPIC", "NUMBER", "invariant_NAME", "NAME", "estimate_", "small_share_LAYER")
            assert variable or re.search(rf"\b{name}\b", known), f"{document}: `{span}`: {name} is nowhere in the code"
