"""Problems by name and by file; every mistake in a user's file gives one line with its place."""

import pytest

from nivp_dist.errors import InputError
from nivp_dist.problems import registry
from nivp_dist.problems.base import Problem, evaluate_reference, has_reference
from nivp_dist.settings.model import ProblemSettings

MINE = """\
from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
from pydantic import Field

from nivp_dist.problems import Box, Dimension, Problem, laplacian


class Mine(Problem):
    dimension: Dimension = 2
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    centre: tuple[float, float] = (0.0, 0.0)
    label: str = "a"

    @property
    def domain(self):
        return Box(self.dimension)

    def initial(self, x):
        return jnp.prod(1 - x**2)

    def rhs(self, u, x, t):
        return self.rate * laplacian(u, x)
"""


@pytest.fixture
def load(tmp_path):
    """Load class Mine (or another) of a file with this text."""

    def load(text=MINE, cls="Mine", **parameters):
        (tmp_path / "mine.py").write_text(text)
        return registry.load(ProblemSettings(file="mine.py", class_=cls, parameters=parameters), base=tmp_path)

    return load


def refused(function, *arguments, **keywords):
    with pytest.raises(InputError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", registry.SHIPPED)
def test_every_shipped_problem_loads_and_has_a_reference(name):
    problem = registry.load(ProblemSettings(name=name))
    assert isinstance(problem, Problem) and has_reference(problem)


def test_parameters_are_set():
    problem = registry.load(ProblemSettings(name="fokker_planck_trap", parameters={"dimension": 3, "diffusion": 1}))
    assert problem.dimension == problem.domain.dimension == 3
    assert problem.diffusion == 1.0 and isinstance(problem.diffusion, float)
    assert evaluate_reference(problem, problem.domain.centre[None], 0.5).shape == (1, 1)


def test_catalogue_describes_every_problem():
    rows = registry.catalogue()
    assert [row.name for row in rows] == list(registry.SHIPPED)
    assert all(row.summary and row.reference and row.dimension >= 1 for row in rows)


def test_a_file_with_postponed_annotations(load):
    problem = load(rate=0.25, centre=[1, 2])
    assert (problem.rate, problem.centre, problem.dimension) == (0.25, (1.0, 2.0), 2)


def test_an_edited_file_is_read_again(load):
    assert load().rate == 0.5
    assert load(MINE.replace("0.5", "0.75")).rate == 0.75


def test_an_unknown_name_is_an_error_with_the_nearest_name():
    line = refused(registry.load, ProblemSettings(name="haet"))
    assert line == "problem.name: there is no problem 'haet'; the nearest is 'heat'"
    line = refused(registry.load, ProblemSettings(name="zzz"))
    assert line == "problem.name: there is no problem 'zzz'; `nivp problems` lists them"


@pytest.mark.parametrize(
    "parameters, line",
    [
        ({"ratee": 1}, "unknown key problem.parameters.ratee; the nearest is rate"),
        ({"zzz": 1}, "unknown key problem.parameters.zzz; it has dimension, rate, centre, label"),
        ({"dimension": 0}, "problem.parameters.dimension must be a whole number of at least 1, got 0"),
        ({"dimension": 2.5}, "problem.parameters.dimension must be a whole number of at least 1, got 2.5"),
        ({"rate": 1}, "problem.parameters.rate must be a number above 0 and below 1, got 1"),
        ({"rate": "fast"}, 'problem.parameters.rate must be a number above 0 and below 1, got "fast"'),
        ({"centre": [1, 2, 3]}, "problem.parameters.centre must be a list of 2 numbers, got [1, 2, 3]"),
        ({"label": 3}, "problem.parameters.label must be a string, got 3"),
    ],
)
def test_parameters_of_the_wrong_kind(load, tmp_path, parameters, line):
    assert refused(load, **parameters) == f"{tmp_path}/mine.py: {line}"


def test_parameter_of_a_shipped_problem():
    line = refused(registry.load, ProblemSettings(name="heat", parameters={"dim": 3}))
    assert line == "problem heat: unknown key problem.parameters.dim; the nearest is dimension"


def test_a_parameter_without_default_must_be_set(load, tmp_path):
    text = MINE.replace('label: str = "a"', "label: str")
    assert load(text, label="x").label == "x"
    assert refused(load, text) == f"{tmp_path}/mine.py: problem.parameters.label must be set: it has no default"


@pytest.mark.parametrize(
    "text, line",
    [
        ("x = = 1\n", "mine.py:1: SyntaxError: invalid syntax"),
        ("x = 1\n\0\0", "mine.py: SyntaxError: source code string cannot contain null bytes"),
        (
            "\nimport no_such_package\n",
            "mine.py:2: ModuleNotFoundError: No module named 'no_such_package'; "
            "a problem file imports installed packages and files in its folder",
        ),
        ("\n\n1 / 0\n", "mine.py:3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "mine.py:2: SystemExit: 3"),
        ("", "mine.py: problem.class: there is no class 'Mine' in this file; it has no class at all"),
        (
            MINE.replace("class Mine", "class Yours"),
            "mine.py: problem.class: there is no class 'Mine' in this file; it has Yours",
        ),
        ("class Mine:\n    pass\n", "mine.py: class Mine must derive from nivp_dist.Problem"),
        (MINE.replace("def rhs(", "def right("), "mine.py: class Mine must define the method 'rhs(self, u, x, t)'"),
        (MINE.replace("def initial(", "def start("), "mine.py: class Mine must define the method 'initial(self, x)'"),
        (MINE.replace("def domain(", "def where("), "mine.py: class Mine must define the property 'domain'"),
        (
            MINE.replace("rate:", "def __post_init__(self):\n        raise ValueError('no')\n\n    rate:"),
            "mine.py:14: ValueError: no",
        ),
    ],
)
def test_mistakes_in_the_file(load, tmp_path, text, line):
    assert refused(load, text) == f"{tmp_path}/{line}"


def test_an_annotation_that_no_configuration_can_set(load, tmp_path):
    text = MINE.replace('label: str = "a"', "label: NoSuchType = None")
    assert load(text).label is None
    line = f"{tmp_path}/mine.py: parameter label: its annotation cannot be read"
    assert refused(load, text, label=1).startswith(line)


def test_missing_file(tmp_path):
    settings = ProblemSettings(file="none.py", class_="Mine")
    line = refused(registry.load, settings, tmp_path)
    assert line == f"{tmp_path}/none.py: problem.file cannot be read: No such file or directory"
