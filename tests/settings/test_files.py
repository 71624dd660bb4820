"""Reading, overriding, validating and recording configurations; every mistake gives one exact line."""

import ast
import inspect
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nivp_dist.errors import InputError
from nivp_dist.settings import fits, model
from nivp_dist.settings.files import (
    CHANGEABLE,
    config_hash,
    describe_config,
    name_of,
    no_run_in,
    parse_value,
    read_config,
    resume_config,
    shipped_configs,
    to_toml,
)
from nivp_dist.settings.keys import describe, known_keys
from nivp_dist.settings.model import Config

HEAT = '[problem]\nname = "heat"\n'
USER = "class Mine:\n    pass\n"


@pytest.fixture
def toml(tmp_path):
    """Write a configuration and get its path."""

    def write(text, name="x.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def mistake(source, overrides=None):
    with pytest.raises(InputError) as caught:
        read_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_from_the_file_and_defaults(toml):
    config = read_config(toml(HEAT + "[integrator]\nt_end = 2\n[output]\ntimes = [0.5, 1]\n[solver]\nrank = 7\n"))
    assert config.problem.name == "heat"
    assert config.integrator.t_end == 2.0 and isinstance(config.integrator.t_end, float)
    assert config.output.times == [0.5, 1.0]
    assert config.solver.rank == 7
    assert config.solver.mu == Config(problem={"name": "heat"}).solver.mu


def test_what_is_not_set_follows_from_the_accuracy(toml):
    text = "accuracy = 1e-4\n" + HEAT
    config = read_config(toml(text + "[fit]\ntarget = 0.25\n"), {"restart.bound": "0.125"})
    assert (config.fit.target, config.restart.bound) == (0.25, 0.125)
    assert config.solver.mu == "auto" and math.isclose(config.integrator.rtol, 5e-6)
    assert config.fit.line_search and config.solver.rtol == Config(problem={"name": "heat"}).solver.rtol
    # The record holds what came of it, and reads back the same.
    record = toml(to_toml(config), "record.toml")
    assert read_config(record) == config
    for wrong in ("0.0", "1.5", "fine"):
        assert "accuracy" in mistake(toml(HEAT), {"accuracy": wrong})


def test_every_key_is_explained_where_it_stands():
    """The settings are the reference that users read: a comment stands above every key, but for those of refits."""
    keys, unexplained = 0, []
    for source in map(inspect.getsource, (model, fits)):
        lines = source.splitlines()
        for section in filter(lambda part: isinstance(part, ast.ClassDef), ast.parse(source).body):
            for statement in section.body:
                if not isinstance(statement, ast.AnnAssign) or "Settings" in ast.unparse(statement.annotation):
                    continue
                keys += 1
                if section.name != "RefitSettings" and not lines[statement.lineno - 2].strip().startswith("#"):
                    unexplained.append(ast.unparse(statement))
    assert keys == len(known_keys())
    assert unexplained == []


def test_refits_have_the_settings_of_the_initial_fit_but_for_their_own(toml):
    text = HEAT + '[fit]\nsteps = 70\niterations = 9\n[restart.fit]\nmethod = "adam"\nbatch = 50\n'
    config = read_config(toml(text), {"restart.fit.learning_rate": "0.5"})
    refit = config.restart.fits(config.fit)
    assert (refit.method, refit.optimiser, refit.batch, refit.learning_rate) == ("optimiser", "adam", 50, 0.5)
    assert refit.on_miss == "continue"  # a refit that misses its target is refused, and the run goes on
    own = {"method", "batch", "learning_rate", "on_miss"}
    assert refit.model_dump(exclude=own) == config.fit.model_dump(exclude=own)
    assert config.fit.method == "gauss_newton"
    # The record holds them, and reads back the same.
    assert read_config(toml(to_toml(config), "record.toml")) == config
    # Every key of a fit is one of a refit, with the same values, but for those that its docstring names.
    initial, others = fits.FitSettings.model_fields, {"on_miss", "time_derivative_targets"}
    assert fits.RefitSettings.model_fields.keys() == initial.keys() - others
    for name, field in fits.RefitSettings.model_fields.items():
        assert known_keys()[f"restart.fit.{name}"]["anyOf"][-1] == {"type": "null"} and field.default is None
        assert describe(known_keys()[f"restart.fit.{name}"]) == describe(known_keys()[f"fit.{name}"])


def test_output_times_beyond_an_end_on_the_command_line_are_left_out(toml):
    path, notes = toml(HEAT + "[output]\ntimes = [0.25, 0.5, 0.75]\n"), []
    config = read_config(path, {"integrator.t_end": "0.5"}, notes.append)
    assert config.output.times == [0.25, 0.5]
    assert notes == ["output times beyond integrator.t_end = 0.5 are left out: 0.75"]
    read_config(path, {"integrator.t_end": "2"}, notes.append)
    assert len(notes) == 1
    # The record of a run is a file as well.
    toml(to_toml(read_config(path)), "config.toml")
    assert resume_config(path.parent, {"integrator.t_end": "0.3"}, notes.append).output.times == [0.25]
    assert notes[1:] == ["output times beyond integrator.t_end = 0.3 are left out: 0.5, 0.75"]


def test_output_times_beyond_the_end_in_one_source_are_a_mistake(toml):
    path = toml(HEAT + "[output]\ntimes = [0.75]\n[integrator]\nt_end = 0.5\n")
    assert mistake(path) == f"{path}: output.times must lie in [0, integrator.t_end = 0.5], got [0.75]"
    both = {"integrator.t_end": "0.5", "output.times": "[0.25, 0.75]"}
    line = "command line: output.times must lie in [0, integrator.t_end = 0.5], got [0.75]"
    assert mistake(path, both) == line
    path = toml(HEAT + '[output]\ntimes = ["x"]\n')
    assert mistake(path, {"integrator.t_end": "0.5"}) == f'{path}: output.times must be a list of numbers, got ["x"]'
    assert mistake(path, {"integrator.t_end": "x"}).startswith("command line: integrator.t_end must be a number")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAT.encode())
    assert read_config(path).problem.name == "heat"


def test_a_configuration_from_a_pipe(tmp_path, monkeypatch):
    """As in `nivp run <(sed s/a/b/ x.toml)`: readable once, and without a folder of its own."""
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, b'[problem]\nfile = "mine.py"\nclass = "Mine"\n')
    os.close(writing)
    source = f"/dev/fd/{reading}"
    assert name_of(source) == "run" and name_of("a/heat_2d.toml") == "heat_2d"
    assert read_config(source).problem.file == str(tmp_path / "mine.py")
    os.close(reading)


def test_the_head_of_a_configuration_is_its_description(toml):
    path = toml("# What it solves.\n# time: 1 min\n# error: 1e-3 at t = 1\n\n# time: later\n" + HEAT)
    assert describe_config(path) == ("What it solves.", "1 min", "1e-3 at t = 1")
    assert describe_config(toml(HEAT)) == ("", "", "")


def test_overrides_win_and_are_typed(toml):
    path = toml(HEAT + "[solver]\nmu = 1e-3\n")
    overrides = {
        "solver.mu": "1e-8",
        "solver.method": "dual",
        "solver.rank": "adaptive",
        "restart.enabled": "False",
        "output.times": "[0.25, 0.5]",
        "integrator.rtol": ".5",
        "problem.parameters.dimension": "3",
        "seed": "4",
    }
    config = read_config(path, overrides)
    assert (config.solver.mu, config.solver.method, config.solver.rank) == (1e-8, "dual", "adaptive")
    assert config.restart.enabled is False
    assert config.output.times == [0.25, 0.5]
    assert config.integrator.rtol == 0.5
    assert config.problem.parameters == {"dimension": 3}
    assert config.seed == 4


@pytest.mark.parametrize("other, name", [("rk23", "bogacki_shampine"), ("RK45", "dormand_prince")])
def test_the_names_of_scipy_for_runge_kutta_methods(toml, other, name):
    assert read_config(toml(HEAT), {"integrator.method": other}).integrator.method == name


def test_text_that_is_no_toml_value_is_a_string_and_nothing_else_slips_in():
    assert parse_value("dual") == "dual"
    assert parse_value('"1"') == "1"
    assert parse_value("1\nseed = 3") == "1\nseed = 3"
    assert parse_value("-1e-3") == -1e-3


@pytest.mark.parametrize(
    "body, line",
    [
        (HEAT + "[solver]\ntolerance = 1\n", "unknown key solver.tolerance; the nearest is solver.rtol"),
        (HEAT + "[solver]\nt_end = 1\n", "unknown key solver.t_end; the nearest is integrator.t_end"),
        (HEAT + "[intergrator]\nrtol = 1\n", "unknown key intergrator.rtol; the nearest is integrator.rtol"),
        ("sed = 1\n" + HEAT, "unknown key sed; the nearest is seed"),
        (HEAT + "[sampling]\npoints = 1.5\n", "sampling.points must be a whole number above 0 or 'auto', got 1.5"),
        (HEAT + "[sampling]\npoints = true\n", "sampling.points must be a whole number above 0 or 'auto', got true"),
        (HEAT + '[solver]\nmu = "1e-9"\n', "solver.mu must be a number above 0 or 'auto', got \"1e-9\""),
        (HEAT + "[solver]\nmu = 0.0\n", "solver.mu must be a number above 0 or 'auto', got 0.0"),
        (
            HEAT + '[solver]\nmethod = "cg"\n',
            "solver.method must be one of 'auto', 'pcg', 'dual_pcg', 'primal', 'dual', got \"cg\"",
        ),
        (
            HEAT + '[solver]\nprecision = "bfloat16"\n',
            "solver.precision = 'bfloat16' is for solver.method = 'pcg' or 'dual_pcg' (residuals are in float64 "
            "there), and the method is 'auto': set that too, or 'float32'",
        ),
        (HEAT + '[solver]\nrank = "all"\n', "solver.rank must be a whole number above 0 or 'adaptive', got \"all\""),
        (HEAT + "[restart]\nenabled = 1\n", "restart.enabled must be true or false, got 1"),
        (HEAT + "[output]\ntimes = 0.5\n", "output.times must be a list of numbers, got 0.5"),
        (HEAT + '[output]\ntimes = [0.1, "x"]\n', 'output.times must be a list of numbers, got [0.1, "x"]'),
        (
            HEAT + "[sampling]\nuniform_fraction = 1.5\n",
            "sampling.uniform_fraction must be a number above 0 and of at most 1 or 'auto', got 1.5",
        ),
        (HEAT + "[integrator]\nt_end = inf\n", "integrator.t_end must be finite, got Infinity"),
        (HEAT + "[problem.parameters]\nwidth = nan\n", 'problem.parameters must be finite, got {"width": NaN}'),
        ("solver = 3\n" + HEAT, "solver is a section, got 3; write its keys under [solver]"),
        ("seed = 1\n", "[problem] is missing: name a problem, `nivp problems` lists them"),
        ('[problem]\nname = "a"\nfile = "b.py"\n', "set either problem.name or problem.file (with problem.class)"),
        ('[problem]\nfile = "b.py"\n', "problem.file needs problem.class, the name of the class in that file"),
        (HEAT + '[network]\nfile = "b.py"\n', "network.file needs network.class, the name of the class of the network"),
        (
            HEAT + "[network.parameters]\nrank = 3\n",
            "network.parameters needs network.class, the name of the class of the network",
        ),
        (
            HEAT + '[network]\nclass = "Mine"\nwidth = 16\n',
            "network.width has no meaning with network.class = 'Mine': leave it out, or make it a parameter of that "
            "class (network.parameters)",
        ),
        (
            HEAT + "[network]\ngaussians = 0\n",
            "network.gaussians = 0 is for a network of your own (network.class): set at least 1",
        ),
        (
            "seed = 18446744073709551616\n" + HEAT,
            "seed must be a whole number from 0 to 9223372036854775807, got 18446744073709551616",
        ),
        (
            HEAT + '[fit]\noptimiser = "adm"\n',
            "fit.optimiser must be an optimiser of optax that fits can use, got 'adm'; did you mean adam or radam or "
            "nadam?",
        ),
        (HEAT + "[restart.fit]\nsteps = 0\n", "restart.fit.steps must be a whole number above 0, got 0"),
        (HEAT + "[restart.fit]\nstep = 10\n", "unknown key restart.fit.step; the nearest is restart.fit.steps"),
        (HEAT + "[restart]\nfit = 3\n", "restart.fit is a section, got 3; write its keys under [restart.fit]"),
        (
            HEAT + "[network]\nalpha = [1, 1]\nfrequencies = 3\n",
            "network.alpha has 2 entries for 3 frequencies: give one each, or one number",
        ),
        (
            HEAT + "[integrator]\nmin_step = 1e-2\nmax_step = 1e-3\n",
            "integrator.min_step = 0.01 is above integrator.max_step = 0.001: lower the first, or raise the second",
        ),
        (
            HEAT + "[output]\ntimes = [2.0]\n",
            "output.times must lie in [0, integrator.t_end = 1.0], got [2.0]",
        ),
    ],
)
def test_each_mistake_is_one_line_with_file_key_and_mend(toml, body, line):
    path = toml(body)
    assert mistake(path) == f"{path}: {line}"


def test_several_mistakes_are_counted(toml):
    path = toml(HEAT + "[solver]\nmu = -1\nrtoll = 1\nmethod = 0\n")
    assert mistake(path) == f"{path}: unknown key solver.rtoll; the nearest is solver.rtol (and 2 more mistakes)"


def test_mistakes_on_the_command_line_are_blamed_on_it(toml):
    path = toml(HEAT)
    assert mistake(path, {"solver.mu": "-1"}) == "command line: solver.mu must be a number above 0 or 'auto', got -1"
    assert mistake(path, {"solvr.mu": "1"}) == "command line: unknown key solvr.mu; the nearest is solver.mu"
    assert mistake(path, {"seed.x": "1"}) == "command line: unknown key seed.x; the nearest is seed"
    line = "command line: output.times must lie in [0, integrator.t_end = 1.0], got [3.0]"
    assert mistake(path, {"output.times": "[3.0]"}) == line


def test_toml_syntax_error_names_the_line(toml):
    path = toml("[problem]\nname = \n")
    assert mistake(path) == f"{path}: not valid TOML: Invalid value (at line 2, column 8)"


def test_not_utf8(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"seed = 1 # \xff\n")
    assert mistake(path) == f"{path}: not UTF-8 text (byte 11)"


def test_missing_file_and_directory(toml, tmp_path):
    assert mistake(tmp_path / "zzqq.toml") == (
        f"{tmp_path}/zzqq.toml: no such configuration file; `nivp problems` lists the shipped ones"
    )
    assert mistake(tmp_path) == f"{tmp_path}: a directory, not a configuration; name a TOML file in it"
    toml(HEAT, "config.toml")
    assert mistake(tmp_path) == f"{tmp_path}: a directory, not a configuration; a run is continued with `nivp resume`"


def test_shipped_configurations_are_found_by_name_and_nearly(toml, tmp_path, monkeypatch):
    path = toml(HEAT, "heat_2d.toml")
    monkeypatch.setattr("nivp_dist.settings.files.shipped_configs", lambda: {"heat_2d": path})
    assert read_config("heat_2d").problem.name == "heat"
    assert mistake("haet_2d") == "haet_2d: no such configuration file; did you mean the shipped heat_2d?"


def test_every_shipped_configuration_reads_and_says_what_it_solves_how_long_and_how_well():
    shipped = shipped_configs()
    assert shipped, "the package ships no configuration"
    for path in shipped.values():
        assert read_config(path) == read_config(path.stem)
        assert all(describe_config(path)), path
        assert "# reference: " in path.read_text(), path


def test_record_reads_back_the_same(toml, tmp_path):
    text = HEAT + "[problem.parameters]\nwidth = 0.07\n[solver]\nmu = 1.2345678901234567e-9\n"
    text += "[network]\nfrequencies = 2\nalpha = [1, 0.5]\n"
    config = read_config(toml(text))
    record = toml(to_toml(config, {"jax": "1.2.3"}), "config.toml")
    assert read_config(record) == config
    assert '[versions]\njax = "1.2.3"' in record.read_text()


def test_relative_problem_file_is_beside_the_configuration(toml, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    path = toml('[problem]\nfile = "mine.py"\nclass = "Mine"\n', "here/x.toml")
    assert read_config(path).problem.file == str(folder / "mine.py")
    monkeypatch.chdir(tmp_path)
    assert read_config("here/x.toml").problem.file == str(folder / "mine.py")
    assert read_config(path, {"problem.file": "other.py"}).problem.file == str(tmp_path / "other.py")


def test_hash_ignores_what_may_change_and_sees_everything_else(toml):
    path = toml(HEAT)
    base = config_hash(read_config(path))
    changed = {
        "integrator.t_end": "2.0",
        "integrator.max_steps": "7",
        "integrator.min_step": "1e-9",
        "output.times": "[0.1]",
        "output.every": "0.25",
        "output.plots": "false",
        "output.evaluation_points": "10",
        "output.spectrum_every": "7",
        "checkpoint.every_steps": "3",
        "checkpoint.every_minutes": "1",
        "checkpoint.keep": "2",
        "callbacks.file": str(toml("", "look.py")),
        "callbacks.classes": '["Probes"]',
        "callbacks.parameters": "{ Probes = { points = [[0.0]] } }",
        "cluster.control": "mpi",
        "cluster.startup_seconds": "60",
        "cluster.deadline_minutes": "5",
        "cluster.silence_seconds": "60",
        "cluster.shutdown_seconds": "60",
        "cluster.compilation_cache": "off",
        "devices": "4",
    }
    assert set(changed) == set(CHANGEABLE)
    assert config_hash(read_config(path, changed | {"output.directory": "elsewhere"})) == base
    decisive = {"seed": "1", "solver.mu": "1e-8", "problem.parameters.width": "0.06", "fit.points": "10"}
    decisive["problem.name"] = "wave"
    assert len({base} | {config_hash(read_config(path, {key: value})) for key, value in decisive.items()}) == 6


def test_changeable_keys_exist():
    assert set(CHANGEABLE) <= set(known_keys())


def test_hash_is_of_the_problem_files_content_not_its_place(toml, tmp_path):
    text = '[problem]\nfile = "{}"\nclass = "Mine"\n'
    toml(USER, "a.py"), toml(USER, "b.py"), toml(USER + "\n", "c.py")
    hashes = [config_hash(read_config(toml(text.format(name), f"{name}.toml"))) for name in ("a.py", "b.py", "c.py")]
    assert hashes[0] == hashes[1] != hashes[2]


def test_resume_takes_only_keys_that_may_change(toml, tmp_path):
    toml(to_toml(read_config(toml(HEAT))), "config.toml")
    assert resume_config(tmp_path, {"integrator.t_end": "3"}).integrator.t_end == 3.0
    with pytest.raises(InputError) as caught:
        resume_config(tmp_path, {"solver.mu": "1e-3"})
    assert str(caught.value) == (
        "command line: solver.mu decides the result and cannot change in a resumed run; these can: "
        + ", ".join(CHANGEABLE)
    )
    with pytest.raises(InputError, match="^command line: unknown key solver.muu; the nearest is solver.mu$"):
        resume_config(tmp_path, {"solver.muu": "1e-3"})
    with pytest.raises(InputError, match="problem.parameters.width decides the result"):
        resume_config(tmp_path, {"problem.parameters.width": "1"})


def test_resume_of_what_is_no_run(tmp_path):
    with pytest.raises(InputError) as caught:
        resume_config(tmp_path / "x")
    assert str(caught.value) == no_run_in(tmp_path / "x")


def test_reading_does_not_import_jax(toml):
    path = toml(HEAT)
    code = f"import sys; from nivp_dist.settings.files import read_config; read_config({str(path)!r})"
    code += "; print('jax' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_written_numbers_are_exact(toml):
    value = math.nextafter(1e-7, 1)
    record = toml(to_toml(read_config(toml(HEAT), {"solver.mu": repr(value)})), "r.toml")
    assert read_config(Path(record)).solver.mu == value
