"""The README's example, taken from the README: what a newcomer copies must run, and be right."""

import re
from pathlib import Path

import pytest

from nivp_dist import cli, open_run

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A directory that holds the example's two files."""
    directory = tmp_path_factory.mktemp("example")
    for name, body in re.findall(r"<!-- example: (\S+) -->\n```\w+\n(.*?)```", README.read_text(), re.DOTALL):
        (directory / name).write_text(body)
    return directory


def test_the_user_problem_of_the_readme_runs_and_is_right(example, monkeypatch):
    monkeypatch.chdir(example)
    shorter = "--devices 1 --integrator.t_end 0.3 --sampling.points 2000 --fit.points 2000 --fit.iterations 25"
    assert cli.main(["run", "mixture.toml", "--output", "run", *shorter.split()]) == 0
    errors = open_run("run").errors()
    assert errors["t"].tolist() == [0.0, 0.3]
    assert errors["relative_l2"][-1] < 2e-2  # the bound of the example


def test_every_command_of_the_readme_exists():
    commands = set(re.findall(r"^    nivp (\w+)", README.read_text(), re.MULTILINE))
    assert commands == set(cli.nivp.commands)
