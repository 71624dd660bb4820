"""The command line with a stand-in for the controller: exit codes, one line for every mistake, files."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
import types
from pathlib import Path

import click
import jax
import pytest

import nivp_dist
from nivp_dist import cli
from nivp_dist.bench import accuracy
from nivp_dist.errors import InputError, RunFailed, RunStopped
from nivp_dist.settings.files import describe_config, read_config, shipped_configs
from nivp_dist.storage import metrics, run_directory
from nivp_dist.storage.lock import hold, in_use

HEAT = '# Heat in two dimensions.\n# time: 1 min\n[problem]\nname = "heat"\n'
LAUNCHER = Path(nivp_dist.__file__).parent / "launch/local"
if not LAUNCHER.exists():  # a checkout, not an installed wheel
    LAUNCHER = Path(nivp_dist.__file__).parent.parent / "launch/local"


class Calls(list):
    """The calls of the stand-in, and what it shall raise."""

    raises = None
    leave_checkpoint = False


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Calls of a stand-in for controller.evolve: (config, directory, resume). Working directory: tmp_path."""
    calls = Calls()

    def evolve(config, directory, *, resume=False, reporter, problem, callbacks=(), ending):
        assert in_use(directory)
        calls.append((config, directory, resume))
        if calls.leave_checkpoint:
            (directory / "checkpoints/3").mkdir(parents=True, exist_ok=True)
        if calls.raises is not None:
            raise calls.raises
        return {"status": "finished"}

    monkeypatch.setattr("nivp_dist.run.controller", types.SimpleNamespace(evolve=evolve), raising=False)
    reporter = types.SimpleNamespace(Reporter=contextlib.nullcontext)
    monkeypatch.setitem(sys.modules, "nivp_dist.report.progress", reporter)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heat.toml").write_text(HEAT)
    return calls


@pytest.fixture
def refused(calls, capsys):
    """Run a command that is bad input: exit 2, one line on stderr (given back), nothing evolved, no directory left."""

    def refused(*arguments):
        before = sorted(Path().rglob("*"))
        assert cli.main(list(arguments)) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert calls == [] and sorted(Path().rglob("*")) == before
        return captured.err.strip()

    return refused


def test_run_evolves_what_the_directory_records(calls, tmp_path):
    assert cli.main(["run", "heat.toml", "--solver.mu", "1e-8", "--output.times=[0.5]", "--solver.method", "dual"]) == 0
    config, directory, resume = calls[0]
    assert directory == tmp_path / "runs/heat-001" and resume is False
    assert (config.solver.mu, config.solver.method, config.output.times) == (1e-8, "dual", [0.5])
    assert read_config(directory / "config.toml") == config
    assert not in_use(directory)


def test_run_into_a_given_directory_with_options_first(calls, tmp_path):
    assert cli.main(["run", "--output", "here", "--seed", "3", "heat.toml"]) == 0
    assert calls[0][1] == tmp_path / "here" and calls[0][0].seed == 3


def test_run_of_a_problem_file_uses_the_copy(calls, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import jax.numpy as jnp\nfrom nivp_dist import Box, Problem\n\n\nclass Mine(Problem):\n    domain = Box(1)\n\n"
        "    def initial(self, x):\n        return 1 - x[0] ** 2\n\n    def rhs(self, u, x, t):\n        return -u(x)\n"
    )
    (tmp_path / "mine.toml").write_text('[problem]\nfile = "mine.py"\nclass = "Mine"\n')
    assert cli.main(["run", "mine.toml"]) == 0
    assert calls[0][0].problem.file == str(calls[0][1] / "problem/mine.py")


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["run"], "command line: CONFIG is missing; see nivp --help"),
        (["run", "a", "b"], "command line: one CONFIG expected, got a b; options are --section.key value"),
        (["run", "nope.toml"], "nope.toml: no such configuration file; `nivp problems` lists the shipped ones"),
        (["run", "heat.toml", "--seed"], "command line: --seed needs a value"),
        (["run", "heat.toml", "--seed", "--solver.mu", "1"], "command line: --seed needs a value"),
        (["run", "heat.toml", "--seed", "1", "--seed=2"], "command line: --seed is given twice"),
        (
            ["run", "heat.toml", "--seed", "-1"],
            "command line: seed must be a whole number from 0 to 9223372036854775807, ",
        ),
        (
            ["run", "heat.toml", "--solver.tolerance", "1"],
            "command line: unknown key solver.tolerance; the nearest is solver.rtol",
        ),
        (
            ["run", "heat.toml", "--problem.name", "haet"],
            "problem.name: there is no problem 'haet'; the nearest is 'heat'",
        ),
        (
            ["run", "heat.toml", "--problem.parameters.dimension", "0"],
            "problem heat: problem.parameters.dimension must be a whole number of at least 1, got 0",
        ),
        (
            ["run", "heat.toml", "--devices", "4096"],
            f"devices = 4096, but there are {jax.device_count()}: lower it, or 0 for all of them",
        ),
        (
            ["resume", "none"],
            "none: not the directory of a run (it holds no config.toml): name one that `nivp run` has made, such as",
        ),
        (["status", "none"], "none: not the directory of a run (it holds no config.toml)"),
        (["watch", "none"], "none: not the directory of a run (it holds no config.toml)"),
        (["plot", "none"], "none: not the directory of a run (it holds no config.toml)"),
        (["resume", "none", "--patience", "-1"], "Invalid value for '--patience': -1.0 is not in the range x>=0."),
        (["runn"], "No such command 'runn'."),
        (["status"], "Missing argument 'DIR'."),
    ],
)
def test_bad_input(refused, arguments, line):
    assert refused(*arguments).startswith(f"nivp: {line}")


@pytest.mark.parametrize(
    "method, body, line",
    [
        ("rhs", "return jnp.stack([u(x), u(x)])", "Mine.rhs(u, x, t) must have shape () (outputs = 1), got (2,)"),
        ("rhs", "return u(x) / t", None),
        (
            "initial",
            "return jnp.cos(x[0])",
            "Mine.initial(x) must vanish on the walls: |u0| = 0.54 at x[0] = -1 (max |u0| = 1)",
        ),
    ],
)
def test_ill_posed_problems(refused, tmp_path, method, body, line):
    bodies = {"initial": "return 1 - x[0] ** 2", "rhs": "return -u(x)"} | {method: body}
    (tmp_path / "mine.py").write_text(
        "import jax.numpy as jnp\nfrom nivp_dist import Box, Problem\n\n\nclass Mine(Problem):\n    domain = Box(1)\n\n"
        f"    def initial(self, x):\n        {bodies['initial']}\n\n"
        f"    def rhs(self, u, x, t):\n        {bodies['rhs']}\n"
    )
    (tmp_path / "mine.toml").write_text('[problem]\nfile = "mine.py"\nclass = "Mine"\n')
    found = refused("run", "mine.toml")
    if line is None:
        text = "Mine.rhs(u, x, t) at t = 0 with u = initial is not finite at 64 of 64 points"
        assert found.startswith(f"nivp: {tmp_path}/mine.py: {text}")
    else:
        assert found == f"nivp: {tmp_path}/mine.py: {line}"


def test_a_reference_that_disagrees_with_the_initial_condition_is_a_warning_before_the_run(calls, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "import jax.numpy as jnp\nfrom nivp_dist import Box, Problem\n\n\nclass Mine(Problem):\n    domain = Box(1)\n\n"
        "    def initial(self, x):\n        return 1 - x[0] ** 2\n\n"
        "    def rhs(self, u, x, t):\n        return -u(x)\n\n"
        "    def reference(self, x, t):\n        return 2 - x[:, 0] ** 2\n"
    )
    (tmp_path / "mine.toml").write_text('[problem]\nfile = "mine.py"\nclass = "Mine"\n')
    for words in (["run", "mine.toml", "--output", "r"], ["resume", "r"], ["submit", "mine.toml", "--dry-run"]):
        assert cli.main(words) == 0
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "warning" in line)
        assert (
            line.startswith("nivp: warning: ") and "Mine.reference(x, t = 0) differs from Mine.initial(x) by 1 " in line
        )


def test_a_directory_in_use_is_refused(refused, tmp_path):
    run_directory.create(read_config("heat.toml"), tmp_path / "taken", "x")
    line = "nivp: taken: holds another run; use `nivp resume taken`, or another --output"
    assert refused("run", "heat.toml", "--output", "taken") == line


def test_refused_by_the_controller_leaves_no_directory(calls, capsys):
    calls.raises = InputError("sampling.points = 3 is less than one for each device")
    assert cli.main(["run", "heat.toml", "--output", "new"]) == 2
    assert capsys.readouterr().err == "nivp: sampling.points = 3 is less than one for each device\n"
    assert not Path("new").exists()


@pytest.mark.parametrize("error, code", [(RunFailed("h fell below\n min_step"), 1), (RunStopped("resume goes on"), 75)])
def test_exit_codes_of_runs_that_do_not_finish(calls, capsys, error, code):
    calls.raises = error
    assert cli.main(["run", "heat.toml"]) == code
    assert capsys.readouterr().err == f"nivp: {' '.join(str(error).split())}\n"
    assert Path("runs/heat-001/config.toml").exists()


@pytest.mark.parametrize("checkpoint, code", [(True, 75), (False, 1)])
def test_a_second_interrupt(calls, capsys, tmp_path, checkpoint, code):
    calls.raises, calls.leave_checkpoint = KeyboardInterrupt(), checkpoint
    assert cli.main(["run", "heat.toml"]) == code
    assert ("nivp resume" in capsys.readouterr().err) is checkpoint


def test_a_defect_shows_its_traceback(calls, capfd):
    calls.raises = ZeroDivisionError("oops")
    assert cli.main(["run", "heat.toml"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_resume_keeps_the_changes_for_the_next_one(calls):
    cli.main(["run", "heat.toml", "--output", "r"])
    assert cli.main(["resume", "r", "--integrator.t_end", "2"]) == 0
    assert cli.main(["resume", "r"]) == 0
    assert [call[0].integrator.t_end for call in calls] == [1.0, 2.0, 2.0]
    assert [call[2] for call in calls] == [False, True, True]


def test_run_resumes_the_run_that_is_present(calls, capsys):
    calls.leave_checkpoint = True
    again = ["run", "heat.toml", "--resume-if-present"]
    assert cli.main([*again, "--output", "r"]) == 0 and cli.main([*again, "--output", "r"]) == 0
    assert cli.main([*again, "--output", "r", "--integrator.t_end", "2"]) == 0
    assert [(call[0].integrator.t_end, call[2]) for call in calls] == [(1.0, False), (1.0, True), (2.0, True)]
    assert capsys.readouterr().err == ""
    assert cli.main([*again, "--output", "r", "--solver.mu", "1e-7"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("nivp: ") and "r: holds a run with solver.mu = " in line and "now it is 1e-07" in line
    assert cli.main(again) == 2
    assert capsys.readouterr().err == "nivp: --resume-if-present needs the directory of the run: --output DIR\n"


def test_the_run_that_is_present_keeps_its_problem_file(calls, tmp_path, capsys):
    """An edited file is another equation."""
    calls.leave_checkpoint = True
    own = "from nivp_dist.problems.heat import Heat\n\n\nclass Own(Heat):\n    pass\n"
    Path("heat.py").write_text(own)
    words = ["run", "own.toml", "--resume-if-present", "--output", "r"]
    Path("own.toml").write_text("[problem]\nfile = 'heat.py'\nclass = 'Own'\n")
    assert cli.main(words) == 0 and cli.main(words) == 0
    assert [call[2] for call in calls] == [False, True]
    Path("heat.py").write_text(f"{own}    # edited\n")
    assert cli.main(words) == 2
    assert "holds a run with other contents of problem.file: it cannot go on" in capsys.readouterr().err


def test_resume_with_settings_that_the_controller_refuses_keeps_the_old_ones(calls, capsys):
    cli.main(["run", "heat.toml", "--output", "r"])
    before = Path("r/config.toml").read_bytes()
    calls.raises = InputError("integrator.t_end = 0.1 is behind t = 0.5")
    assert cli.main(["resume", "r", "--integrator.t_end", "0.1"]) == 2
    assert Path("r/config.toml").read_bytes() == before


def test_a_resume_to_an_earlier_end_is_one_line(calls, capsys):
    cli.main(["run", "heat.toml", "--output", "r", "--output.times=[0.25,0.75]"])
    run_directory.write_summary("r", {"status": "stopped", "t": 0.5})
    capsys.readouterr()
    for words in (["resume", "r"], ["submit", "--resume", "r", "--dry-run"]):
        assert cli.main([*words, "--integrator.t_end", "0.25"]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and "integrator.t_end = 0.25 lies before what it has reached, t = 0.5" in line
    assert len(calls) == 1


def test_resume_refuses_what_decides_the_result(calls, capsys):
    cli.main(["run", "heat.toml", "--output", "r"])
    assert cli.main(["resume", "r", "--seed", "2"]) == 2
    assert capsys.readouterr().err.startswith("nivp: command line: seed decides the result and cannot change in a ")
    assert len(calls) == 1


def test_a_run_that_is_still_going_cannot_be_resumed(calls, capsys, tmp_path):
    cli.main(["run", "heat.toml", "--output", "r"])
    code = "import time; from nivp_dist.storage.lock import hold\n"
    code += f"with hold({str(tmp_path / 'r')!r}): print(1, flush=True); time.sleep(60)"
    root = Path(nivp_dist.__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as holder:
        try:
            assert holder.stdout.readline() == b"1\n"
            assert cli.main(["resume", "r"]) == 2
        finally:
            holder.kill()
    line = capsys.readouterr().err
    assert line.startswith(f"nivp: {tmp_path}/r: in use by process {holder.pid} on ")
    assert line.endswith(": wait for its end (`nivp resume --patience SECONDS` does), or stop it\n")
    assert len(calls) == 1


def test_a_resume_with_patience_waits_for_the_lock(calls, capsys, tmp_path):
    cli.main(["run", "heat.toml", "--output", "r"])
    code = "import time; from nivp_dist.storage.lock import hold\n"
    code += f"with hold({str(tmp_path / 'r')!r}): print(1, flush=True); time.sleep(3)"
    root = Path(nivp_dist.__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as holder:
        assert holder.stdout.readline() == b"1\n"
        assert cli.main(["resume", "r", "--patience", "60"]) == 0
    assert capsys.readouterr().err == f"nivp: warning: {tmp_path}/r is in use: waiting for up to 60 s\n"
    assert len(calls) == 2


def test_status(calls, capsys):
    cli.main(["run", "heat.toml", "--output", "r"])
    assert cli.main(["status", "r"]) == 0
    assert "not started" in capsys.readouterr().out
    errors = [{"t": 0.5, "relative_l2": 1.25e-3}]
    run_directory.write_summary("r", {"status": "running", "problem": "heat", "errors": errors})
    metrics.Lines("r/metrics.jsonl").append({"step": 4, "t": 0.125, "h": 0.03125})
    metrics.Lines("r/events.jsonl").append({"step": 2, "t": 0.1, "kind": "refit", "message": "conditioning"})
    Path("r/checkpoints/4").mkdir(parents=True)
    assert cli.main(["status", "r"]) == 0
    shown = capsys.readouterr().out
    for part in ("interrupted", "nivp resume r", "heat", "0.125", "0.03125", "at t = 0.5", "1.25e-03", "conditioning"):
        assert part in shown
    assert cli.main(["status", "r", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "interrupted" and found["last_step"]["step"] == 4
    with hold("r"):
        cli.main(["status", "r", "--json"])
    assert json.loads(capsys.readouterr().out)["status"] == "running"


def test_plot_prints_the_pictures(calls, capsys, monkeypatch):
    cli.main(["run", "heat.toml", "--output", "r"])
    pictures = types.SimpleNamespace(
        draw=lambda directory, output, style: [Path(output or directory / "pictures", f"error{style or ''}.png")]
    )
    monkeypatch.setitem(sys.modules, "nivp_dist.report.pictures", pictures)
    monkeypatch.setattr("nivp_dist.report.pictures", pictures, raising=False)
    assert cli.main(["plot", "r"]) == 0
    assert capsys.readouterr().out == "r/pictures/error.png\n"
    assert cli.main(["plot", "r", "--output", "elsewhere", "--style", "ggplot"]) == 0
    assert capsys.readouterr().out == "elsewhere/errorggplot.png\n"


def test_problems_lists_problems_and_configurations(calls, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli, "shipped_configs", lambda: {"heat_2d": Path("heat.toml")})
    assert cli.main(["problems"]) == 0
    shown = capsys.readouterr().out
    for part in ("fokker_planck_trap", "moving_trap", "sine series", "heat_2d", "Heat in two dimensions.", "1 min"):
        assert part in shown


def test_the_list_of_problems_breaks_no_word_on_a_screen_of_80_columns(calls, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["problems"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for path in shipped_configs().values():
        assert path.stem in shown.split() and set(describe_config(path).what.split()) <= set(shown.split())


def every_command(group, name="nivp"):
    """(words, command) of every command that is not a group of others."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


EXAMPLES = {name: command.epilog for name, command in every_command(cli.nivp) if command.epilog}


def finished(words, log):
    """In the place of `nivp_dist.bench.child_process.evolve`: the run has finished at once."""
    run_directory.write_summary(words[1], {"status": "finished"})


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_every_help_text_runs(name, calls, capsys, monkeypatch, tmp_path):
    """With stand-ins for what takes long: the controller, sbatch, and the measurements of `nivp bench`."""
    for directory in ("runs/heat-001", "runs/heat-002"):
        cli.main(["run", "heat.toml", "--output", directory])
        run_directory.write_summary(directory, {"status": "finished", "problem": "heat"})
    capsys.readouterr()
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 42\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr("nivp_dist.report.pictures.draw", lambda *arguments, **options: [])
    monkeypatch.setattr("nivp_dist.run.tabulated.tabulate", lambda *arguments: types.SimpleNamespace(name="solution"))
    monkeypatch.setattr("nivp_dist.export.command_line.write", lambda action, path: None)
    monkeypatch.setattr("nivp_dist.bench.speed.run", lambda *arguments: None)
    monkeypatch.setattr("nivp_dist.bench.accuracy.run", lambda names, *_, **__: accuracy.select(names) and {"rows": []})
    monkeypatch.setattr("nivp_dist.studies.family.evolve", finished)
    monkeypatch.setattr("nivp_dist.bench.score_sheet.lines", lambda sheet: [])
    monkeypatch.setattr("nivp_dist.bench.faults.table.run", lambda *arguments: True)
    monkeypatch.setattr("nivp_dist.studies.measurements.take", lambda *arguments: {})
    words = shlex.split(EXAMPLES[name].removeprefix("Example: "))
    assert " ".join(words).startswith(name)
    assert cli.main(words[1:]) == 0, capsys.readouterr().err


def test_commands_with_options_have_an_example():
    without = {name for name, command in every_command(cli.nivp) if command.params and not command.epilog}
    assert without == set()


def test_output_times_that_are_left_out_are_said(calls, capsys):
    Path("late.toml").write_text(HEAT + "[output]\ntimes = [0.25, 0.75]\n")
    assert cli.main(["run", "late.toml", "--integrator.t_end", "0.5", "--output", "r"]) == 0
    assert capsys.readouterr().err == "nivp: output times beyond integrator.t_end = 0.5 are left out: 0.75\n"
    assert calls[0][0].output.times == [0.25]
    assert cli.main(["resume", "r", "--integrator.t_end", "0.125"]) == 0
    assert capsys.readouterr().err == "nivp: output times beyond integrator.t_end = 0.125 are left out: 0.25\n"


def test_a_directory_in_which_a_run_failed_before_its_first_line_can_be_used_again(calls):
    calls.raises = RunFailed("out of memory")
    assert cli.main(["run", "heat.toml", "--output", "r"]) == 1
    assert Path("r/logs").is_dir()
    calls.raises = None
    assert cli.main(["run", "heat.toml", "--output", "r", "--seed", "3"]) == 0
    assert [call[0].seed for call in calls] == [0, 3]


@pytest.mark.parametrize(
    "left", ["summary.json", "metrics.jsonl", "events.jsonl", "job-001.sbatch", "checkpoints/3/state"]
)
def test_a_directory_in_which_a_run_has_written_anything_is_refused(calls, capsys, left):
    calls.raises = RunFailed("out of memory")
    cli.main(["run", "heat.toml", "--output", "r"])
    Path("r", left).parent.mkdir(parents=True, exist_ok=True)
    Path("r", left).write_text("")
    capsys.readouterr()
    assert cli.main(["run", "heat.toml", "--output", "r"]) == 2
    assert capsys.readouterr().err == "nivp: r: holds another run; use `nivp resume r`, or another --output\n"


def test_a_directory_that_a_run_has_just_made_is_refused(calls):
    run_directory.create(read_config("heat.toml"), "r", "heat")
    assert cli.main(["run", "heat.toml", "--output", "r"]) == 2
    with hold("r"):
        pass
    with hold("r"):
        assert cli.main(["run", "heat.toml", "--output", "r"]) == 2
    assert cli.main(["run", "heat.toml", "--output", "r"]) == 0


def test_a_run_of_a_configuration_from_a_pipe(calls, tmp_path):
    reading, writing = os.pipe()
    os.write(writing, HEAT.encode())
    os.close(writing)
    assert cli.main(["run", f"/dev/fd/{reading}"]) == 0
    os.close(reading)
    assert calls[0][1] == tmp_path / "runs/run-001"


def in_a_process(words, environment=None, before="", redirection=""):
    """A command of nivp in a process of its own, started by bash. before: lines of Python that come first."""
    code = f"import sys\n{before}\nfrom nivp_dist import cli\nsys.exit(cli.main({words!r}))"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {redirection}"
    own = os.environ | {"PYTHONPATH": str(Path(nivp_dist.__file__).parent.parent)} | (environment or {})
    return subprocess.run(["bash", "-c", command], env=own, capture_output=True, text=True, errors="surrogateescape")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_standard_streams(calls, redirection):
    cli.main(["run", "heat.toml", "--output", "r"])
    done = in_a_process(["status", "r"], redirection=redirection)
    assert done.returncode == 0 and done.stderr == ""
    done = in_a_process(["status", "none"], redirection=redirection)
    assert done.returncode == 2 and done.stderr.count("\n") == (0 if "2>&-" in redirection else 1)


def test_a_closed_stream_is_not_taken_by_a_file_of_the_run(tmp_path):
    before = f"from nivp_dist import cli\ncli.read_config = lambda *_: open({str(tmp_path / 'f')!r}, 'w')"
    before += "\ncli._join_group = lambda file, notes: print(file.fileno(), file=sys.stderr) or sys.exit(0)"
    assert int(in_a_process(["run", "x"], before=before, redirection=">&- <&-").stderr) > 2


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_path_with_an_umlaut_where_the_locale_is_not_utf8(calls, tmp_path, monkeypatch):
    (tmp_path / "ü").mkdir()
    monkeypatch.chdir(tmp_path / "ü")
    for words in (["run", "../heat.toml"], ["run", "../heat.toml", "--output", "r"]):
        done = in_a_process(words, ASCII)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert done.stderr.endswith("this locale does not know: set LC_ALL=C.UTF-8, or choose another\n")
    assert not list(Path().glob("r*"))
    cli.main(["run", "../heat.toml", "--output", "r"])
    for words, code in ((["status", "r"], 0), (["resume", "r"], 2), (["submit", "../heat.toml", "--dry-run"], 2)):
        done = in_a_process(words, ASCII)
        assert done.returncode == code and "Traceback" not in done.stderr
    assert in_a_process(["submit", "../heat.toml", "--output", str(tmp_path / "r"), "--dry-run"], ASCII).returncode == 0


@pytest.mark.parametrize("platform", ["cuda", "tpuu"])
def test_a_platform_that_jax_cannot_start(calls, platform):
    for words, code in ((["run", "heat.toml"], 2), (["doctor"], 1)):
        done = in_a_process(words, {"JAX_PLATFORMS": platform})
        assert done.returncode == code and done.stderr.count("\n") == 1, done.stderr
        assert f"environment: jax cannot start with JAX_PLATFORMS={platform}: " in done.stderr


NOBODY = """
import os, pwd
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = unknown
for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
"""


def test_a_user_without_a_home_directory(calls):
    """As in a container that is started with a number in place of a user."""
    cli.main(["run", "heat.toml", "--output", "r"])
    for words in (["status", "r"], ["submit", "heat.toml", "--dry-run"], ["doctor"]):
        done = in_a_process(words, before=NOBODY)
        assert done.returncode == 0 and done.stderr == ""
    line = "nivp: ~/r: no home directory is known here; write the path out\n"
    assert in_a_process(["run", "heat.toml", "--output", "~/r"], before=NOBODY).stderr == line


def test_help_version_and_nothing(calls, capsys):
    assert cli.main(["--help"]) == 0
    assert "resume" in capsys.readouterr().out
    assert cli.main(["run", "--help"]) == 0
    assert "CONFIG" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{nivp_dist.__version__}\n"
    assert cli.main([]) == 2


def test_the_package_and_the_command_line_start_without_jax():
    code = "import sys, nivp_dist, nivp_dist.cli; jax = lambda: 'jax' in sys.modules\n"
    code += "print(jax(), nivp_dist.Config.__name__, jax())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "Config", "False"]


def test_help_names_a_run_directory_in_one_way():
    for name, command in every_command(cli.nivp):
        text = command.get_help(click.Context(command, info_name=name))
        assert "DIRECTORY" not in text, name


def test_public_names():
    assert nivp_dist.__all__ == ["Problem", "Box", "Callback", "Config", "solve", "resume", "open_run"]
    assert nivp_dist.Box(2).dimension == 2
    assert set(nivp_dist.__all__) <= set(dir(nivp_dist))
    with pytest.raises(AttributeError):
        _ = nivp_dist.nothing


# launch/local, with a package `nivp_dist.cli` whose processes do what FAKE says

FAKE = """
import os, sys, time
index, count, meeting = (os.environ["NIVP_" + name] for name in ("PROCESS_ID", "PROCESSES", "MEETING"))
os.write(1, (" ".join([index, count, meeting, *sys.argv[1:]]) + "\\n").encode())  # one write: a whole line
wanted = dict(pair.split("=") for pair in os.environ["FAKE"].split())
if index in wanted:
    sys.exit(int(wanted[index]))
time.sleep(60)
"""


@pytest.fixture
def launch(tmp_path):
    """Run launch/local on stand-in processes. behaviour: 'index=exit code ...', the others sleep for a minute."""
    (tmp_path / "nivp_dist").mkdir()
    (tmp_path / "nivp_dist/__init__.py").write_text("")
    (tmp_path / "nivp_dist/cli.py").write_text(FAKE)

    def launch(behaviour, *arguments):
        environment = dict(os.environ, PYTHONPATH=str(tmp_path), FAKE=behaviour)
        command = [sys.executable, str(LAUNCHER), *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30)

    return launch


def test_launcher_starts_all_with_one_meeting(launch):
    found = launch("0=0 1=0 2=0", "3", "heat.toml", "--seed", "1")
    assert found.returncode == 0
    lines = sorted(line.split() for line in found.stdout.splitlines())
    assert [line[:2] for line in lines] == [["0", "3"], ["1", "3"], ["2", "3"]]
    assert len({line[2] for line in lines}) == 1
    assert lines[0][3:] == ["run", "heat.toml", "--seed", "1"]
    assert launch("0=0", "1", "resume", "r").stdout.split()[3:] == ["resume", "r"]


def test_processes_end_with_a_launcher_that_is_killed(launch, tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(tmp_path), FAKE="")
    command = [sys.executable, str(LAUNCHER), "2", "heat.toml"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as launcher:
        for _ in range(2):  # both have started
            assert launcher.stdout.readline()
        launcher.kill()
        killed = time.monotonic()
        assert launcher.stdout.read() == b""  # the end of the file: nobody can write to it any more
    assert time.monotonic() - killed < 20  # by themselves they would sleep for a minute


def test_launcher_kills_the_others_and_gives_the_first_failure(launch):
    begin = time.monotonic()
    assert launch("1=3", "3", "heat.toml").returncode == 3
    assert time.monotonic() - begin < 20


def test_launcher_says_how_it_is_used(launch):
    found = launch("", "heat.toml")
    assert found.returncode == 2 and str(LAUNCHER.parent) not in found.stderr
    for form in ("N CONFIG [--section.key value ...]", "N resume DIR", "N doctor", "N -- PROGRAM ..."):
        assert f"launch/local {form}" in found.stderr
