"""The site file is found and read, and every mistake in it is reported in one exact line."""

import re

import pytest

from nivp_dist.batch import site
from nivp_dist.batch.site import SiteSettings
from nivp_dist.errors import InputError
from nivp_dist.settings.files import shipped


@pytest.fixture
def file(monkeypatch, tmp_path):
    """The site file, to be written."""
    monkeypatch.delenv("NIVP_SITE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "nivp").mkdir()
    return tmp_path / "nivp/site.toml"


def test_without_a_site_file_there_are_defaults(file):
    assert site.read() == SiteSettings()


def test_where_the_site_file_is_found(file, monkeypatch, tmp_path):
    file.write_text('account = "a"')
    assert site.read().account == "a"
    (tmp_path / "other.toml").write_text('account = "b"')
    monkeypatch.setenv("NIVP_SITE", str(tmp_path / "other.toml"))
    assert site.read().account == "b"
    monkeypatch.setenv("NIVP_SITE", str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="none.toml: no such file; NIVP_SITE names it: correct or unset it"):
        site.read()
    monkeypatch.delenv("NIVP_SITE")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert site.path() == tmp_path / ".config/nivp/site.toml"


def test_the_shipped_example_is_right_with_and_without_its_comment_signs(file):
    text = (shipped("slurm") / "site.toml").read_text()
    file.write_text(text)
    assert site.read() == SiteSettings()
    file.write_text(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    assert set(site.read().model_fields_set) == set(SiteSettings.model_fields)


@pytest.mark.parametrize(
    "text, line",
    [
        ('acount = "x"', "unknown key acount; the nearest is account"),
        ("zzz = 1", "unknown key zzz; the keys are scheduler, account, partition, qos, "),
        ("notice = 0", "notice must be a whole number from 1 to 65535, got 0"),
        ('notice = "60"', 'notice must be a whole number from 1 to 65535, got "60"'),
        ('scheduler = "sge"', "scheduler must be one of 'slurm', 'pbs', 'lsf', 'flux', got \"sge\""),
        ("chain = 0", "chain must be a whole number from 1 to 1000, got 0"),
        ("requeues = true", "requeues must be a whole number of at least 0, got true"),
        ("cpus_per_task = 0", "cpus_per_task must be a whole number above 0, got 0"),
        ("time = 30", "time must be a string, got 30"),
        ('time = "1h"', 'time must be a time such as 30 (minutes), 4:00:00 or 2-12:00:00, got "1h"'),
        ('modules = "cuda"', 'modules must be a list of strings, got "cuda"'),
        ("modules = [1]", "modules must be a list of strings, got [1]"),
        ('setup = "source x"', 'setup must be a list of strings, got "source x"'),
        ('setup = ["a\\nb"]', 'setup: every text is one line and not empty, got "a\\nb"'),
        ('account = "a\\tb"', 'account: every text is one line and not empty, got "a\\tb"'),
        ('environment = { A = "a\\rb" }', 'environment: every text is one line and not empty, got "a\\rb"'),
        ('account = ""', 'account: every text is one line and not empty, got ""'),
        ("environment = 1", "environment must be a table of strings, got 1"),
        ("environment = { A = 0.9 }", "environment.A must be a string, got 0.9"),
        ('environment = { "A-B" = "1" }', "environment.A-B: not the name of a variable; letters, digits and _ make "),
        ('srun = ["mpi=pmi2"]', 'srun lists options, got "mpi=pmi2"; write --name=value'),
        ('[srun]\nmpi = "pmi2"', 'srun must be a list of strings, got {"mpi": "pmi2"}'),
        ('container = "run \'it"', 'container must be words of bash, got "run \'it": No closing quotation'),
        ("zzz = 1\nnotice = 0\ntime = '1h'", "unknown key zzz; the keys are "),
        ("account =", "not valid TOML: Invalid value (at end of document)"),
    ],
)
def test_mistakes(file, text, line):
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        site.read()
    found = str(caught.value)
    assert found.startswith(f"{file}: {line}") and "\n" not in found
    assert found.endswith(" (and 2 more mistakes)") is (text.count("\n") == 2)


def test_a_line_of_setup_may_be_indented_by_a_tab(file):
    file.write_text('setup = ["if true; then", "\\tulimit -n 65536", "fi"]')
    assert site.read().setup[1] == "\tulimit -n 65536"


def test_without_a_home_directory_there_are_defaults(file, monkeypatch):
    def unknown(*_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name)
    assert site.read() == SiteSettings()


def test_a_variable_may_be_empty(file):
    file.write_text('environment = { XLA_FLAGS = "" }')
    assert site.read().environment == {"XLA_FLAGS": ""}


@pytest.mark.parametrize(
    "time, seconds",
    [("30", 1800), ("0:01", 1), ("4:00:00", 14400), ("2-12", 216000), ("1-2:03", 93780), ("2-12:00:30", 216030)],
)
def test_times_as_slurm_reads_them(time, seconds):
    assert site.seconds(time, "time") == seconds
